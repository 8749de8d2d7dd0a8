"""How a timer's inputs and outputs move: to page-locked memory, to the device, back, and out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from harness.backends._cuda.device import Gpu
from harness.backends._cuda.ring import Slot
from harness.errors import ConfigError, MeasurementError
from harness.protocols import Images, Kept, Outputs

WINDOWS = ("compute", "h2d", "d2h", "end_to_end")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """What is done around one inference. Copies are enqueued on the stream of the inference."""

    stage: Callable[[], object]  # the host copies the inputs to page-locked memory
    copy_in: Callable[[], object]
    copy_out: Callable[[], object]
    collect: Callable[[], object]  # the host copies the outputs to fresh memory
    read_outputs: Callable[[], Kept]  # of the last call, from the device, where they are then spoiled


def moves_of_slot(gpu: Gpu, slot: Slot, images: Images) -> Moves:
    """Return how a batch of images moves through a slot, whose compute stream it takes."""
    kept = images.copy()

    def copy_in() -> None:
        gpu.copy_in(slot.device_in, slot.host_in, slot.compute)

    def copy_out() -> None:
        gpu.copy_out(slot.host_out, slot.device_out, slot.compute)

    return Moves(
        stage=lambda: np.copyto(slot.host_in, kept, casting="same_kind"),
        copy_in=copy_in,
        copy_out=copy_out,
        collect=lambda: slot.host_out.astype(np.float32),
        read_outputs=partial(outputs_on_device, gpu, slot),
    )


def work_of_window(window: str, run: Callable[[], object], moves: Moves, *, label: str) -> Callable[[], object]:
    """Return what a window times: `run`, a copy, or copy in, run and copy out in turn.

    Raises: ConfigError for a window that is none.
    """

    def end_to_end() -> None:
        moves.copy_in()
        run()
        moves.copy_out()

    works = dict(zip(WINDOWS, (run, moves.copy_in, moves.copy_out, end_to_end), strict=True))
    if window not in works:
        raise ConfigError(f"{label}: window {window!r} is none of {', '.join(works)}, host")
    return works[window]


def outputs_on_device(gpu: Gpu, slot: Slot) -> Outputs:
    """Return what lies in a slot's output on the device, and spoil it there with NaN; on its compute stream.

    Raises: MeasurementError when the device fails.
    """
    try:
        gpu.copy_out(slot.host_out, slot.device_out, slot.compute)
        slot.compute.synchronize()
        found: Outputs = slot.host_out.astype(np.float32)
        slot.host_out.fill(np.nan)
        gpu.copy_in(slot.device_out, slot.host_out, slot.compute)
        slot.compute.synchronize()
    except gpu.errors as error:
        raise MeasurementError(f"reading batch {len(slot.host_out)} back failed on the device: {error}") from error
    return found

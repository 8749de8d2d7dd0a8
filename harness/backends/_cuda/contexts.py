"""A batch, or named inputs, that lie on the GPU and are run again and again, several at once: for throughput."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from harness.backends._cuda.base import TimedWork
from harness.backends._cuda.device import Gpu
from harness.backends._cuda.launcher import Launcher
from harness.backends._cuda.moves import Moves
from harness.backends._cuda.ring import N_SLOTS, Ring, Slot
from harness.errors import MeasurementError
from harness.protocols import Images, Kept, Outputs

MOST_CONTEXTS = N_SLOTS
QUEUED = "inferences queued on one stream, by one thread"
Failed = Callable[[str, BaseException], MeasurementError]  # makes the error that is raised when the device fails


class CudaContext:
    """One slot with its batch in place. Implements `protocols.QueuedContext`."""

    def __init__(
        self,
        gpu: Gpu,
        ring: Ring,
        slot: Slot,
        images: Images,
        failed: Failed,
    ) -> None:
        """Copy a batch to the slot's memory on the device."""
        self._gpu, self._ring, self._slot, self._failed = gpu, ring, slot, failed
        ring.stage(slot, images)
        gpu.copy_in(slot.device_in, slot.source, slot.compute)
        slot.compute.synchronize()

    def begin(self) -> None:
        """Enqueue one inference. Raises: MeasurementError."""
        try:
            self._ring.repeat(self._slot)
        except self._gpu.errors as error:
            raise self._failed("an inference could not be enqueued", error) from error

    def wait(self) -> None:
        """Wait for it. Raises: MeasurementError."""
        try:
            self._slot.events.computed.synchronize()
        except self._gpu.errors as error:
            raise self._failed("an inference failed on the device", error) from error

    def run(self) -> None:
        """Run once and wait. Raises: MeasurementError."""
        self.begin()
        self.wait()

    def outputs(self) -> Outputs:
        """Return float32[N, K] of the last run, in fresh memory. Raises: MeasurementError."""
        slot = self._slot
        kept = slot.host_out[: slot.n_images]
        try:
            self._gpu.copy_out(kept, slot.device_out, slot.compute)
            slot.compute.synchronize()
        except self._gpu.errors as error:
            raise self._failed("outputs could not be read", error) from error
        return kept.astype(np.float32)


class CudaTensorContext:
    """Named inputs in place, run on one stream with others of their kind. Implements `protocols.QueuedContext`."""

    def __init__(
        self,
        gpu: Gpu,
        stream: Any,
        *,
        timed: TimedWork,
        moves: Moves,
        failed: Failed,
        note: Callable[[str], None],
    ) -> None:
        """Copy the inputs, which are in page-locked memory already, to the device, and capture the work if it can be.

        Raises: MeasurementError.
        """
        self._gpu, self._moves, self._failed = gpu, moves, failed
        self._ended = gpu.event()
        self._launcher = Launcher(gpu, stream, work=timed.run, bind=timed.bind, note=note)
        try:
            moves.copy_in()
            self._launcher.prepare(timed.launch, can_capture=timed.can_capture, can_gate=False)
        except gpu.errors as error:
            self.close()
            raise failed("several inferences at once", error) from error

    def begin(self) -> None:
        """Enqueue one inference. Raises: MeasurementError."""
        try:
            self._launcher.ready()
            self._launcher.launch_once()()
            self._ended.record(self._launcher.stream)
        except self._gpu.errors as error:
            raise self._failed("an inference could not be enqueued", error) from error

    def wait(self) -> None:
        """Wait for it. Raises: MeasurementError."""
        try:
            self._ended.synchronize()
        except self._gpu.errors as error:
            raise self._failed("an inference failed on the device", error) from error

    def run(self) -> None:
        """Run once and wait. Raises: MeasurementError."""
        self.begin()
        self.wait()

    def outputs(self) -> Kept:
        """Return all outputs of the last run by name, and spoil them on the device. Raises: MeasurementError."""
        return self._moves.read_outputs()

    def close(self) -> None:
        """Destroy the graph and let go of stream and event; a second call does nothing."""
        self._launcher.close()
        self._ended = None

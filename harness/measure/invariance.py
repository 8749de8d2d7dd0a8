"""An image's result must not depend on its slot, its neighbours, the padding or the batch size.

Engines that return wrong rows at batch > 1 pass every accuracy test that feeds one image at a time. Nothing here needs
labels: an engine is compared with itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.protocols import Images, Outputs
from harness.records import InvarianceCheck, TensorSpec
from harness.specs import Precision

# Largest difference of an output, as a share of the largest output (at least 1). Kernels chosen for another batch size
# add in another order: in floating point that is a few roundings; INT8 sums are exact, but a value at the edge between
# two steps of a later tensor may move by one step. BF16 keeps 8 bits of a number where FP16 keeps 11, so its roundings
# are 8 times as large. A leak of a neighbour moves outputs by tenths.
OUTPUT_TOLERANCE = {Precision.FP32: 1e-4, Precision.FP16: 5e-3, Precision.BF16: 4e-2, Precision.INT8: 2e-2}
# Any graph may amplify roundings as no small classifier does: a network that reads random bytes as text moves by 0.5 %
# where its batch is another, and no answer with it.
GRAPH_TOLERANCE = {Precision.FP32: 0.01, Precision.FP16: 0.05, Precision.BF16: 0.1, Precision.INT8: 0.05}
MAX_SLOTS = 16
SHUFFLE_SEED = 20_240


class RunsRows(Protocol):
    """What is tried: an engine, or what stands for one."""

    input: TensorSpec

    def infer(self, images: Images) -> Outputs:
        """Run one batch and return fresh memory, one row an image."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The outputs of some images in one arrangement, beside their reference outputs."""

    where: str  # "slot 3 of 16"
    expected: Outputs
    found: Outputs


def check_invariance(
    engine: RunsRows,
    images: Images,
    *,
    batch_sizes: Sequence[int],
    precision: Precision,
    tolerance: float | None = None,
) -> tuple[InvarianceCheck, ...]:
    """Run the same images in many arrangements and say how far their outputs moved.

    images: float32[N, ...], at least 2 and best all different; they are repeated for larger batches. `batch_sizes`: as
    the engine was built for; an engine of fixed batch is only tried at its own. `tolerance`: share of the largest
    output (default: OUTPUT_TOLERANCE of the precision). One check a kind of arrangement: repeat, batch_size, slot,
    neighbours, padding.
    Raises: MeasurementError for fewer than 2 images, no batch size, or outputs that are not finite.
    """
    if len(images) < 2 or not batch_sizes or min(batch_sizes) < 1:
        raise MeasurementError(
            f"{len(images)} images at batch sizes {tuple(batch_sizes)} show no invariance; give 2 or more"
        )
    fixed = engine.input.shape[0]
    sizes = [fixed] if fixed else sorted(set(batch_sizes))
    probe = _Probe(engine, images, sizes[0])
    limit = accepted_gap(probe.reference, precision, tolerance)
    checks: list[tuple[str, Callable[[int], Iterator[Trial]]]] = [("repeat", probe.repeated)]
    if sizes[-1] > sizes[0]:
        checks.append(("batch_size", lambda largest: probe.resized(sizes[1:])))
    if sizes[-1] > 1:
        checks += [("slot", probe.slots), ("neighbours", probe.neighbours), ("padding", probe.padded)]
    return tuple(_check(name, list(trials(sizes[-1])), limit) for name, trials in checks)


class _Probe:
    """An engine, its images, and the outputs they have in the smallest batches."""

    def __init__(self, engine: RunsRows, images: Images, smallest: int) -> None:
        self._engine, self._images = engine, images
        self.reference = outputs_in_batches(engine, images, smallest)

    def repeated(self, largest: int) -> Iterator[Trial]:
        """Run one batch twice; the first outputs must also survive the second call."""
        batch = self._batch(largest)
        first = self._infer(batch)
        kept = first.copy()
        yield Trial(where="a second run of the same batch", expected=kept, found=self._infer(batch))
        self._infer(batch[::-1].copy())
        yield Trial(where="outputs kept over the next call", expected=kept, found=first)

    def resized(self, sizes: Sequence[int]) -> Iterator[Trial]:
        """Run all images in batches of other sizes."""
        for size in sizes:
            found = outputs_in_batches(self._engine, self._images, size)
            yield Trial(where=f"batch {size}", expected=self.reference, found=found)

    def slots(self, largest: int) -> Iterator[Trial]:
        """Move every image through the slots, then fill all slots with one image."""
        batch, expected = self._batch(largest), self._expected(largest)
        for slot in np.unique(np.linspace(0, largest - 1, min(largest, MAX_SLOTS)).astype(int)).tolist():
            moved = self._infer(np.roll(batch, slot, axis=0))
            yield Trial(
                where=f"moved by {slot} of {largest} slots", expected=expected, found=np.roll(moved, -slot, axis=0)
            )
        for index in (0, len(self._images) - 1):
            copies = np.repeat(self._images[index : index + 1], largest, axis=0)
            same = np.repeat(self.reference[index : index + 1], largest, axis=0)
            yield Trial(where=f"image {index} in all {largest} slots", expected=same, found=self._infer(copies))

    def neighbours(self, largest: int) -> Iterator[Trial]:
        """Shuffle the batch, then replace all neighbours of one image by its mirror and by bright ones."""
        batch, expected = self._batch(largest), self._expected(largest)
        order = np.random.default_rng(SHUFFLE_SEED).permutation(largest)
        yield Trial(where="shuffled", expected=expected[order], found=self._infer(batch[order]))
        others = {"inverted": batch.max() - batch, "brightest": np.full_like(batch, batch.max())}
        for name, replaced in others.items():
            for slot in {0, largest // 2, largest - 1}:
                mixed = replaced.copy()
                mixed[slot] = batch[slot]
                found = self._infer(mixed)[slot : slot + 1]
                yield Trial(where=f"slot {slot} beside {name} images", expected=expected[slot : slot + 1], found=found)

    def padded(self, largest: int) -> Iterator[Trial]:
        """Fill the end of a last batch with zeros, and with copies of its first image."""
        batch, expected = self._batch(largest), self._expected(largest)
        for real in sorted({1, largest // 2, largest - 1} - {0}):
            for name, filler in (("zeros", np.zeros_like(batch[:1])), ("copies", batch[:1])):
                filled = np.concatenate([batch[:real], np.repeat(filler, largest - real, axis=0)])
                yield Trial(
                    where=f"{real} of {largest} real, padded with {name}",
                    expected=expected[:real],
                    found=self._infer(filled)[:real],
                )

    def _batch(self, size: int) -> Images:
        return self._images[np.arange(size) % len(self._images)]

    def _expected(self, size: int) -> Outputs:
        return self.reference[np.arange(size) % len(self._images)]

    def _infer(self, batch: Images) -> Outputs:
        return _finite_outputs(self._engine, batch)


def outputs_in_batches(engine: RunsRows, images: Images, size: int) -> Outputs:
    """Return the outputs of images in batches of one size; the last batch is filled with the first images again.

    Raises: MeasurementError for NaN, +inf, or another number of rows.
    """
    n = len(images)
    filled = images[np.arange(-(-n // size) * size) % n]
    parts = [_finite_outputs(engine, filled[first : first + size]) for first in range(0, len(filled), size)]
    return np.concatenate(parts)[:n]


def accepted_gap(outputs: NDArray[np.floating], precision: Precision, tolerance: float | None = None) -> float:
    """Return how far outputs may differ: a share of the largest output, at least of 1."""
    share = OUTPUT_TOLERANCE[precision] if tolerance is None else tolerance
    return share * max(1.0, _largest(outputs))


def largest_gap(found: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    """Return the largest difference of an output; a class that one of the two rules out (-inf) has none."""
    ours, theirs = found.astype(np.float64), expected.astype(np.float64)
    is_score = np.isfinite(ours) & np.isfinite(theirs)
    return _largest(np.where(is_score, ours, 0.0) - np.where(is_score, theirs, 0.0))


def _finite_outputs(engine: RunsRows, batch: Images) -> Outputs:
    outputs = engine.infer(np.ascontiguousarray(batch))
    is_broken = np.isnan(outputs) | np.isposinf(outputs)
    if len(outputs) != len(batch) or is_broken.any():
        raise MeasurementError(
            f"batch {len(batch)} gave {len(outputs)} rows of outputs, {int(is_broken.sum())} values of them NaN or "
            "infinite; invariance cannot be judged"
        )
    return outputs


def _check(name: str, trials: Sequence[Trial], limit: float) -> InvarianceCheck:
    gaps = [largest_gap(trial.found, trial.expected) for trial in trials]
    worst = int(np.argmax(gaps))
    return InvarianceCheck(
        name=name,
        n_arrangements=len(trials),
        n_rows=sum(len(trial.found) for trial in trials),
        largest_gap=gaps[worst],
        accepted_gap=limit,
        worst=trials[worst].where,
        n_changed=sum(int((t.found.argmax(axis=1) != t.expected.argmax(axis=1)).sum()) for t in trials),
    )


def _largest(values: NDArray[np.floating]) -> float:
    return float(np.abs(values[np.isfinite(values)]).max(initial=0.0))

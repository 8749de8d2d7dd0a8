"""Calibration images are checked while they are read: the calibrators let NaN, blank and unscaled images pass."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator

import numpy as np

from harness.errors import DataError, Unsupported
from harness.protocols import CalibrationSet, Images, TellsProgress, TensorCalibrationSet, Tensors
from harness.specs import ModelSpec

PIXEL_MAX = 255.0
# Real images reach white and black; a set that spans less than this share of the card's range was scaled twice,
# one that leaves the range by more than this share was not scaled at all.
MIN_SPAN_SHARE = 0.05
MAX_EXCESS_SHARE = 0.5
REMEDY = "fix the data, or choose others with --calibration-from"
SCALE_REMEDY = "make the card's scale, mean and std agree with the images"


class CheckedCalibration:
    """A calibration set that is checked while it is read. Implements `protocols.CalibrationSet`."""

    def __init__(self, calibration: CalibrationSet, spec: ModelSpec) -> None:
        self._calibration, self._spec = calibration, spec
        self.fingerprint = calibration.fingerprint
        self.n_images = calibration.n_images
        self.images = getattr(calibration, "images", None)  # its range, of a set that knows it

    def tell(self, done: int, total: int) -> None:
        """Say how far a build is, where the set passes that on; see `protocols.TellsProgress`."""
        if isinstance(self._calibration, TellsProgress):
            self._calibration.tell(done, total)

    def feeds(self, batch_size: int) -> Iterator[Tensors]:
        """Yield the inputs of one run after the other, of a model of any graph.

        Raises: DataError for no samples, or NaN and Inf; Unsupported for a set of images.
        """
        if not isinstance(self._calibration, TensorCalibrationSet):
            raise Unsupported(f"model {self._spec.name} takes named inputs; its calibration set holds images")
        n_runs = 0
        for feeds in self._calibration.feeds(batch_size):
            for name, array in feeds.items():
                if array.dtype.kind == "f" and not np.isfinite(array).all():
                    raise DataError(f"model {self._spec.name}: calibration run {n_runs} holds NaN or Inf in {name}")
            n_runs += 1
            yield feeds
        if not n_runs:
            raise DataError(f"model {self._spec.name}: the calibration set is empty; {REMEDY}")

    def batches(self, batch_size: int) -> Iterator[Images]:
        """Yield the batches of the set. Raises: DataError as `check_calibration`, also for a set that ends early."""
        n_images = yield from _checked(self._calibration.batches(batch_size), self._spec)
        if n_images != self.n_images:
            raise DataError(f"model {self._spec.name}: {n_images} of {self.n_images} calibration images came; {REMEDY}")


def check_calibration(batches: Iterable[Images], spec: ModelSpec) -> int:
    """Check all batches and return the number of images.

    Raises: DataError for no images, a wrong shape or dtype, NaN or Inf, a constant image, images that are all the
    same, or values that do not lie in the range the model's card implies for pixels of 0..255.
    """
    checked = _checked(batches, spec)
    while True:
        try:
            next(checked)
        except StopIteration as end:
            n_images: int = end.value
            return n_images


def implied_range(spec: ModelSpec) -> tuple[float, float]:
    """Return the lowest and highest value that the card gives a pixel of 0..255 in any channel."""
    mean, std = np.broadcast_arrays(np.asarray(spec.mean, np.float64), np.asarray(spec.std, np.float64))
    ends = np.stack([(0.0 - mean) / std, (PIXEL_MAX * spec.scale - mean) / std])
    return float(ends.min()), float(ends.max())


def _checked(batches: Iterable[Images], spec: ModelSpec) -> Generator[Images, None, int]:
    """Yield the batches and return the number of images."""
    n_images, lowest, highest = 0, np.inf, -np.inf
    first_image, is_varied = None, False
    for batch in batches:
        _check_batch(batch, n_images, spec)
        if first_image is None:
            first_image = batch[0].copy()
        is_varied = is_varied or bool((batch != first_image).any())
        lowest, highest = min(lowest, float(batch.min())), max(highest, float(batch.max()))
        n_images += len(batch)
        yield batch
    if not n_images:
        raise DataError(f"model {spec.name}: the calibration set is empty; ask for images with --calibration-images")
    if n_images > 1 and not is_varied:
        raise DataError(f"model {spec.name}: all {n_images} calibration images are the same; {REMEDY}")
    _check_span(lowest, highest, spec)
    return n_images


def _check_batch(batch: Images, first: int, spec: ModelSpec) -> None:
    if batch.dtype != np.float32 or batch.shape[1:] != spec.input_shape or not len(batch):
        raise DataError(
            f"model {spec.name}: calibration batch of {batch.dtype}{list(batch.shape)} from image {first} on; "
            f"expected float32[N, {', '.join(map(str, spec.input_shape))}]"
        )
    flat = batch.reshape(len(batch), -1)
    finite = np.isfinite(flat).all(axis=1)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        value = flat[row][~np.isfinite(flat[row])][0]
        raise DataError(f"model {spec.name}: calibration image {first + row} holds {value}; {REMEDY}")
    constant = flat.min(axis=1) == flat.max(axis=1)
    if constant.any():
        row = int(np.flatnonzero(constant)[0])
        raise DataError(
            f"model {spec.name}: calibration image {first + row} is constant (all {flat[row, 0]:g}); {REMEDY}"
        )


def _check_span(lowest: float, highest: float, spec: ModelSpec) -> None:
    low, high = implied_range(spec)
    width = high - low
    found = f"calibration images span {lowest:g}..{highest:g}, but the card of {spec.name} implies {low:g}..{high:g}"
    if lowest < low - MAX_EXCESS_SHARE * width or highest > high + MAX_EXCESS_SHARE * width:
        raise DataError(f"{found} (wrong scale); {SCALE_REMEDY}")
    if highest - lowest < MIN_SPAN_SHARE * width:
        raise DataError(f"{found} (scaled twice, or blank); {SCALE_REMEDY}")

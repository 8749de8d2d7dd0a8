"""INT8 without Q/DQ nodes: TensorRT's own calibrators, and dynamic ranges from a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.backends._cuda.device import Gpu
from harness.backends.trt.api import CALIBRATORS, TrtApi
from harness.backends.trt.options import BATCH_FLAG
from harness.errors import BuildError, DataError
from harness.precision.tables import read_table, table_from_text
from harness.protocols import CalibrationSet, Images

MAX_BATCH = 128  # NVIDIA advises the largest batch that fits; the histograms depend on it, so it is recorded
MIN_BATCH = 8  # below this the entropy histograms get poor (NVIDIA/TensorRT issues 774, 1411)
N_NAMED = 5  # missing tensors named in an error
# The defaults of TensorRT's sampleINT8 for the legacy calibrator.
LEGACY_QUANTILE = 0.999999
LEGACY_CUTOFF = 1.0


def calibration_batch(n_images: int, *, asked: int | None = None, fixed: int | None = None) -> int:
    """Return the batch that calibration is fed with [images]: `fixed`, `asked`, or the largest divisor up to 128.

    TensorRT takes batches of one fixed shape, so the set must be cut evenly. Raises: BuildError when it cannot be.
    """
    if fixed is not None:
        if asked not in (None, fixed):
            raise BuildError(f"{BATCH_FLAG}={asked}: the model takes batches of {fixed} only")
        return fixed
    if asked is not None:
        if n_images % asked:
            raise BuildError(
                f"{BATCH_FLAG}={asked}: {n_images} calibration images cannot be cut into equal batches of {asked}; "
                f"ask for {n_images // asked * asked or asked} with --calibration-images"
            )
        return asked
    size = next(n for n in range(min(MAX_BATCH, n_images), 0, -1) if n_images % n == 0)
    if size < MIN_BATCH < n_images:
        raise BuildError(
            f"{n_images} calibration images cannot be cut into equal batches of {MIN_BATCH}..{MAX_BATCH}; "
            f"ask for {n_images // MAX_BATCH * MAX_BATCH or MAX_BATCH} with --calibration-images"
        )
    return size


class CalibrationFeed:
    """Hands batches to TensorRT one by one and remembers what went wrong.

    TensorRT prints an exception in a callback and goes on with fewer batches, so it is kept here and raised after
    the build.
    """

    def __init__(self, calibration: CalibrationSet, gpu: Gpu, shape: tuple[int, ...]) -> None:
        self._batches: Iterator[Images] = calibration.batches(shape[0])
        self._shape, self._gpu = shape, gpu
        self._stream = gpu.stream()
        self._staged: NDArray[np.float32] = gpu.pinned(shape, np.float32)
        self._memory = gpu.device_memory(self._staged.nbytes)
        self.n_images = 0
        self.error: BaseException | None = None

    def next_address(self, names: list[str]) -> list[int] | None:
        """Copy the next batch to the GPU and return its address; None when there is none left or on an error."""
        if self.error is not None:
            return None
        try:
            return self._next(names)
        except BaseException as error:  # anything that leaves here would be lost in TensorRT
            self.error = error
            return None

    def finish(self) -> None:
        """Read what the set checks after its last batch; TensorRT need not have asked for more than that."""
        if self.error is None:
            try:
                next(self._batches, None)
            except BaseException as error:
                self.error = error

    def _next(self, names: list[str]) -> list[int] | None:
        batch = next(self._batches, None)
        if batch is None:
            return None
        if len(names) != 1:
            raise DataError(f"the network has {len(names)} inputs ({', '.join(names)}); calibration feeds one")
        if batch.shape != self._shape or batch.dtype != np.float32:
            raise DataError(
                f"calibration batch from image {self.n_images} on is {batch.dtype}{list(batch.shape)}; "
                f"expected float32{list(self._shape)}"
            )
        finite = np.isfinite(batch.reshape(len(batch), -1)).all(axis=1)
        if not finite.all():
            raise DataError(f"calibration image {self.n_images + int(np.argmin(finite))} holds NaN or Inf")
        np.copyto(self._staged, batch)
        self._gpu.copy_in(self._memory, self._staged, self._stream)
        self._stream.synchronize()
        self.n_images += len(batch)
        return [int(self._memory)]


class CalibrationStore:
    """The calibration cache as TensorRT wants it: bytes read before, bytes written after."""

    def __init__(self, cached: bytes | None = None) -> None:
        self.cached = cached
        self.written: bytes | None = None


def make_calibrator(
    api: TrtApi,
    recipe: str,
    feed: CalibrationFeed,
    store: CalibrationStore,
    *,
    batch_size: int,
    quantile: float | None = None,
    cutoff: float | None = None,
) -> Any:
    """Return a TensorRT calibrator object of the recipe's class; `quantile` and `cutoff` serve trt-legacy only.

    Raises: BuildError when this TensorRT has no such calibrator.
    """
    if not api.has_calibrator(recipe):
        raise BuildError(f"recipe {recipe}: TensorRT {api.version} has no calibrator of this kind; use qdq-minmax")
    base = getattr(api.trt, CALIBRATORS[recipe])

    class Calibrator(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            base.__init__(self)  # without it the build crashes

        def get_batch_size(self) -> int:
            return batch_size

        def get_batch(self, names: list[str]) -> list[int] | None:
            return feed.next_address(names)

        def read_calibration_cache(self) -> bytes | None:
            return store.cached

        def write_calibration_cache(self, data: Any) -> None:
            store.written = bytes(data)

        def get_quantile(self) -> float:
            return LEGACY_QUANTILE if quantile is None else quantile

        def get_regression_cutoff(self) -> float:
            return LEGACY_CUTOFF if cutoff is None else cutoff

        def read_histogram_cache(self, length: int) -> None:
            return None

        def write_histogram_cache(self, data: Any, length: int) -> None:
            return None

    return Calibrator()


def check_feed(feed: CalibrationFeed, store: CalibrationStore, expected_images: int) -> tuple[str, ...]:
    """Raise what a callback met, or that some images were not read; return what the user should hear of.

    None of the images is right only where a table was offered instead. Raises: BuildError.
    """
    if feed.n_images == expected_images:
        feed.finish()
    if feed.error is not None:
        raise BuildError(f"calibration failed: {feed.error}") from feed.error
    if store.cached is not None and not feed.n_images:
        return ()
    if feed.n_images != expected_images:
        raise BuildError(f"calibration read {feed.n_images} of {expected_images} images; nothing may be left out")
    return () if store.cached is None else ("TensorRT refused the stored calibration table; the images were read anew",)


def read_ranges(path: Path) -> dict[str, float]:
    """Read `tensor name -> largest magnitude` from JSON or a calibration table. Raises: BuildError for a bad one."""
    try:
        table = read_table(path)
    except DataError as error:
        raise BuildError(f"ranges file {error}") from error
    if table.header:  # TensorRT writes 0 for a tensor that was 0 on every image, and any range serves it
        return {name: value or 1.0 for name, value in table.ranges.items()}
    for name, value in table.ranges.items():
        if value <= 0:
            raise BuildError(f"ranges file {path}: tensor {name!r} has range {value!r}; expected a number above 0")
    return dict(table.ranges)


def ranges_from_calibration_cache(data: bytes) -> dict[str, float]:
    """Return `tensor name -> largest magnitude` from a TensorRT calibration cache. Raises: DataError for a bad one."""
    return dict(table_from_text(data.decode(errors="replace"), "the calibration cache").ranges)


def apply_ranges(api: TrtApi, network: Any, ranges: Mapping[str, float]) -> int:
    """Give every tensor its dynamic range and return how many got one.

    Unless the file names them, a constant takes its own largest magnitude, a softmax 1, a reshaped tensor its input's.
    Raises: BuildError naming the tensors that have none.
    """
    known: dict[str, float] = dict(ranges)
    tensors = [network.get_input(k) for k in range(network.num_inputs)]
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        for k in range(layer.num_outputs):
            tensor = layer.get_output(k)
            tensors.append(tensor)
            if tensor.name not in known:
                derived = _derived_range(api, network, index, known)
                if derived is not None:
                    known[tensor.name] = derived
    floats = (api.trt.DataType.FLOAT, api.trt.DataType.HALF)
    wanted = [tensor for tensor in tensors if tensor.dtype in floats]
    missing = [tensor.name for tensor in wanted if tensor.name not in known]
    if missing:
        raise BuildError(
            f"the ranges file lacks {len(missing)} of {len(wanted)} tensors: {', '.join(missing[:N_NAMED])}"
            f"{', ...' if len(missing) > N_NAMED else ''}; a TensorRT calibration cache holds them all"
        )
    for tensor in wanted:
        tensor.dynamic_range = (-known[tensor.name], known[tensor.name])
    return len(wanted)


def _derived_range(api: TrtApi, network: Any, index: int, known: Mapping[str, float]) -> float | None:
    layer = network.get_layer(index)
    if layer.type == api.trt.LayerType.CONSTANT:
        constant = layer
        constant.__class__ = api.trt.IConstantLayer  # the bindings hand out the base class
        weights = np.asarray(constant.weights)
        return float(np.abs(weights).max()) or 1.0 if weights.dtype.kind == "f" else None
    if layer.type == api.trt.LayerType.SOFTMAX:
        return 1.0  # TensorRT's own calibrators leave out what ends a network
    if layer.type == api.trt.LayerType.SHUFFLE:
        return known.get(layer.get_input(0).name)
    return None

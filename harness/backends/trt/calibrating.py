"""INT8 calibration inside TensorRT: which data, which calibrator, and the table that is kept for the next build."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.backends._cuda.device import Gpu
from harness.backends.trt import keys
from harness.backends.trt.api import CALIBRATORS, METHODS, VENDOR_RECIPES, TrtApi
from harness.backends.trt.caches import PlanCaches
from harness.backends.trt.calibrator import (
    CalibrationFeed,
    CalibrationStore,
    calibration_batch,
    check_feed,
    make_calibrator,
    ranges_from_calibration_cache,
)
from harness.backends.trt.options import TrtOptions
from harness.errors import BuildError, DataError, Unsupported
from harness.protocols import CalibrationSet
from harness.records import Artifact, Calibration, TensorCalibration
from harness.specs import ImageRange, ModelTensors

KIND = "calibrations"
MAX_TENSORS = 256  # of a table that is kept with a record


class Fed:
    """A calibrator, its data and its cache, as `build_plan` wants them."""

    def __init__(
        self, calibrator: Any, batch_size: int, feed: CalibrationFeed, store: CalibrationStore, n_images: int
    ) -> None:
        self.calibrator, self.batch_size, self.store = calibrator, batch_size, store
        self._feed, self._n_images = feed, n_images

    def check(self) -> tuple[str, ...]:
        """Raise what a callback met, else return what the user should hear of. Raises: BuildError."""
        return check_feed(self._feed, self.store, self._n_images)


class Calibrating:
    """The calibration of one artifact, where its recipe asks TensorRT for one."""

    def __init__(self, artifact: Artifact, trt: TrtOptions, caches: PlanCaches, *, label: str) -> None:
        self._artifact, self._trt, self._caches, self._label = artifact, trt, caches, label
        self._store: CalibrationStore | None = None
        self._key: dict[str, object] | None = None

    @property
    def is_asked(self) -> bool:
        """Tell whether the recipe calibrates inside TensorRT."""
        return self._artifact.recipe in CALIBRATORS

    def check(self, images: CalibrationSet | None, tensors: ModelTensors | None = None) -> None:
        """Refuse to go without images, or for a model of any graph. Raises: BuildError, Unsupported."""
        if tensors is not None and self._artifact.recipe in VENDOR_RECIPES:
            recipe = self._artifact.recipe
            raise Unsupported(f"recipe {recipe} calibrates with batches of images; this model takes a recipe qdq-...")
        if self.is_asked and images is None:
            recipe = self._artifact.recipe
            raise BuildError(f"{self._label}: recipe {recipe} needs calibration images; none were given")

    def calibrator(
        self, images: CalibrationSet | None, gpu: Gpu | None
    ) -> Callable[[TrtApi, tuple[int, ...]], Fed] | None:
        """Return what `build_plan` calls to calibrate, None where nothing is calibrated. Raises: BuildError."""
        recipe = self._artifact.recipe
        if not self.is_asked:
            return None
        if images is None or images.n_images < 1:
            raise BuildError(f"{self._label}: recipe {recipe} needs calibration images; there are none")
        if gpu is None:
            raise BuildError(f"{self._label}: recipe {recipe} runs the model to calibrate it, and needs a GPU for that")
        chosen, device = images, gpu

        def calibrate(api: TrtApi, shape: tuple[int, ...]) -> Fed:
            return self._fed(api, shape, chosen, device)

        return calibrate

    def keep(self) -> None:
        """Store the table that the build has made, for the next one."""
        if self._store and self._store.written and self._key:
            self._caches.put(KIND, self._key, self._store.written, name="calibration.cache", built=self._label)

    @property
    def table(self) -> str:
        """Return the table that the build has made or was given; "" without one."""
        data = (self._store.written or self._store.cached) if self._store else None
        return (data or b"").decode(errors="replace")

    def note(
        self, images: CalibrationSet | None, *, batch_size: int, table: str, method: str
    ) -> tuple[Calibration | None, tuple[str, ...]]:
        """Return which images calibrated an engine and the ranges they led to, and a warning where these are unread."""
        if not self.is_asked or images is None:
            return self._artifact.calibration, ()
        unnamed = ImageRange(dataset="unnamed", split="", first=0, stop=images.n_images)
        known = getattr(images, "images", None)  # not in the protocol: sets of the worker know their range
        ranges, warnings = ranges_of_table(table)
        noted = Calibration(
            images=known if isinstance(known, ImageRange) else unnamed,
            fingerprint=images.fingerprint,
            batch_size=batch_size,
            tensors=ranges,
            method=method or METHODS[self._artifact.recipe],
        )
        return noted, warnings

    def _fed(self, api: TrtApi, shape: tuple[int, ...], images: CalibrationSet, gpu: Gpu) -> Fed:
        recipe, trt, n_images = self._artifact.recipe, self._trt, images.n_images
        fixed = shape[0] if shape[0] > 0 else None
        batch_size = calibration_batch(n_images, asked=trt.calibration_batch, fixed=fixed)
        self._key = {
            "revision": keys.PLAN_REVISION,
            "artifact": self._artifact.sha256,
            "calibration": images.fingerprint,
            "algorithm": recipe,
            "batch_size": batch_size,
            "quantile": trt.quantile,
            "cutoff": trt.cutoff,
            "tensorrt": api.version,
        }
        self._store = CalibrationStore(self._caches.fresh(KIND, self._key, "calibration table"))
        try:
            feed = CalibrationFeed(images, gpu, (batch_size, *shape[1:]))
        except gpu.errors as error:
            raise BuildError(f"{self._label}: calibration batch of {batch_size}: {error}") from error
        calibrator = make_calibrator(
            api, recipe, feed, self._store, batch_size=batch_size, quantile=trt.quantile, cutoff=trt.cutoff
        )
        return Fed(calibrator, batch_size, feed, self._store, n_images)


def ranges_of_table(table: str) -> tuple[tuple[TensorCalibration, ...], tuple[str, ...]]:
    """Return the ranges of a calibration table; none without one, and of more than MAX_TENSORS tensors.

    TensorRT took the table, whatever we make of it: one that cannot be read is a warning, the second that is returned.
    """
    if not table:
        return (), ()
    try:
        ranges = ranges_from_calibration_cache(table.encode())
    except DataError as error:
        return (), (f"the ranges of TensorRT's calibration are not told: {error}",)
    if len(ranges) > MAX_TENSORS:
        return (), ()
    return tuple(TensorCalibration(tensor=name, threshold=value) for name, value in ranges.items()), ()

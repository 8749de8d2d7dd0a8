"""Case -> artifact -> engine, inside a worker: what is prepared and built before anything can be measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace

from harness.errors import BuildError, ConfigError, Unsupported
from harness.machine.turns import turn_on
from harness.precision import CheckedCalibration, prepare_artifact
from harness.protocols import (
    Backend,
    CalibrationSet,
    Engine,
    Images,
    Progress,
    RunsTensors,
    TensorCalibrationSet,
    Tensors,
    TimedAfresh,
)
from harness.records import Artifact, EngineFacts, EngineFile
from harness.specs import BuildOptions, Case, ImageRange, Precision, batches_of_engine
from harness.worker.cold import ColdStart
from harness.worker.requests import CaseRequest, Prepared
from harness.worker.sample_sets import calibration_of
from harness.worker.shipped import artifact_of_engine, check_format, is_compiled_anew, open_engine, support_of


class OpenCase:
    """One case with its backend, its calibration images and its engine, until it is closed."""

    def __init__(
        self,
        request: CaseRequest,
        *,
        stage: Callable[[str], None] = lambda name: None,
        progress: Progress = lambda done, total: None,
    ) -> None:
        """Import the backend and ask whether it can do the case.

        `stage`: is told what is done from now on; `progress`: how many calibration images were read of how many.
        """
        self.request, self.stage, self._progress = request, stage, progress
        stage("import")
        self.cold = ColdStart(request.case.backend)
        self.backend = self.cold.backend
        self.support = support_of(self.backend, request)
        self._engine: Engine | None = None
        self._stack = ExitStack()
        self._calibration: CalibrationSet | None = None

    @property
    def engine(self) -> Engine:
        """Return the built engine. Raises: ConfigError when the case was not prepared."""
        if self._engine is None:
            raise ConfigError(f"{self.request.case.id}: no engine is open; prepare the case first")
        return self._engine

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Return the batch sizes that the engine is built for, ascending [images]."""
        return batches_of_engine(self.request.model, self.request.timing, self.request.score_batch)

    @property
    def facts(self) -> EngineFacts:
        """Return what the engine has noted by now, with what it cost this process once."""
        return self.cold.added_to(self.engine.facts, self.batch_sizes)

    @property
    def is_timed_afresh(self) -> bool:
        """Tell whether its engines are timed in a process that has run nothing."""
        return isinstance(self.backend, TimedAfresh) and self.backend.is_timed_afresh

    def prepare(self) -> Prepared:
        """Convert the model and build the engine, unless the device cannot do the case.

        That is said by the backend's `supports`, or met by its `build`.
        """
        if not self.support.supported:
            return Prepared(support=self.support)
        try:
            check_format(self.request, self.backend)
            artifact = self.request.artifact or self.artifact(self.request.case)
            self._engine = self.build(artifact)
        except Unsupported as error:  # an operator without a kernel: only the build meets the model
            self.support = replace(self.support, supported=False, reason=str(error))
            return Prepared(support=self.support)
        is_afresh = self.is_timed_afresh
        return Prepared(support=self.support, artifact=artifact, engine=self.facts, is_timed_afresh=is_afresh)

    def artifact(self, case: Case) -> Artifact:
        """Return the prepared ONNX file of a case of this model."""
        request = self.request
        self.stage("convert")
        if request.model.engine is not None:
            return artifact_of_engine(request)
        needs_images = case.precision is Precision.INT8
        with self.cold.converting():
            return prepare_artifact(
                request.model,
                case.precision,
                case.recipe,
                calibration=self._calibration_images("convert") if needs_images else None,
                cache_dir=request.build.cache_dir,
                weight_bits=self.support.int8_weight_bits,
                rebuild=request.build.rebuild,
                calibration_range=self._calibration_range if needs_images else None,
                keep_float=request.build.keep_float,
            )

    def build_reference(self) -> Prepared:
        """Build FP32 of the case and close it; what is timed beside it is then in the cache. Return what it is."""
        asked = self.request.case
        artifact = self.artifact(asked.source_on(asked.backend, asked.device))
        with self.build(artifact) as engine:
            return Prepared(support=self.support, artifact=artifact, engine=engine.facts)

    def build(self, artifact: Artifact) -> Engine:
        """Build an engine of an artifact, closed with the case. Raises: BuildError, Unsupported."""
        self.stage("build")
        if self.request.engine_file is not None and artifact == self.request.artifact:
            return self._checked(open_engine(self.backend, self.request, self.request.engine_file, self._build_options))
        if self.request.model.engine is not None:
            return self._checked(self._given(artifact))
        calibration = None
        if artifact.precision is Precision.INT8:
            calibration = CheckedCalibration(self._calibration_images("build"), self.request.model)
        return self._checked(self._built(artifact, calibration))

    def _built(self, artifact: Artifact, calibration: CalibrationSet | None) -> Engine:
        return self.backend.build(
            artifact,
            device=self.request.case.device,
            batch_sizes=self.batch_sizes,
            options=self._build_options,
            calibration=calibration,
        )

    def _given(self, artifact: Artifact) -> Engine:
        """Open the engine that the model's file is; OpenVINO IR is compiled. Raises: BuildError, Unsupported."""
        if is_compiled_anew(artifact):
            return self._built(artifact, None)
        file = EngineFile(path=artifact.onnx_path, sha256=artifact.sha256)
        return open_engine(self.backend, replace(self.request, artifact=artifact), file, self._build_options)

    def _checked(self, engine: Engine) -> Engine:
        """Return an engine that is closed with the case, and gives what that is scored by. Raises: as `_checked`."""
        return _checked(self._stack.enter_context(engine), self.request, self.backend)

    @property
    def _calibration_range(self) -> ImageRange | None:
        """Return which images or samples of a data set calibrate, None where they are noise."""
        request = self.request
        is_noise = request.model.timing_only if request.model.tensors is None else not request.has_data
        return None if is_noise else request.data.calibration

    @property
    def _build_options(self) -> BuildOptions:
        """Return what was asked of the build, with what goes in and out of a model of any graph."""
        return replace(self.request.build, tensors=self.request.model.tensors)

    def turn(self, waiting: Callable[[], None]) -> AbstractContextManager[None]:
        """Hold the device against other runs while it is timed; `waiting` is called until it is free."""
        return turn_on(self.request.case.device, waiting=waiting)

    def close(self) -> None:
        """Free all engines."""
        self.stage("close")
        self._stack.close()
        self._engine = None

    def _calibration_images(self, during: str) -> CalibrationSet:
        if self._calibration is None:
            self._calibration = calibration_of(self.request)
        return _ToldCalibration(self._calibration, self.stage, during, self._progress)


def _checked(engine: Engine, request: CaseRequest, backend: Backend) -> Engine:
    """Return an engine that gives what a case is scored by. Raises: BuildError, Unsupported."""
    if request.model.tensors is not None:
        if not isinstance(engine, RunsTensors):
            raise Unsupported(f"{backend.name} takes one float32 image and gives one row an image")
    elif engine.output.dtype != "float32":
        raise BuildError(
            f"{request.case.id}: output {engine.output.name} is {engine.output.dtype}; expected float32: "
            "export the model with a float32 output (a Cast at its end)"
        )
    return engine


class _ToldCalibration:
    """Calibration images that say when they are read, how far, and when whoever reads them goes on to other work."""

    def __init__(self, images: CalibrationSet, stage: Callable[[str], None], during: str, progress: Progress) -> None:
        self._images, self._stage, self._during, self._progress = images, stage, during, progress
        self.fingerprint, self.n_images = images.fingerprint, images.n_images
        if hasattr(images, "images"):
            self.images = images.images

    def tell(self, done: int, total: int) -> None:
        """Say how far whoever reads the images is; see `protocols.TellsProgress`."""
        self._stage(self._during)
        self._progress(done, total)

    def feeds(self, batch_size: int) -> Iterator[Tensors]:
        """Yield the inputs of one run after the other, of a model of any graph. Raises: Unsupported."""
        if not isinstance(self._images, TensorCalibrationSet):
            raise Unsupported("the calibration set holds images; its model takes named inputs")
        self._stage("calibrate")
        try:
            yield from self._images.feeds(batch_size)
        finally:
            self._stage(self._during)

    def batches(self, batch_size: int) -> Iterator[Images]:
        """Yield float32[<= batch_size, ...] in data-set order."""
        self._stage("calibrate")
        n_read = 0
        try:
            for images in self._images.batches(batch_size):
                yield images
                n_read += len(images)
                self._progress(n_read, self.n_images)
        finally:
            self._stage(self._during)

"""Case -> its measurements, inside a worker process: the only place where the steps meet.

`serve` answers the calls of `workers.Worker`; one worker prepares, builds, scores and times one case.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from harness.backends import load_backend
from harness.datasets import fingerprint_range, open_dataset
from harness.errors import ConfigError, HarnessError, Unsupported
from harness.measure.invariance import check_invariance
from harness.measure.scoring import score_engine
from harness.measure.timing import latency_from_arms, make_timers, min_sample_ns, time_arms
from harness.models import inspect_onnx
from harness.models.preprocess import fingerprint_of_inputs, images_from_pixels
from harness.precision import prepare_artifact
from harness.precision.calibration import CheckedCalibration
from harness.precision.effective import effective_precision
from harness.protocols import BoundsBatches, CalibrationSet, Dataset, Engine, Images, Progress
from harness.records import Accuracy, Artifact, Availability, EngineFacts, Latency, Verdict
from harness.specs import BF16_RUNTIME_RECIPE, Case, DatasetRequest, ModelSpec, Precision, batches_of_engine
from harness.worker.requests import CaseRequest, LayerReport, OnnxQuestion, Prepared

PROGRESS_INTERVAL_NS = 200_000_000
INVARIANCE_IMAGES = 16
NOISE_IMAGES, NOISE_SEED = 64, 0


class DatasetCalibration:
    """Calibration images of a data set, preprocessed as the model's card says."""

    def __init__(self, dataset: Dataset, spec: ModelSpec, request: DatasetRequest) -> None:
        self._dataset, self._spec = dataset, spec
        self.images = self._images = request.calibration  # an engine that calibrates while it builds records them
        self.n_images = self._images.n_images
        stored = fingerprint_range(dataset, self._images.first, self._images.stop)
        self.fingerprint = fingerprint_of_inputs(stored, spec)

    def batches(self, batch_size: int) -> Iterator[Images]:
        """Yield float32[<= batch_size, ...] in data-set order."""
        for first in range(self._images.first, self._images.stop, batch_size):
            pixels, _ = self._dataset.read(first, min(first + batch_size, self._images.stop))
            yield images_from_pixels(pixels, self._spec)


class NoiseCalibration:
    """Seeded uniform noise for a model that is only timed: its scales are as good as its random weights."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self.n_images = NOISE_IMAGES
        self.fingerprint = f"uniform noise, seed {NOISE_SEED}, {NOISE_IMAGES} x {spec.input_shape}"

    def batches(self, batch_size: int) -> Iterator[Images]:
        """Yield float32[<= batch_size, ...] in [0, 1)."""
        generator = np.random.default_rng(NOISE_SEED)
        for first in range(0, self.n_images, batch_size):
            count = min(batch_size, self.n_images - first)
            yield generator.random((count, *self._spec.input_shape), dtype=np.float32)


class CaseWork:
    """One open case: its artifact and engine, until closed."""

    def __init__(self, request: CaseRequest) -> None:
        self.request = request
        self.backend = load_backend(request.case.backend)
        self._stack = ExitStack()
        self._calibration: CalibrationSet | None = None
        self.support = self.backend.supports(request.case)
        self.engine: Engine | None = None

    def prepare(self) -> Prepared:
        """Convert the model and build the engine, unless the device cannot do the case.

        That is said by the backend's `supports`, or met by its `build`.
        """
        if not self.support.supported:
            return Prepared(support=self.support)
        artifact = self.request.artifact or self.artifact(self.request.case)
        try:
            self.engine = self._build(artifact, self._batch_sizes())
        except Unsupported as error:  # an operator without a kernel: only the build meets the model
            self.support = replace(self.support, supported=False, reason=str(error))
            return Prepared(support=self.support)
        return Prepared(support=self.support, artifact=artifact, engine=self.engine.facts)

    def artifact(self, case: Case) -> Artifact:
        """Return the prepared ONNX file of a case of this model."""
        request = self.request
        needs_images = case.precision is Precision.INT8
        return prepare_artifact(
            request.model,
            case.precision,
            case.recipe,
            calibration=self.calibration() if needs_images else None,
            cache_dir=request.build.cache_dir,
            weight_bits=self.support.int8_weight_bits,
            rebuild=request.build.rebuild,
            calibration_range=request.data.calibration if needs_images and not request.model.timing_only else None,
        )

    def calibration(self) -> CalibrationSet:
        """Open the calibration images once."""
        if self._calibration is None and self.request.model.timing_only:
            self._calibration = NoiseCalibration(self.request.model)
        elif self._calibration is None:
            data = self.request.data
            dataset = open_dataset(data.name, split=data.calibration_split, data_dir=data.data_dir)
            self._calibration = DatasetCalibration(dataset, self.request.model, data)
        return self._calibration

    def score(self, progress: Progress) -> Accuracy:
        """Score the asked images."""
        data = self.request.data
        dataset = open_dataset(data.name, split=data.split, data_dir=data.data_dir)
        return score_engine(
            self._open_engine(),
            dataset,
            self.request.model,
            # A path's data set knows better than the request what it is: its name decides what was trained on.
            replace(data.scored, dataset=dataset.name, split=dataset.split),
            batch_size=self.request.score_batch,
            outputs_path=Path(self.request.outputs_path) if self.request.outputs_path else None,
            progress=progress,
        )

    def time(self, progress: Progress) -> tuple[Latency, ...]:
        """Time the engine at every batch size, in turn with its FP32 reference unless it is FP32 itself."""
        plan, case = self.request.timing, self.request.case
        reference = Case(
            model=case.model, backend=case.backend, precision=Precision.FP32, recipe="none", device=case.device
        )
        latencies = []
        with ExitStack() as stack:
            engines = [self._open_engine()]
            if case.precision is not Precision.FP32:
                engines.append(stack.enter_context(self._build(self.artifact(reference), self._batch_sizes())))
            for index, batch_size in enumerate(plan.batch_sizes):
                images = self._timing_images(batch_size)
                timers = make_timers(engines, images, window=plan.window, launch=plan.launch)
                arms = time_arms(timers, plan, min_sample_ns=min_sample_ns(timers[0].clock))
                latencies.append(latency_from_arms(timers, arms, reference_case=reference.id))
                progress(index + 1, len(plan.batch_sizes))
        return tuple(latencies)

    def layers(self) -> LayerReport:
        """Read back what ran. Call it last: profiling disturbs what is timed after it."""
        engine, case = self._open_engine(), self.request.case
        layers = engine.layers()
        found = effective_precision(layers, case.precision, has_cast_weights=case.recipe != BF16_RUNTIME_RECIPE)
        return LayerReport(layers=layers, effective_precision=found)

    def facts(self) -> EngineFacts:
        """Say what is known of the engine by now."""
        return self._open_engine().facts

    def invariance(self) -> tuple[Verdict, ...]:
        """Check that an image's result does not depend on its neighbours, slot or batch size."""
        own = self.backend.batch_bounds(self.request.build) if isinstance(self.backend, BoundsBatches) else ()
        bounds = set(own or self._batch_sizes())
        largest = max(bounds)
        images = self._timing_images(max(2, min(INVARIANCE_IMAGES, largest)))
        # Where a backend names the bounds of its engine, those are the sizes to try; else small ones as well.
        small = set() if own else {1, min(2, largest), min(INVARIANCE_IMAGES, largest)}
        sizes = tuple(sorted(small | bounds))
        return check_invariance(self._open_engine(), images, batch_sizes=sizes, precision=self.request.case.precision)

    def close(self) -> None:
        """Free the engine."""
        self._stack.close()
        self.engine = None

    def _build(self, artifact: Artifact, batch_sizes: tuple[int, ...]) -> Engine:
        is_int8 = artifact.precision is Precision.INT8
        return self._stack.enter_context(
            self.backend.build(
                artifact,
                device=self.request.case.device,
                batch_sizes=batch_sizes,
                options=self.request.build,
                calibration=CheckedCalibration(self.calibration(), self.request.model) if is_int8 else None,
            )
        )

    def _batch_sizes(self) -> tuple[int, ...]:
        return batches_of_engine(self.request.model, self.request.timing, self.request.score_batch)

    def _timing_images(self, batch_size: int) -> Images:
        """Return real images of the data set; random ones for a model that has no data set here."""
        model, data = self.request.model, self.request.data
        if model.timing_only:
            return next(NoiseCalibration(model).batches(batch_size))
        dataset = open_dataset(data.name, split=data.split, data_dir=data.data_dir)
        last = min(data.scored.first + batch_size, dataset.n_images)
        pixels, _ = dataset.read(data.scored.first, last)
        images = images_from_pixels(pixels, model)
        return np.resize(images, (batch_size, *model.input_shape)) if len(images) < batch_size else images

    def _open_engine(self) -> Engine:
        if self.engine is None:
            raise ConfigError(f"{self.request.case.id}: no engine is open; prepare the case first")
        return self.engine


class Service:
    """The calls a worker answers."""

    def __init__(self) -> None:
        self._work: CaseWork | None = None

    def probe(self, names: tuple[str, ...], progress: Progress) -> tuple[Availability, ...]:
        """Probe backends, one after the other; the parent sees how far it came if one of them crashes."""
        found = []
        for index, name in enumerate(names):
            progress(index, len(names))
            found.append(load_backend(name).probe())
        return tuple(found)

    def inspect_model(self, question: OnnxQuestion, progress: Progress) -> ModelSpec:
        """Read what an ONNX file says of itself."""
        return inspect_onnx(Path(question.path), **question.overrides)

    def prepare(self, request: CaseRequest, progress: Progress) -> Prepared:
        """Open a case in this worker."""
        self._work = CaseWork(request)
        return self._work.prepare()

    def score(self, request: CaseRequest, progress: Progress) -> Accuracy:
        """Score the open case."""
        return self._opened(request).score(progress)

    def time(self, request: CaseRequest, progress: Progress) -> tuple[Latency, ...]:
        """Time the open case."""
        return self._opened(request).time(progress)

    def layers(self, request: CaseRequest, progress: Progress) -> LayerReport:
        """Read the open case's layers back."""
        return self._opened(request).layers()

    def facts(self, request: CaseRequest, progress: Progress) -> EngineFacts:
        """Say what the open case's engine has noted by now."""
        return self._opened(request).facts()

    def invariance(self, request: CaseRequest, progress: Progress) -> tuple[Verdict, ...]:
        """Check the open case's invariance."""
        return self._opened(request).invariance()

    def close(self, request: CaseRequest, progress: Progress) -> None:
        """Free the open case."""
        if self._work:
            self._work.close()
        self._work = None

    def _opened(self, request: CaseRequest) -> CaseWork:
        if self._work is None or self._work.request.case != request.case:
            raise ConfigError(f"{request.case.id} is not open in this worker")
        return self._work


ARGUMENTS: dict[str, Any] = {"probe": tuple[str, ...], "inspect_model": OnnxQuestion}  # all others take a CaseRequest


def serve(channel: Any) -> None:
    """Answer calls until the channel closes. `channel` is execnet's: send and iterate."""
    service = Service()
    for message in channel:
        call = msgspec.json.decode(message, type=dict[str, msgspec.Raw])
        name = msgspec.json.decode(call["call"], type=str)
        # Probing reports every step: the parent must know which backend was being probed when a worker dies.
        interval_ns = 0 if name == "probe" else PROGRESS_INTERVAL_NS
        channel.send(
            msgspec.json.encode(_answer(service, name, call["value"], _reporter(channel, interval_ns))).decode()
        )


def _answer(service: Service, name: str, value: msgspec.Raw, progress: Progress) -> dict[str, object]:
    started = time.perf_counter()
    try:
        argument = msgspec.json.decode(value, type=ARGUMENTS.get(name, CaseRequest))
        result = getattr(service, name)(argument, progress)
    except HarnessError as error:
        return {"error": {"kind": type(error).__name__, "message": str(error)}}
    except Exception as error:
        print(traceback.format_exc(), flush=True)
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.basename(where.filename)}:{where.lineno}"
        return {"error": {"kind": "HarnessError", "message": f"{name}: {type(error).__name__} at {place}: {error}"}}
    print(f"{name}: {time.perf_counter() - started:.3f} s", flush=True)
    return {"result": result}


def _reporter(channel: Any, interval_ns: int) -> Progress:
    """Return a progress function that sends at most one message an interval."""
    last = [0]

    def report(done: int, total: int) -> None:
        now = time.monotonic_ns()
        if done in (0, total) or now - last[0] >= interval_ns:
            last[0] = now
            channel.send(msgspec.json.encode({"progress": (done, total)}).decode())

    return report

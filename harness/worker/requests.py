"""What the parent asks of a worker, and the worker's answers that are no records. Layer 0."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.records import Artifact, EffectivePrecision, EngineFacts, EngineFile, Layer, Support, Throughput
from harness.specs import BuildOptions, Case, DatasetRequest, InputsAsked, ModelSpec, Precision, TimingPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseRequest:
    """All that a worker needs to know to measure one case."""

    case: Case
    model: ModelSpec
    data: DatasetRequest
    build: BuildOptions
    timing: TimingPlan
    has_data: bool = False  # a data set was named: the samples of a model of any graph are its, not seeded
    score_batch: int = 100  # images per batch when scoring
    outputs_path: str = ""  # raw float32[N, K] of the scored images; "" = not kept
    artifact: Artifact | None = None  # use this file and convert nothing
    engine_file: EngineFile | None = None  # load this engine and build none


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What opening a case found; `artifact` and `engine` are None when it is unsupported."""

    support: Support
    artifact: Artifact | None = None
    engine: EngineFacts | None = None
    is_timed_afresh: bool = False  # in a process that has built and run nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class TimersRequest:
    """Which timers of an open case to make, and by how much to slow their calls down."""

    case: CaseRequest
    batch_sizes: tuple[int, ...]  # [images]
    slowdown: float | None = None  # added inside the timed region [fraction of a call]; see protocols.SlowsDown


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRequest:
    """One step of the arm of one batch size of an open case: a method of `measure.arms.TimedArm`."""

    case: CaseRequest
    batch_size: int
    step: str
    words: dict[str, bool | str] = field(default_factory=dict)  # its arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """Where the engine of an open case is to be written."""

    case: CaseRequest
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A file that was written."""

    sha256: str
    is_engine: bool  # False: the prepared model file, of a backend whose engines have none
    batch_size: int | None = None  # the only one that it takes [images]; None = free
    runtime: str = ""  # that built it, with its version


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerReport:
    """The layers that ran, and their precision in short."""

    layers: tuple[Layer, ...]
    effective_precision: EffectivePrecision


@dataclass(frozen=True, slots=True, kw_only=True)
class ThroughputReport:
    """The throughput of every timed batch size, or why there is none."""

    found: tuple[Throughput, ...] = ()
    why_not: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxQuestion:
    """An ONNX file without a card, and what the user says of it."""

    path: str
    overrides: dict[str, float] = field(default_factory=dict)
    inputs: InputsAsked = field(default_factory=InputsAsked)
    is_scored: bool = True  # a data set is there


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorsRequest:
    """Which nets of one operator to run on a backend; with no names, all that there are."""

    backend: str
    device: str
    precision: Precision
    build: BuildOptions
    nets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendNeeds:
    """What a backend says of itself before it is probed."""

    name: str
    required_modules: tuple[str, ...] = ()
    install_hint: str = ""
    option_names: tuple[str, ...] | None = None  # None: it takes none
    error: str = ""  # why its file cannot be imported


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleOrigin:
    """Where a worker loaded a module from."""

    module: str
    path: str  # of its file or folder, links followed
    is_own: bool  # it lies in the interpreter's own site-packages

"""What was asked: frozen values, validated when made, with no knowledge of files or processes.

Units: ns, bytes, images, fractions. Nothing here fills in, downloads or reads the environment.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

from harness.errors import ConfigError

T = TypeVar("T")
DEFAULT_INT8_RECIPE = "qdq-minmax"
DEFAULT_RECIPES = {"fp32": "none", "fp16": "cast", "bf16": "cast", "int8": DEFAULT_INT8_RECIPE}
GIVEN_RECIPE = "given"  # of a file that was quantized or built before it came: nothing is converted
BF16_RUNTIME_RECIPE = "runtime"  # BF16 without a file of its own: the runtime is told to compute in it
RAW_TASK = "raw"  # outputs without a meaning: they are compared, never scored
IR_SUFFIX = ".xml"  # of OpenVINO IR
REFERENCE_BACKEND = "ort"  # its FP32 is what every case is compared with
NAME_PATTERN = re.compile(r"[A-Za-z0-9_.]+\Z")  # no hyphen: it separates the parts of a case id
NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.]")
# What a worker does, in its order, and how long it may be silent at it [s]. An engine's build may take long and says
# nothing meanwhile; what only imports or frees does not.
STAGE_LIMITS_S = {
    "inspect": 600.0,
    "import": 120.0,
    "probe": 120.0,
    "convert": 600.0,
    "calibrate": 600.0,
    "build": 1_800.0,
    "score": 600.0,
    "time": 600.0,
    "layers": 600.0,
    "invariance": 600.0,
    "close": 60.0,
}
SETUP_STAGES = ("inspect", "import", "probe", "close")  # a limit for measuring says nothing of these
Settings = Mapping[str, Mapping[str, object]]  # what only some backends know: group or backend -> name -> value (JSON)


class Precision(str, enum.Enum):
    """Precision asked of an engine; what it ran in is `records.EffectivePrecision`."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"

    def __str__(self) -> str:
        return self.value


DEFAULT_PRECISIONS = (Precision.FP32, Precision.FP16, Precision.INT8)  # BF16 is run when asked for


FITS = ("stretch", "letterbox")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
COLORS = ("auto", "rgb", "bgr", "grey")
INPUT_DTYPES = ("float32", "float16", "uint8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """What becomes of an 8-bit image before it is scaled: its size, its cut, its colours; and the model's dtype.

    Sizes are (height, width) in pixels; () leaves the size alone.
    """

    resize: tuple[int, ...] = ()  # (height, width), or (shorter side,)
    fit: str = "stretch"  # to (height, width): stretch, or letterbox, which keeps the aspect and pads
    crop: tuple[int, ...] = ()  # (height, width) about the centre
    interpolation: str = "bilinear"
    color: str = "auto"  # order of channels: rgb, bgr or grey; auto: grey for one channel, rgb for three
    pad: int = 114  # value of a letterbox's margin, in each channel
    dtype: str = "float32"  # of the model's input

    def __post_init__(self) -> None:
        chosen = (
            ("fit", self.fit, FITS),
            ("interpolation", self.interpolation, INTERPOLATIONS),
            ("color", self.color, COLORS),
            ("dtype", self.dtype, INPUT_DTYPES),
        )
        for name, value, known in chosen:
            if value not in known:
                raise ConfigError(f"[preprocess] {name} = {value!r}: choose from {', '.join(known)}")
        if len(self.resize) > 2 or len(self.crop) not in (0, 2) or min((*self.resize, *self.crop), default=1) < 1:
            raise ConfigError(
                f"[preprocess] resize = {list(self.resize)}, crop = {list(self.crop)}: expected a side, or "
                "[height, width], of at least 1 pixel"
            )
        if self.fit == "letterbox" and len(self.resize) != 2:
            raise ConfigError('[preprocess] fit = "letterbox" needs resize = [height, width]')
        if not 0 <= self.pad <= 255:
            raise ConfigError(f"[preprocess] pad = {self.pad}: expected 0..255")

    @property
    def is_plain(self) -> bool:
        """Tell whether images are taken as they are stored: their size, and grey or RGB as the model's channels say."""
        return not self.resize and not self.crop and self.color == "auto"

    @property
    def text(self) -> str:
        """Return what is done, in words."""
        if self.is_plain:
            return "as stored"
        resize = f"resize {_size_text(self.resize)} {self.interpolation}" if self.resize else ""
        fit = f"letterbox {self.pad}" if self.fit == "letterbox" else ""
        crop = f"crop {_size_text(self.crop)}" if self.crop else ""
        return ", ".join(filter(None, (resize, fit, crop, "" if self.color == "auto" else self.color)))


def _size_text(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size)) if len(size) > 1 else f"shorter side {size[0]}"


def model_name(path: str | Path) -> str:
    """Return what a model is called by the path of its file or card: its stem, with "_" for what no name may hold."""
    return NOT_IN_NAMES.sub("_", Path(path).stem)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRange:
    """Images `first` <= index < `stop` of one split of one data set."""

    dataset: str
    split: str
    first: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.stop:
            raise ConfigError(f"image range {self.first}..{self.stop} of {self.dataset}/{self.split} is not a range")

    @property
    def n_images(self) -> int:
        """Return the number of images in the range."""
        return self.stop - self.first

    def overlap(self, other: ImageRange) -> int:
        """Return how many images two ranges share."""
        if (self.dataset, self.split) != (other.dataset, other.split):
            return 0
        return max(0, min(self.stop, other.stop) - max(self.first, other.first))


@dataclass(frozen=True, slots=True, kw_only=True)
class InputsAsked:
    """What the user says of the inputs of models of any graph: pairs of an input's name and what it is given."""

    shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()  # of one run
    min_shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()  # that an engine must take too
    max_shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    ranges: tuple[tuple[str, tuple[float, float]], ...] = ()  # of seeded values
    states: tuple[tuple[str, str], ...] = ()  # input, the output that is fed back
    is_for_one: bool = True  # of several models each takes what is said of its own inputs

    @property
    def names(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Return what is said (shapes, ...) with the names of the inputs that it is said of."""
        given: tuple[tuple[str, tuple[tuple[str, object], ...]], ...] = (
            ("shapes", self.shapes),
            ("min-shapes", self.min_shapes),
            ("max-shapes", self.max_shapes),
            ("input-range", self.ranges),
            ("state", self.states),
        )
        return tuple((what, tuple(pair[0] for pair in pairs)) for what, pairs in given)

    def over(self, other: InputsAsked) -> InputsAsked:
        """Return both together; where both speak of an input, this counts."""

        def joined(mine: tuple[tuple[str, T], ...], others: tuple[tuple[str, T], ...]) -> tuple[tuple[str, T], ...]:
            return tuple({**dict(others), **dict(mine)}.items())

        return InputsAsked(
            shapes=joined(self.shapes, other.shapes),
            min_shapes=joined(self.min_shapes, other.min_shapes),
            max_shapes=joined(self.max_shapes, other.max_shapes),
            ranges=joined(self.ranges, other.ranges),
            states=joined(self.states, other.states),
            is_for_one=self.is_for_one and other.is_for_one,
        )

    @property
    def is_given(self) -> bool:
        """Tell whether anything is said."""
        return any(inputs for _, inputs in self.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInput:
    """One input of a model that is no image classifier, with the shape it is run at."""

    name: str
    dtype: str  # NumPy's name
    shape: tuple[int, ...]  # of one run, its batch axis included
    batch_axis: int | None = None  # the axis on which samples are stacked; one that is not free holds one sample
    free_axes: tuple[int, ...] = ()  # that the file leaves open
    min_shape: tuple[int, ...] = ()  # smallest and largest shapes that an engine must take too; () = as `shape`
    max_shape: tuple[int, ...] = ()
    low: float = 0.0  # range of seeded values
    high: float = 1.0
    state: str = ""  # the output of the run before that is fed back in; zeros at first

    def __post_init__(self) -> None:
        for shape in filter(None, (self.min_shape, self.max_shape)):
            if len(shape) != len(self.shape):
                raise ConfigError(f"input {self.name}: shapes {_shape(shape)} and {_shape(self.shape)} differ in rank")
        if self.batch_axis is not None and not 0 <= self.batch_axis < len(self.shape):
            raise ConfigError(f"input {self.name}: batch axis {self.batch_axis} of shape {_shape(self.shape)}")
        if not self.low <= self.high:
            raise ConfigError(f"input {self.name}: range {self.low:g}..{self.high:g} is none")

    def of_batch(self, n_samples: int) -> tuple[int, ...]:
        """Return its shape with so many samples stacked."""
        if self.batch_axis is None or self.batch_axis not in self.free_axes:
            return self.shape
        return (*self.shape[: self.batch_axis], n_samples, *self.shape[self.batch_axis + 1 :])


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOutput:
    """One output of a model that is no image classifier."""

    name: str
    batch_axis: int | None = None  # as of its inputs
    dtype: str = ""  # NumPy's name, as the file says; "" = it is not known
    axes: tuple[int | None, ...] = ()  # sizes as the file says, None: free; () = they are not known


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTensors:
    """The inputs and outputs of a model of any graph."""

    inputs: tuple[ModelInput, ...]
    outputs: tuple[ModelOutput, ...]

    @property
    def is_stackable(self) -> bool:
        """Tell whether several samples may share a run."""
        return bool(self.inputs) and all(one.batch_axis in one.free_axes for one in self.inputs) and not self.has_state

    @property
    def output_names(self) -> tuple[str, ...]:
        """Return the names of the outputs, in the model's order."""
        return tuple(one.name for one in self.outputs)

    def timed_batches(self, asked: tuple[int, ...]) -> tuple[int, ...]:
        """Return the batch sizes to time: those asked, or the one that the given shapes hold."""
        if not self.is_stackable:
            return (1,)
        held = {one.shape[one.batch_axis] for one in self.inputs if one.batch_axis is not None}
        return asked if held == {1} else tuple(held)

    @property
    def has_state(self) -> bool:
        """Tell whether an output of one run goes into the next."""
        return any(one.state for one in self.inputs)

    def shapes(self, n_samples: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of every input with so many samples."""
        return {one.name: one.of_batch(n_samples) for one in self.inputs}


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShippedEngine:
    """What the card of an engine that was built elsewhere says of it."""

    backend: str
    precision: Precision
    runtime: str = ""  # that built it, with its version, as text: "TensorRT 10.13.3"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A model and everything that silently ruins its accuracy when wrong.

    A classifier with one float image for an input, as the image fields say, unless it has `tensors`: then these say
    what goes in and out, and of the image fields only names and task mean something.

    A model input is `(image / 1 * scale - mean) / std`, with `image` in 0..255, laid out as `layout`.
    """

    name: str
    onnx_path: str
    sha256: str  # "" = not known before a worker reads the file
    input_name: str
    input_shape: tuple[int, ...]  # without the batch: (C, H, W), (H, W, C) or flat (K,)
    output_name: str
    num_classes: int
    layout: str = "NCHW"  # NCHW, NHWC or flat
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)  # one per channel, or one for all
    std: tuple[float, ...] = (1.0,)
    preprocess: Preprocess = field(default_factory=Preprocess)  # what comes before scale, mean and std
    label_offset: int = 0  # added to a data set's label to get the model's class
    task: str = "classification"  # what the output means: one of harness/tasks/
    output_kind: str = "probabilities"  # or logits
    max_batch: int | None = None  # the model's own fixed batch [images]; None means free
    baked_by: str = ""  # the node that fixes the batch although the file's input leaves it free
    timing_only: bool = False  # no image of a data set is scored
    tensors: ModelTensors | None = None  # of a model of any graph; None: an image classifier
    graph: InputsAsked | None = None  # what a card says of the inputs of any graph: its file is still to be read
    unscored: str = ""  # why a model without a card is not scored, though a data set was named
    task_settings: dict[str, object] = field(default_factory=dict)  # how outputs are read: a card's [task]
    card_dir: str = ""  # where files of [task] lie; "" = beside the model's file
    engine: ShippedEngine | None = None  # its file is a built engine: one case, nothing is converted or built
    is_quantized: bool = False  # its file holds quantized operators: it runs as INT8, as given, and in nothing else
    trained_on: tuple[ImageRange, ...] = ()
    floors: dict[str, float] = field(default_factory=dict)  # data set -> lowest top-1 of FP32 [fraction]
    accuracy: dict[str, float] = field(default_factory=dict)  # data set -> top-1 measured when trained [fraction]
    max_drop: dict[str, float] = field(default_factory=dict)  # precision -> allowed loss against FP32 [fraction]
    min_speedup: dict[str, float] = field(default_factory=dict)  # precision -> times as fast as FP32
    expects_int8_loss: bool = False  # a planted victim: its INT8 loss is known and shown, not a failure
    description: str = ""

    @property
    def preprocessing(self) -> dict[str, str]:
        """Return what is done to images and labels, by name: what may change a result without a change of the model."""
        numbers = {"scale": (self.scale,), "mean": self.mean, "std": self.std}
        told = {name: " ".join(f"{value:.9g}" for value in values) for name, values in numbers.items()}
        return {
            **told,
            "layout": self.layout,
            "geometry": self.preprocess.text,
            "label offset": str(self.label_offset),
        }

    def __post_init__(self) -> None:
        if not NAME_PATTERN.match(self.name):
            raise ConfigError(f"model name {self.name!r}: use letters, digits, '_' and '.' only")
        if self.layout not in ("NCHW", "NHWC", "flat"):
            raise ConfigError(f"model {self.name}: layout {self.layout!r} is none of NCHW, NHWC, flat")
        if self.num_classes < 2 and self.tensors is None and self.graph is None:
            raise ConfigError(f"model {self.name}: {self.num_classes} classes; a classifier has at least 2")
        if self.output_kind not in ("probabilities", "logits"):
            raise ConfigError(f"model {self.name}: output_kind {self.output_kind!r}; expected probabilities or logits")
        if any(value == 0 for value in self.std):
            raise ConfigError(f"model {self.name}: std must not be 0")

    @property
    def is_onnx(self) -> bool:
        """Tell whether its file is ONNX, which every backend reads, and neither OpenVINO IR nor a built engine."""
        return self.engine is None and not self.onnx_path.endswith(IR_SUFFIX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One model in one precision on one backend: a test id, a baseline's file name, a row of the report."""

    model: str
    backend: str
    precision: Precision
    recipe: str
    device: str = "cpu"  # or cuda:0, ...

    @property
    def id(self) -> str:
        """Return the readable id, for example `lenet5-openvino-int8`; defaults are left out."""
        return "-".join(part for part in (self.model, self.backend, self.precision.value, self.variant) if part)

    @property
    def has_cast_weights(self) -> bool:
        """Tell whether its file holds weights of its precision, or a runtime makes them so."""
        return self.recipe != BF16_RUNTIME_RECIPE

    @property
    def is_source(self) -> bool:
        """Tell whether this is the model's own file, converted in nothing: FP32, or INT8 as given."""
        return self.precision is Precision.FP32 or self.recipe == GIVEN_RECIPE

    def source_on(self, backend: str, device: str) -> Case:
        """Return the case of the model's own file on a backend and device: what all others are compared with."""
        if self.recipe == GIVEN_RECIPE:
            return replace(self, backend=backend, device=device)
        recipe = DEFAULT_RECIPES[Precision.FP32.value]
        return Case(model=self.model, backend=backend, precision=Precision.FP32, recipe=recipe, device=device)

    @property
    def variant(self) -> str:
        """Return what tells it from the default case of its precision: recipe and device where they are others."""
        recipe = "" if self.recipe == DEFAULT_RECIPES[self.precision.value] else self.recipe
        device = "" if self.device in ("cpu", "cuda:0") else "".join(filter(str.isalnum, self.device))
        return "-".join(part for part in (recipe, device) if part)

    @property
    def asked(self) -> str:
        """Return the precision, and the recipe where it is not the default: `int8 trt-entropy2`."""
        is_default = self.recipe == DEFAULT_RECIPES[self.precision.value]
        return self.precision.value if is_default else f"{self.precision.value} {self.recipe}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRequest:
    """A data set by name or path, and where its files lie."""

    name: str = "strokes"  # or a path
    data_dir: str | None = None
    split: str = "test"
    score_first: int = 0
    score_images: int = 10_000
    calibration_name: str | None = None  # of another data set to calibrate with, or its path; None: `name`
    calibration_split: str = "train"
    calibration_first: int = 0
    calibration_images: int = 1_000

    def __post_init__(self) -> None:
        if self.score_images < 1:
            raise ConfigError("--score-images must be at least 1: nothing scored is no result")
        if self.calibration_images < 1:
            raise ConfigError("--calibration-images must be at least 1: an empty calibration set calibrates nothing")
        shared = self.scored.overlap(self.calibration)
        if shared:
            raise ConfigError(
                f"{shared} calibration images would also be scored "
                f"({self.split}: scored {self.scored.first}..{self.scored.stop - 1}, "
                f"calibration {self.calibration.first}..{self.calibration.stop - 1}); "
                "move one with --score-from or --calibration-from"
            )

    @property
    def scored(self) -> ImageRange:
        """Return the range of scored images."""
        return ImageRange(
            dataset=self.name, split=self.split, first=self.score_first, stop=self.score_first + self.score_images
        )

    @property
    def calibration(self) -> ImageRange:
        """Return the range of calibration images."""
        first = self.calibration_first
        return ImageRange(
            dataset=self.calibration_name or self.name,
            split=self.calibration_split,
            first=first,
            stop=first + self.calibration_images,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What a backend may need beside the artifact to build an engine."""

    num_threads: int = 1  # CPU threads of an inference; recorded as read back
    cache_dir: str = ""  # root of the content cache
    rebuild: bool = False  # ignore cached engines and artifacts
    keep_float: tuple[str, ...] = ()  # regular expressions of nodes' names that stay in float
    tensors: ModelTensors | None = None  # of a model of any graph; None: a classifier's image
    settings: dict[str, dict[str, object]] = field(default_factory=dict)  # see Settings; a backend reads its own group


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLimits:
    """How long a worker may be silent at each of its stages."""

    all_s: float | None = None  # of every stage that `by_stage` does not name; None = STAGE_LIMITS_S
    by_stage: tuple[tuple[str, float], ...] = ()  # (stage, limit [s])

    def __post_init__(self) -> None:
        for stage, limit_s in self.by_stage:
            if stage not in STAGE_LIMITS_S or limit_s <= 0:
                known = ", ".join(STAGE_LIMITS_S)
                raise ConfigError(f"--stage-timeout={stage}={limit_s:g}: expected STAGE=SECONDS, one of {known}")
        if self.all_s is not None and self.all_s <= 0:
            raise ConfigError("--worker-timeout must be greater than 0")

    def of(self, stage: str) -> float:
        """Return the limit of a stage [s]."""
        usual_s = STAGE_LIMITS_S[stage] if self.all_s is None or stage in SETUP_STAGES else self.all_s
        return dict(self.by_stage).get(stage, usual_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingPlan:
    """How often to run, and what the clock sees."""

    batch_sizes: tuple[int, ...] = (1, 100)
    window: str = "compute"  # compute or end_to_end; on CUDA devices also host, h2d and d2h
    launch: str = "auto"  # auto, enqueue, graph, gated, gated_graph (the last four on CUDA devices)
    n_rounds: int = 20
    round_ns: int = 20_000_000  # time spent in one round of one engine [ns]
    warmup_ns: int = 50_000_000  # and at least 3 calls; up to twice as long where times still move [ns]
    energy_loops: int = 0  # loops of 0.3 s per engine and batch size that energy is taken over; 0 = not taken
    throughput: bool = False  # whether several inferences at once are measured too
    concurrency: tuple[int, ...] = ()  # how many at once; () = 1, 2, 4, ... as many as there are CPUs

    def __post_init__(self) -> None:
        if not self.batch_sizes or any(n < 1 for n in self.batch_sizes):
            raise ConfigError(f"--batch-size: {self.batch_sizes} must be whole numbers of at least 1")
        if any(n < 1 for n in self.concurrency):
            raise ConfigError(f"--concurrency: {self.concurrency} must be whole numbers of at least 1")
        if self.energy_loops < 0:
            raise ConfigError(f"--energy-loops={self.energy_loops}: expected 0 or more loops")


def batches_of_engine(model: ModelSpec, timing: TimingPlan, score_batch: int) -> tuple[int, ...]:
    """Return the batch sizes that a model's engine is built for, ascending [images]."""
    if model.tensors is not None:  # its samples are run at the largest batch that is timed
        return tuple(sorted(timing.batch_sizes))
    if model.max_batch:
        return (model.max_batch,)
    # An engine is tuned for its largest batch: one that is never scored is not built for the scoring batch.
    return tuple(sorted(timing.batch_sizes if model.timing_only else {*timing.batch_sizes, score_batch}))


KNOWN_ERROR = "error"  # in place of a waiver's gate


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiver:
    """A known failure of some cases, accepted until a day; they still run and are judged."""

    case: str  # an id, or a glob of ids
    gate: str  # or KNOWN_ERROR: the case ends in an error
    reason: str
    link: str  # to where it is followed up
    expires: str  # the last day that it holds, ISO 8601
    error: str = ""  # of KNOWN_ERROR: a part of its message; an error that says otherwise is another one

    def matches(self, case_id: str) -> bool:
        """Tell whether a case is one of them."""
        return fnmatchcase(case_id, self.case)

    def takes_error(self, message: str) -> bool:
        """Tell whether an error is the one that is known."""
        return self.gate == KNOWN_ERROR and bool(self.error) and self.error in message

    @property
    def text(self) -> str:
        """Return until when it holds, why, and where that is followed up."""
        return f"waived until {self.expires}: {self.reason} ({self.link})"

    def holds_on(self, day: str) -> bool:
        """Tell whether it is in force on a day, ISO 8601."""
        return day <= self.expires


def waiver_of_error(message: str, waivers: Iterable[Waiver]) -> Waiver | None:
    """Return the waiver that takes an error, of several the one that holds longest; None where none does."""
    return max((one for one in waivers if one.takes_error(message)), key=lambda one: one.expires, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """What change is accepted; all values are fractions of all images, or ratios less one."""

    max_drop: float = 0.005  # accepted loss of top-1 against FP32; a loss known to be smaller is SAME
    max_drop_baseline: float = 0.0  # accepted loss against a baseline: the images are the same, so none
    alpha: float = 0.001  # false-alarm rate of one comparison
    floor: float | None = None  # lowest acceptable top-1
    max_slowdown: float | None = None  # accepted increase of latency; None = shown, never failed
    max_drift: float | None = None  # accepted median error of an output, of its norm; None = shown, FP32's judged
    max_build_slowdown: float | None = None  # accepted increase of build time; None = not judged
    max_engine_growth: float | None = None  # accepted increase of an engine's size; None = not judged
    max_memory_growth: float | None = None  # accepted increase of memory, host and device; None = not judged
    min_speedup: float | None = None  # lowest acceptable ratio of FP32's time to this one's; None = shown
    drop_budget: float | None = None  # what accepted losses may add up to; None = three times max_drop
    slowdown_budget: float | None = None  # what accepted slowdowns may; None = three times the accepted slowdown

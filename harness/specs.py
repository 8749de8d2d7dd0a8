"""What was asked: frozen values, validated when made, with no knowledge of files or processes.

Units: ns, bytes, images, fractions. Nothing here fills in, downloads or reads the environment.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.errors import ConfigError

DEFAULT_INT8_RECIPE = "qdq-minmax"
DEFAULT_RECIPES = {"fp32": "none", "fp16": "cast", "bf16": "cast", "int8": DEFAULT_INT8_RECIPE}
BF16_RUNTIME_RECIPE = "runtime"  # BF16 without a file of its own: the runtime is told to compute in it
REFERENCE_BACKEND = "ort"  # its FP32 is what every case is compared with
NAME_PATTERN = re.compile(r"[A-Za-z0-9_.]+\Z")  # no hyphen: it separates the parts of a case id
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
class ModelSpec:
    """A single-input classifier and everything that silently ruins its accuracy when wrong.

    A model input is `(image / 1 * scale - mean) / std`, with `image` in 0..255, laid out as `layout`.
    """

    name: str
    onnx_path: str
    sha256: str
    input_name: str
    input_shape: tuple[int, ...]  # without the batch: (C, H, W), (H, W, C) or flat (K,)
    output_name: str
    num_classes: int
    layout: str = "NCHW"  # NCHW, NHWC or flat
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)  # one per channel, or one for all
    std: tuple[float, ...] = (1.0,)
    label_offset: int = 0  # added to a data set's label to get the model's class
    task: str = "classification"  # what the output means: one of harness/tasks/
    output_kind: str = "probabilities"  # or logits
    max_batch: int | None = None  # the model's own fixed batch [images]; None means free
    timing_only: bool = False
    trained_on: tuple[ImageRange, ...] = ()
    floors: dict[str, float] = field(default_factory=dict)  # data set -> lowest top-1 of FP32 [fraction]
    accuracy: dict[str, float] = field(default_factory=dict)  # data set -> top-1 measured when trained [fraction]
    max_drop: dict[str, float] = field(default_factory=dict)  # precision -> allowed loss against FP32 [fraction]
    expects_int8_loss: bool = False  # a planted victim: its INT8 loss is known and shown, not a failure
    description: str = ""

    def __post_init__(self) -> None:
        if not NAME_PATTERN.match(self.name):
            raise ConfigError(f"model name {self.name!r}: use letters, digits, '_' and '.' only")
        if self.layout not in ("NCHW", "NHWC", "flat"):
            raise ConfigError(f"model {self.name}: layout {self.layout!r} is none of NCHW, NHWC, flat")
        if self.num_classes < 2:
            raise ConfigError(f"model {self.name}: {self.num_classes} classes; a classifier has at least 2")
        if self.output_kind not in ("probabilities", "logits"):
            raise ConfigError(f"model {self.name}: output_kind {self.output_kind!r}; expected probabilities or logits")
        if any(value == 0 for value in self.std):
            raise ConfigError(f"model {self.name}: std must not be 0")


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

    name: str = "strokes"  # a name, or a path to an IDX images file or a folder of TensorRT batch files
    data_dir: str | None = None
    split: str = "test"
    score_first: int = 0
    score_images: int = 10_000
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
            dataset=self.name, split=self.calibration_split, first=first, stop=first + self.calibration_images
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What a backend may need beside the artifact to build an engine."""

    num_threads: int = 1  # CPU threads of an inference; recorded as read back
    cache_dir: str = ""  # root of the content cache
    rebuild: bool = False  # ignore cached engines and artifacts
    settings: dict[str, dict[str, object]] = field(default_factory=dict)  # see Settings; a backend reads its own group


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingPlan:
    """How often to run, and what the clock sees."""

    batch_sizes: tuple[int, ...] = (1, 100)
    window: str = "compute"  # compute or end_to_end
    launch: str = "auto"  # auto, enqueue, graph, gated, gated_graph (the last four on CUDA devices)
    n_rounds: int = 20
    round_ns: int = 20_000_000  # time spent in one round of one engine [ns]
    warmup_ns: int = 50_000_000  # and at least 3 calls [ns]

    def __post_init__(self) -> None:
        if not self.batch_sizes or any(n < 1 for n in self.batch_sizes):
            raise ConfigError(f"--batch-size: {self.batch_sizes} must be whole numbers of at least 1")


def batches_of_engine(model: ModelSpec, timing: TimingPlan, score_batch: int) -> tuple[int, ...]:
    """Return the batch sizes that a model's engine is built for, ascending [images]."""
    if model.max_batch:
        return (model.max_batch,)
    # An engine is tuned for its largest batch: one that is never scored is not built for the scoring batch.
    return tuple(sorted(timing.batch_sizes if model.timing_only else {*timing.batch_sizes, score_batch}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """What change is accepted; all values are fractions of all images, or ratios less one."""

    max_drop: float = 0.005  # accepted loss of top-1 against FP32; a loss known to be smaller is SAME
    max_drop_baseline: float = 0.0  # accepted loss against a baseline: the images are the same, so none
    alpha: float = 0.001  # false-alarm rate of one comparison
    floor: float | None = None  # lowest acceptable top-1
    max_slowdown: float | None = None  # accepted increase of latency; None = shown, never failed

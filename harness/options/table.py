"""The rows: every option of a run, those of the backends' groups included.

What is typed, `HarnessOptions`, `[run]` of harness.toml, docs/options.md and the command that repeats a case all read
them; a new option is one row here and one field.
"""

from __future__ import annotations

import re
from functools import cache, partial
from operator import attrgetter
from pathlib import Path

from harness.errors import ConfigError
from harness.options.groups import backend_groups
from harness.options.inputs import range_of_text, shape_of_text, state_of_text
from harness.options.rows import (
    NAME_OR_PATH,
    NUMBER,
    PATH,
    SWITCH,
    TEXT,
    WHOLE,
    Kind,
    Option,
    defaults_of,
    number,
    tolerance,
)
from harness.options.values import BASELINE_MODES, HarnessOptions
from harness.specs import STAGE_LIMITS_S, Precision

SPLITS = ("train", "test")
WINDOWS = ("compute", "end_to_end", "host", "h2d", "d2h")
LAUNCHES = ("auto", "enqueue", "graph", "gated", "gated_graph")
PRECISION = Kind(name="a precision", metavar="NAMES", parse=Precision)


def backend_option_of_text(text: str) -> tuple[str, str, str]:
    """Return (backend, name, value) of `NAME.KEY=VALUE`. Raises: ValueError."""
    place, _, value = text.partition("=")
    backend, _, name = place.partition(".")
    if not (backend and name and value):
        raise ValueError(text)
    return backend, name, value


BACKEND_OPTION = Kind(
    name="NAME.KEY=VALUE",
    metavar="NAME.KEY=VALUE",
    parse=backend_option_of_text,
    text=lambda parts: f"{parts[0]}.{parts[1]}={parts[2]}",
)


def pattern_of_text(text: str) -> str:
    """Return a regular expression as typed. Raises: ConfigError with what is wrong with it."""
    try:
        re.compile(text)
    except re.error as error:
        raise ConfigError(f"{text!r} is no regular expression: {error}") from error
    return text


PATTERN = Kind(name="a regular expression", metavar="REGEX", parse=pattern_of_text)


def stage_timeout_of_text(text: str) -> tuple[str, float]:
    """Return (stage, seconds) of `STAGE=SECONDS`. Raises: ValueError."""
    stage, _, seconds = text.partition("=")
    return stage, number(seconds)


STAGE_TIMEOUT = Kind(
    name="STAGE=SECONDS",
    metavar="STAGE=SECONDS",
    parse=stage_timeout_of_text,
    text=lambda parts: f"{parts[0]}={parts[1]:g}",
)


SHAPE = Kind(
    name="NAME:DIMS, as ids:1x128",
    metavar="NAME:DIMS,...",
    parse=shape_of_text,
    text=lambda pair: f"{pair[0]}:{'x'.join(map(str, pair[1]))}",
)
RANGE = Kind(
    name="NAME:LOW..HIGH",
    metavar="NAME:LOW..HIGH",
    parse=range_of_text,
    text=lambda pair: f"{pair[0]}:{NUMBER.text(pair[1][0])}..{NUMBER.text(pair[1][1])}",
)
STATE = Kind(
    name="INPUT=OUTPUT",
    metavar="INPUT=OUTPUT",
    parse=state_of_text,
    text=lambda pair: f"{pair[0]}={pair[1]}",
)

_case = partial(Option, section="Cases")
CASES = (
    _case(
        flag="--backend",
        field="backends",
        kind=TEXT,
        metavar="NAMES",
        help="backends: ort, openvino, trt, litert, ...",
        default="auto, every usable one",
        listed=True,
        repeated=True,
        role="selects",
    ),
    _case(
        flag="--precision",
        field="precisions",
        kind=PRECISION,
        help="precisions",
        choices=tuple(precision.value for precision in Precision),
        default="all but bf16",
        listed=True,
        repeated=True,
        role="selects",
    ),
    _case(
        flag="--model",
        field="models",
        kind=NAME_OR_PATH,
        help="bundled models, ONNX files or cards; resnet101_112 is made on demand",
        default="every bundled classifier",
        listed=True,
        repeated=True,
        role="selects",
    ),
    _case(
        flag="--engine",
        field="engines",
        kind=PATH,
        metavar="FILE",
        help="an engine built before, with its card FILE.toml beside it: plan, blob, IR or .ort; this trusts it",
        default="none",
        repeated=True,
        role="selects",
    ),
    _case(
        flag="--recipe",
        field="recipes",
        kind=TEXT,
        metavar="NAMES",
        help="recipes; INT8: qdq-minmax, qdq-entropy, nncf, trt-entropy2, litert-int8, ...; BF16: cast, runtime",
        default="qdq-minmax and cast",
        listed=True,
        repeated=True,
        role="selects",
    ),
    _case(
        flag="--keep-float",
        field="keep_float",
        kind=PATTERN,
        help="leave nodes whose names hold a match of a regular expression in float, in FP16, BF16 and INT8 files",
        default="none",
        repeated=True,
    ),
    _case(flag="--device", field="device", kind=TEXT, help="cpu, cuda:0, ...", default="the backend's first"),
    _case(
        flag="--extension-dir",
        field="extension_dirs",
        kind=PATH,
        metavar="DIR",
        help="folder with backends of your own, one file each in DIR/backends",
        default="none",
        repeated=True,
        place="absolute",
    ),
    _case(
        flag="--backend-option",
        field="backend_options",
        kind=BACKEND_OPTION,
        help="option KEY of the backend NAME, where it has no options of its own here",
        default="none",
        repeated=True,
    ),
    _case(
        flag="--input-scale",
        field="input_scale",
        kind=NUMBER,
        help="factor on pixels 0..255 for a model without a card",
        default="1/255",
    ),
    _case(
        flag="--num-classes",
        field="num_classes",
        kind=WHOLE,
        help="classes of a model without a card",
        default="read from its output",
    ),
    _case(
        flag="--label-offset",
        field="label_offset",
        kind=WHOLE,
        help="added to a data set's labels to get the model's classes",
        default="the card's, or 0",
    ),
)

_input = partial(Option, section="Inputs of any graph", default="none")
INPUTS = (
    _input(
        flag="--shapes",
        field="inputs.shapes",
        kind=SHAPE,
        help="shapes of inputs with free axes, as ids:1x128,mask:1x128; a model without a card is then only timed, and "
        "its outputs compared",
        listed=True,
        repeated=True,
    ),
    _input(
        flag="--min-shapes",
        field="inputs.min_shapes",
        kind=SHAPE,
        help="smallest shapes that an engine must take too, where its runtime asks",
        default="as --shapes",
        listed=True,
        repeated=True,
    ),
    _input(
        flag="--max-shapes",
        field="inputs.max_shapes",
        kind=SHAPE,
        help="largest shapes that an engine must take too, where its runtime asks",
        default="as --shapes",
        listed=True,
        repeated=True,
    ),
    _input(
        flag="--input-range",
        field="inputs.ranges",
        kind=RANGE,
        help="range of an input's seeded values",
        default="0..1; of whole numbers that look something up, all there is to look up",
        listed=True,
        repeated=True,
    ),
    _input(
        flag="--state",
        field="inputs.states",
        kind=STATE,
        help="an input that gets an output of the run before, zeros at first",
        repeated=True,
    ),
)

_data = partial(Option, section="Data")
DATA = (
    _data(
        flag="--dataset",
        field="data.name",
        kind=NAME_OR_PATH,
        help="strokes, mnist, fashion-mnist, ..., or a path: a folder of images, an NPZ, IDX or CSV file, ...",
    ),
    _data(
        flag="--data-dir",
        field="data.data_dir",
        kind=PATH,
        metavar="DIR",
        help="where the data set's files lie",
        default="the user's cache, downloaded when absent",
    ),
    _data(flag="--split", field="data.split", kind=TEXT, choices=SPLITS, help="split to score"),
    _data(
        flag="--score-images",
        field="data.score_images",
        kind=WHOLE,
        help="how many images to score",
        unit="images",
    ),
    _data(flag="--score-from", field="data.score_first", kind=WHOLE, metavar="INDEX", help="first image to score"),
    _data(
        flag="--calibration-dataset",
        field="data.calibration_name",
        kind=NAME_OR_PATH,
        help="data set whose images calibrate INT8",
        default="the scored one",
    ),
    _data(
        flag="--calibration-images",
        field="data.calibration_images",
        kind=WHOLE,
        help="how many images calibrate INT8",
        unit="images",
    ),
    _data(
        flag="--calibration-from",
        field="data.calibration_first",
        kind=WHOLE,
        metavar="INDEX",
        help="first calibration image",
        default="0, or the first after the scored ones where they would overlap",
    ),
    _data(
        flag="--calibration-split",
        field="data.calibration_split",
        kind=TEXT,
        choices=SPLITS,
        help="split of the calibration images",
    ),
)

_measure = partial(Option, section="Measuring")
MEASURING = (
    _measure(
        flag="--batch-size",
        field="timing.batch_sizes",
        kind=WHOLE,
        metavar="N,N",
        help="batch sizes to time",
        unit="images",
        listed=True,
    ),
    _measure(flag="--score-batch", field="score_batch", kind=WHOLE, help="batch size when scoring", unit="images"),
    _measure(
        flag="--timing-window",
        field="timing.window",
        kind=TEXT,
        choices=WINDOWS,
        help="what the clock sees",
    ),
    _measure(
        flag="--timing-launch",
        field="timing.launch",
        kind=TEXT,
        choices=LAUNCHES,
        help="how a CUDA engine is launched when timed",
        default="auto, the quietest that works",
    ),
    _measure(
        flag="--timing-rounds",
        field="timing.n_rounds",
        kind=WHOLE,
        help="rounds of samples per engine and batch size",
        unit="rounds",
    ),
    _measure(
        flag="--throughput",
        field="timing.throughput",
        kind=SWITCH,
        help="measure images/s (samples/s of other graphs) with several inferences at once, too",
    ),
    _measure(
        flag="--concurrency",
        field="timing.concurrency",
        kind=WHOLE,
        metavar="N,N",
        help="inferences at once that --throughput tries",
        default="1, 2, 4, ... up to the CPUs / --threads",
        listed=True,
    ),
    _measure(
        flag="--energy-loops",
        field="timing.energy_loops",
        kind=WHOLE,
        help="loops of 0.3 s per engine and batch size over which a GPU's energy per image is taken, in turn with FP32",
        unit="loops",
        default="0, not taken",
    ),
    _measure(
        flag="--threads",
        field="num_threads",
        kind=WHOLE,
        help="CPU threads of one inference",
        default="1, the steadiest to time",
    ),
    _measure(
        flag="--worker-timeout",
        field="timeout_s",
        kind=NUMBER,
        metavar="SECONDS",
        help="longest silence of a worker that prepares or measures before it is killed",
        unit="s",
        default="600, and 1800 while it builds",
    ),
    _measure(
        flag="--stage-timeout",
        field="stage_timeouts",
        kind=STAGE_TIMEOUT,
        help=f"longest silence of a worker at one stage ({', '.join(STAGE_LIMITS_S)}) before it is killed",
        unit="s",
        default="--worker-timeout; 120 for import and probe, 60 for close",
        repeated=True,
    ),
    _measure(
        flag="--worker-python",
        field="worker_python",
        kind=NAME_OR_PATH,
        metavar="PATH",
        help="interpreter of the workers, for example of a venv with another runtime version",
        default="this one",
    ),
    _measure(
        flag="--control-python",
        field="control_python",
        kind=NAME_OR_PATH,
        metavar="PATH",
        help="interpreter that runs accepted engines where the runtime's version has changed since",
        default="none: such times are not confirmed",
    ),
)

_verdict = partial(Option, section="Verdicts")
VERDICTS = (
    _verdict(
        flag="--strict-verdicts",
        field="strict",
        kind=SWITCH,
        help="an inconclusive verdict fails; pytest's own --strict implies it",
    ),
    _verdict(
        flag="--floor",
        field="floor",
        kind=tolerance("floor"),
        help="lowest acceptable top-1, 0.98 or 98%",
        default="harness.toml, or the model card's",
        belongs_in="[tolerance]",
    ),
    _verdict(
        flag="--max-drop",
        field="max_drop",
        kind=tolerance("max_drop"),
        help="accepted loss of top-1, 0.005 or 0.5%",
        default="harness.toml, the card, or 0.5%",
        belongs_in="[tolerance]",
    ),
    _verdict(
        flag="--max-slowdown",
        field="max_slowdown",
        kind=tolerance("max_slowdown"),
        help="fail when the whole interval of the latency ratio lies beyond, 0.05 or 5%",
        default="harness.toml, or never",
        belongs_in="[tolerance]",
    ),
    _verdict(
        flag="--max-drift",
        field="max_drift",
        kind=tolerance("max_drift"),
        help="fail when the median error of an output of any graph lies beyond, as a share of its norm, 0.05 or 5%",
        default="harness.toml, or 1% between FP32 engines and 100% for lower precisions",
        belongs_in="[tolerance]",
    ),
    _verdict(
        flag="--max-build-slowdown",
        field="max_build_slowdown",
        kind=tolerance("max_build_slowdown"),
        help="fail when tonight's build lies beyond what the accepted builds' scatter explains, 0.5 or 50%",
        default="harness.toml, or not judged",
        belongs_in="[tolerance]",
    ),
    _verdict(
        flag="--max-engine-growth",
        field="max_engine_growth",
        kind=tolerance("max_engine_growth"),
        help="fail when the engine is larger than the accepted one by more, 0.05 or 5%",
        default="harness.toml, or not judged",
        belongs_in="[tolerance]",
    ),
    _verdict(
        flag="--max-memory-growth",
        field="max_memory_growth",
        kind=tolerance("max_memory_growth"),
        help="fail when peak host memory or device memory is larger than the accepted one by more, 0.1 or 10%",
        default="harness.toml, or not judged",
        belongs_in="[tolerance]",
    ),
    _verdict(
        flag="--alpha",
        field="alpha",
        kind=tolerance("alpha"),
        help="false-alarm rate of one comparison",
        default="harness.toml, or 0.001",
        belongs_in="[tolerance]",
    ),
    _verdict(
        flag="--baseline",
        field="baseline",
        kind=TEXT,
        choices=BASELINE_MODES,
        help="auto names a missing baseline, require fails on it, ignore compares with none",
    ),
    _verdict(
        flag="--baseline-dir",
        field="baseline_dir",
        kind=PATH,
        metavar="DIR",
        help="stored baselines",
        place="root",
    ),
    _verdict(
        flag="--require-precision",
        field="require_precision",
        kind=SWITCH,
        help="fail a case of which not all compute layers ran in the precision asked",
    ),
    _verdict(
        flag="--allow-chance",
        field="allow_chance",
        kind=SWITCH,
        help="do not fail a model whose FP32 agrees with the labels no better than chance",
    ),
    _verdict(
        flag="--update-baselines",
        field="update_baselines",
        kind=SWITCH,
        help="write baselines at the end of a clean run",
        role="run",
    ),
    _verdict(
        flag="--accept-regressions",
        field="accept_regressions",
        kind=SWITCH,
        help="as --update-baselines; also replace those that a case regressed against or cannot be compared with",
        role="run",
    ),
)

_files = partial(Option, section="Files", role="run")
FILES = (
    _files(
        flag="--report-dir",
        field="report_dir",
        kind=PATH,
        metavar="DIR",
        help="where runs are written",
        place="root",
    ),
    _files(
        flag="--report-url",
        field="report_url",
        kind=TEXT,
        metavar="URL",
        help="where the page will be found, linked in report.md",
        default="none",
    ),
    _files(
        flag="--engine-cache",
        field="engine_cache",
        kind=PATH,
        metavar="DIR",
        help="cache of prepared models and built engines",
        default="the user's cache folder",
        place="absolute",
    ),
    _files(
        flag="--resume",
        field="resume",
        kind=NAME_OR_PATH,
        metavar="RUN",
        help="go on with a run that was killed or interrupted: its name below --report-dir, latest, or its folder",
        default="a new run",
    ),
    _files(flag="--rebuild", field="rebuild", kind=SWITCH, help="ignore cached models and engines"),
)

_fleet = partial(Option, section="Fleet", role="run")
FLEET = (
    _fleet(
        flag="--shard",
        field="shard",
        kind=WHOLE,
        metavar="K",
        help="run this shard of a plan that `harness plan` wrote, and nothing else",
        default="none",
    ),
    _fleet(flag="--shard-plan", field="shard_plan", kind=PATH, metavar="FILE", help="the plan"),
    _fleet(
        flag="--shard-attempt",
        field="shard_attempt",
        kind=WHOLE,
        help="which try of the shard this is; merging takes the first that finished",
    ),
)


@cache
def all_rows() -> tuple[Option, ...]:
    """Return every row, in the order of the help."""
    groups = (row for group in backend_groups().values() for row in group.rows)
    return (*CASES, *INPUTS, *DATA, *MEASURING, *VERDICTS, *FILES, *FLEET, *groups)


def default_of(row: Option, root: str = ".") -> object:
    """Return a row's default; `root`: the folder that relative ones of `place` "root" lie in."""
    if row.group:
        return defaults_of(backend_groups()[row.group])[row.field]
    default = attrgetter(row.field)(HarnessOptions())
    return str(Path(root) / default) if row.place == "root" else default


def value_of(row: Option, options: HarnessOptions) -> object:
    """Return a row's value in the options of a run."""
    if row.group:
        return options.settings.get(row.group, {}).get(row.field, default_of(row))
    return attrgetter(row.field)(options)


def is_changed(row: Option, options: HarnessOptions) -> bool:
    """Tell whether a value differs from the row's default."""
    return value_of(row, options) != default_of(row, options.root)


def default_in_words(row: Option) -> str:
    """Return a row's default for a reader."""
    return row.default or row.text(default_of(row))

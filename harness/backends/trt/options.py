"""Options of TensorRT: rows, values, and what is known to be wrong before a run. Imports no runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.backends._cuda.options import NAME as CUDA
from harness.errors import ConfigError
from harness.options.rows import FRACTION, PATH, SWITCH, TEXT, WHOLE, Kind, Option, OptionGroup, values_of
from harness.specs import ModelSpec, Settings, TimingPlan, batches_of_engine

NAME = "trt"
LIBRARY_FLAG = "--trt-plugin"
BATCH_FLAG = "--calibration-batch"
MIB = 2**20
LARGEST_BYTES = 2**63  # TensorRT counts bytes in 64 bits
LARGEST_BATCH = 2**31 - 1  # and TensorRT 8.6 dimensions in 32
OPTIMIZATION_LEVELS = tuple(range(6))  # of the builder; it takes a higher one for the highest

Profile = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrtOptions:
    """Options of the TensorRT builder; None leaves the library's own default."""

    tf32: bool = False  # of the group that all CUDA backends share
    workspace_bytes: int | None = None
    optimization_level: int | None = None  # one of OPTIMIZATION_LEVELS
    tactic_sources: tuple[str, ...] | None = None  # members of trt.TacticSource, e.g. ("EDGE_MASK_CONVOLUTIONS",)
    int8_only: bool = False  # INT8 without the FP16 flag, and convolutions held to INT8
    version_compatible: bool = False
    hardware_compatible: bool = False
    profiles: tuple[Profile, ...] = ()  # (min, opt, max) batch of each profile; () = one a batch size
    plugins: tuple[str, ...] = ()  # shared libraries to load before parsing
    ranges_file: str | None = None  # per-tensor dynamic ranges for the recipe trt-ranges (JSON: tensor -> amax)
    quantile: float | None = None  # recipe trt-legacy
    cutoff: float | None = None  # recipe trt-legacy
    calibration_batch: int | None = None  # [images]; recipes that calibrate

    def __post_init__(self) -> None:
        workspace, level = self.workspace_bytes, self.optimization_level
        if workspace is not None and not 0 <= workspace < LARGEST_BYTES:
            raise ConfigError(
                f"--trt-workspace={workspace // MIB}: expected 0 MiB or more, less than {LARGEST_BYTES // MIB}"
            )
        if level is not None and level not in OPTIMIZATION_LEVELS:
            raise ConfigError(f"--trt-optimization-level={level}: expected 0 to {OPTIMIZATION_LEVELS[-1]}")
        for low, best, high in self.profiles:
            if not 1 <= low <= best <= high <= LARGEST_BATCH:
                raise ConfigError(
                    f"--trt-profile={low}:{best}:{high}: expected 1 <= MIN <= OPT <= MAX <= {LARGEST_BATCH}"
                )
        if self.quantile is not None and not 0 < self.quantile <= 1:
            raise ConfigError(f"--trt-quantile={self.quantile}: expected a fraction above 0, at most 1")
        if self.calibration_batch is not None and not 1 <= self.calibration_batch <= LARGEST_BATCH:
            raise ConfigError(f"{BATCH_FLAG}={self.calibration_batch}: expected 1 to {LARGEST_BATCH}")
        if self.cutoff is not None and not 0 <= self.cutoff <= 1:
            raise ConfigError(f"--trt-cutoff={self.cutoff}: expected a fraction from 0 to 1")

    @classmethod
    def of(cls, settings: Settings) -> TrtOptions:
        """Return the options of a run's settings. Raises: ConfigError."""
        return values_of(cls, settings, CUDA, NAME)


def check(settings: Settings, models: Sequence[ModelSpec], timing: TimingPlan, score_batch: int) -> None:
    """Refuse files that are not there, and batches that no profile takes. Raises: ConfigError."""
    trt = TrtOptions.of(settings)
    files = [(LIBRARY_FLAG, path) for path in trt.plugins]
    files += [("--trt-ranges", trt.ranges_file)] if trt.ranges_file is not None else []
    for flag, path in files:
        if not Path(path).is_file():
            raise ConfigError(f"{flag}={path}: there is no such file")
    for model in models if trt.profiles else ():
        for batch in batches_of_engine(model, timing, score_batch):
            if not any(low <= batch <= high for low, _, high in trt.profiles):
                known = ", ".join(map(text_of_profile, trt.profiles))
                source = "--batch-size" if batch in timing.batch_sizes else "--score-batch"
                raise ConfigError(
                    f"batch {batch} of {model.name} lies in no --trt-profile ({known}); add one that takes it, or "
                    f"change {'the model' if model.max_batch else source}"
                )


def profile_of_text(text: str) -> Profile:
    """Return (1, 4, 8) for `1:4:8`. Raises: ValueError."""
    parts = text.split(":")
    if not all(part.isdecimal() for part in parts):
        raise ValueError(text)
    low, best, high = map(int, parts)
    return low, best, high


def text_of_profile(profile: Profile) -> str:
    """Return `1:4:8` for (1, 4, 8)."""
    return ":".join(map(str, profile))


MEBIBYTES = Kind(
    name="a whole number",
    metavar="MIB",
    parse=lambda text: int(text) * MIB,
    text=lambda n_bytes: str(n_bytes // MIB),
    toml=(int,),
)
PROFILE = Kind(
    name="MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX",
    metavar="MIN:OPT:MAX",
    parse=profile_of_text,
    text=text_of_profile,
)
_row = partial(Option, section="TensorRT", group=NAME)
ROWS = (
    _row(
        flag="--trt-workspace",
        field="workspace_bytes",
        kind=MEBIBYTES,
        help="workspace limit",
        unit="MiB",
        default="the library's",
    ),
    _row(
        flag="--trt-optimization-level",
        field="optimization_level",
        kind=WHOLE,
        metavar=f"0..{OPTIMIZATION_LEVELS[-1]}",
        help="builder optimization level",
        default="the library's",
    ),
    _row(
        flag="--trt-tactic-sources",
        field="tactic_sources",
        kind=TEXT,
        metavar="NAMES",
        help="tactic sources, e.g. EDGE_MASK_CONVOLUTIONS,JIT_CONVOLUTIONS",
        default="the library's",
        listed=True,
    ),
    _row(
        flag="--trt-int8-only",
        field="int8_only",
        kind=SWITCH,
        help="build INT8 without the FP16 flag; recipes that quantize in TensorRT hold convolutions to INT8",
    ),
    _row(
        flag="--trt-version-compatible",
        field="version_compatible",
        kind=SWITCH,
        help="build engines that later minor versions load",
    ),
    _row(
        flag="--trt-hardware-compatible",
        field="hardware_compatible",
        kind=SWITCH,
        help="build engines for Ampere and newer",
    ),
    _row(
        flag="--trt-profile",
        field="profiles",
        kind=PROFILE,
        help="optimization profile by batch size",
        unit="images",
        default="one a batch size, tuned for it",
        repeated=True,
    ),
    _row(
        flag=LIBRARY_FLAG,
        field="plugins",
        kind=PATH,
        metavar="LIB.so",
        help="plug-in library to load",
        default="none",
        repeated=True,
    ),
    _row(
        flag="--trt-ranges",
        field="ranges_file",
        kind=PATH,
        metavar="FILE",
        help="calibration table, or JSON of tensor name to dynamic range, for the recipe trt-ranges",
        default="none",
    ),
    _row(
        flag="--trt-quantile",
        field="quantile",
        kind=FRACTION,
        help="quantile of the recipe trt-legacy",
        default="0.999999, sampleINT8's",
    ),
    _row(
        flag="--trt-cutoff",
        field="cutoff",
        kind=FRACTION,
        help="cutoff of the recipe trt-legacy",
        default="1.0, sampleINT8's",
    ),
    _row(
        flag=BATCH_FLAG,
        field="calibration_batch",
        kind=WHOLE,
        help="batch that calibration inside TensorRT is fed with",
        unit="images",
        default="the largest divisor of their number up to 128",
    ),
)
GROUP = OptionGroup(name=NAME, rows=ROWS, read=TrtOptions.of, check=check)

"""The options of a run, frozen. Nothing here knows what is typed; every field but a few has one row in `table`.

Defaults stand here, in `specs` and in the backends' own values, once; help texts read them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.errors import ConfigError
from harness.options.groups import backend_groups
from harness.options.names import check_name
from harness.specs import (
    DEFAULT_PRECISIONS,
    DatasetRequest,
    InputsAsked,
    ModelSpec,
    Precision,
    StageLimits,
    TimingPlan,
)

NAMED = ("data.name", "timing.batch_sizes")  # to be given means more than their values
BASELINE_MODES = ("auto", "require", "ignore")
TYPED_TOLERANCES = (
    "floor",
    "max_drop",
    "max_drift",
    "max_slowdown",
    "max_build_slowdown",
    "max_engine_growth",
    "max_memory_growth",
    "alpha",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HarnessOptions:
    """What the user asked of a run."""

    backends: tuple[str, ...] = ("auto",)
    precisions: tuple[Precision, ...] = DEFAULT_PRECISIONS
    extension_dirs: tuple[str, ...] = ()  # folders with backends of the user's own
    recipes: tuple[str, ...] = ()  # () = the default one of each precision
    models: tuple[str, ...] = ()  # names or paths; () = every bundled classifier
    engines: tuple[str, ...] = ()  # engines that were built before, each with a card beside it
    input_scale: float | None = None  # of a model without a card
    num_classes: int | None = None
    label_offset: int | None = None
    inputs: InputsAsked = field(default_factory=InputsAsked)  # of models of any graph
    data: DatasetRequest = field(default_factory=DatasetRequest)
    named: frozenset[str] = frozenset()  # of NAMED: fields that were given, if only their default
    timing: TimingPlan = field(default_factory=TimingPlan)
    device: str = "auto"
    num_threads: int = 1
    report_dir: str = "reports"
    report_url: str = ""  # of the page, for whoever reads report.md elsewhere
    engine_cache: str = ""  # "" = the user's cache folder
    rebuild: bool = False
    keep_float: tuple[str, ...] = ()  # regular expressions of the names of nodes that are not converted
    shard: int | None = None  # the one of a plan that is run
    shard_plan: str = "shards.json"
    shard_attempt: int = 1
    resume: str = ""  # an unfinished run: its name, or its folder
    strict: bool = False
    allow_chance: bool = False
    require_precision: bool = False
    baseline: str = "auto"
    baseline_dir: str = "suites/baselines"
    update_baselines: bool = False
    accept_regressions: bool = False
    root: str = "."  # where harness.toml or pyproject.toml lies
    score_batch: int = 100  # images per batch when scoring
    max_drop: float | None = None
    max_slowdown: float | None = None
    max_drift: float | None = None
    max_build_slowdown: float | None = None
    max_engine_growth: float | None = None
    max_memory_growth: float | None = None
    alpha: float | None = None
    floor: float | None = None
    timeout_s: float | None = None  # longest silence of a worker [s]; None = as `specs.STAGE_LIMITS_S` says
    stage_timeouts: tuple[tuple[str, float], ...] = ()  # (stage, longest silence [s])
    worker_python: str = sys.executable
    control_python: str = ""  # runs accepted engines where the runtime's version has changed since
    settings: dict[str, dict[str, object]] = field(default_factory=dict)  # of the groups with rows; only what differs
    backend_options: tuple[tuple[str, str, str], ...] = ()  # (backend, name, value) of backends without rows
    set_in_file: frozenset[str] = field(default=frozenset(), compare=False)  # flags that harness.toml sets
    taken_flags: frozenset[str] = field(default=frozenset(), compare=False)  # names that another plugin holds

    def __post_init__(self) -> None:
        if not self.backends or not self.precisions:
            raise ConfigError("--backend and --precision each need at least one name")
        if "auto" in self.backends and len(self.backends) > 1:
            raise ConfigError("--backend=auto means every usable backend; name it alone, or name the backends")
        if self.baseline not in BASELINE_MODES:
            raise ConfigError(f"--baseline={self.baseline}: choose from {', '.join(BASELINE_MODES)}")
        if self.writes_baselines and self.baseline == "require":
            raise ConfigError("--baseline=require demands that baselines are there; no run writes them beside that")
        if self.shard is not None and (self.shard < 0 or self.shard_attempt < 1):
            raise ConfigError("--shard counts from 0 and --shard-attempt from 1")
        if self.num_threads < 1:
            raise ConfigError("--threads must be greater than 0")
        StageLimits(all_s=self.timeout_s, by_stage=self.stage_timeouts)
        groups = backend_groups()
        for name in self.settings:
            check_name(name, groups, where="settings")
            groups[name].read(self.settings)
        for backend, name, value in self.backend_options:
            if backend in groups:
                flags = ", ".join(row.flag for row in groups[backend].rows)
                raise ConfigError(f"--backend-option={backend}.{name}={value}: use an option of its own: {flags}")

    @property
    def has_data(self) -> bool:
        """Tell whether a data set was named, and not left to the default."""
        return "data.name" in self.named

    @property
    def limits(self) -> StageLimits:
        """Return how long workers may be silent."""
        return StageLimits(all_s=self.timeout_s, by_stage=self.stage_timeouts)

    @property
    def writes_baselines(self) -> bool:
        """Tell whether baselines are to be written at the end of the run."""
        return self.update_baselines or self.accept_regressions

    @property
    def tolerances(self) -> dict[str, float]:
        """Return the tolerances that were typed, by their names in `Tolerance`."""
        typed = {name: getattr(self, name) for name in TYPED_TOLERANCES}
        return {name: value for name, value in typed.items() if value is not None}

    @property
    def build_settings(self) -> dict[str, dict[str, object]]:
        """Return all that only some backends know, as `BuildOptions.settings`."""
        settings = {group: dict(values) for group, values in self.settings.items()}
        for backend, name, value in self.backend_options:
            settings.setdefault(backend, {})[name] = value
        return settings

    def check_settings(self, models: Sequence[ModelSpec]) -> None:
        """Check what backends can tell of their options before a run of some models. Raises: ConfigError."""
        for name in self.settings:
            backend_groups()[name].check(self.settings, models, self.timing, self.score_batch)


def data_request(
    *,
    name: str = DatasetRequest().name,
    data_dir: str | None = None,
    split: str = DatasetRequest().split,
    score_first: int = 0,
    score_images: int = DatasetRequest().score_images,
    calibration_name: str | None = None,
    calibration_images: int = DatasetRequest().calibration_images,
    calibration_first: int | None = None,
    calibration_split: str = DatasetRequest().calibration_split,
) -> DatasetRequest:
    """Choose calibration images that were not asked for by name: never one that is scored.

    They come from the calibration split's start; where that is scored, from after the scored images.
    """
    first = calibration_first
    if first is None:
        is_same = (calibration_name or name, calibration_split) == (name, split)
        meets = is_same and score_first < calibration_images
        first = score_first + score_images if meets else 0
    return DatasetRequest(
        name=name,
        data_dir=data_dir,
        split=split,
        score_first=score_first,
        score_images=score_images,
        calibration_name=calibration_name,
        calibration_split=calibration_split,
        calibration_first=first,
        calibration_images=calibration_images,
    )

"""The options of a run, frozen: `plugin` makes one from pytest's, nothing below it sees pytest. Layer 0.

Defaults stand here, once; help texts read them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from harness.errors import ConfigError
from harness.specs import DEFAULT_PRECISIONS, DatasetRequest, Precision, TimingPlan, TrtOptions

BASELINE_MODES = ("auto", "require", "ignore")


@dataclass(frozen=True, slots=True, kw_only=True)
class HarnessOptions:
    """What the user asked of a run."""

    backends: tuple[str, ...] = ("auto",)
    precisions: tuple[Precision, ...] = DEFAULT_PRECISIONS
    backend_dirs: tuple[str, ...] = ()  # folders with further backends, one file each
    recipes: tuple[str, ...] = ()  # () = the default one of each precision
    models: tuple[str, ...] = ()  # names or paths; () = every bundled classifier
    input_scale: float | None = None  # of a model without a card
    num_classes: int | None = None
    label_offset: int | None = None
    data: DatasetRequest = field(default_factory=DatasetRequest)
    timing: TimingPlan = field(default_factory=TimingPlan)
    device: str = "auto"
    num_threads: int = 1
    report_dir: str = "reports"
    engine_cache: str = ""  # "" = the user's cache folder
    rebuild: bool = False
    strict: bool = False
    baseline: str = "auto"
    baseline_dir: str = "suites/baselines"
    update_baselines: bool = False
    root: str = "."  # where harness.toml or pyproject.toml lies
    score_batch: int = 100  # images per batch when scoring
    max_drop: float | None = None
    max_slowdown: float | None = None
    alpha: float | None = None
    floor: float | None = None
    timeout_s: float = 600.0
    worker_python: str = sys.executable
    trt: TrtOptions = field(default_factory=TrtOptions)

    def __post_init__(self) -> None:
        if not self.backends or not self.precisions:
            raise ConfigError("--backend and --precision each need at least one name")
        if "auto" in self.backends and len(self.backends) > 1:
            raise ConfigError("--backend=auto means every usable backend; name it alone, or name the backends")
        if self.baseline not in BASELINE_MODES:
            raise ConfigError(f"--baseline={self.baseline}: choose from {', '.join(BASELINE_MODES)}")
        if self.update_baselines and self.baseline == "require":
            raise ConfigError("--update-baselines writes what --baseline=require demands to be there; choose one")
        if self.timeout_s <= 0 or self.num_threads < 1:
            raise ConfigError("--worker-timeout and --threads must be greater than 0")


def data_request(
    *,
    name: str,
    data_dir: str | None,
    split: str,
    score_first: int,
    score_images: int,
    calibration_images: int,
    calibration_first: int | None,
    calibration_split: str | None,
) -> DatasetRequest:
    """Choose calibration images that were not asked for by name: never one that is scored.

    They come from the train split's start; where that is scored, from after the scored images.
    """
    chosen_split = calibration_split or "train"
    first = calibration_first
    if first is None:
        meets = chosen_split == split and score_first < calibration_images
        first = score_first + score_images if meets else 0
    return DatasetRequest(
        name=name,
        data_dir=data_dir,
        split=split,
        score_first=score_first,
        score_images=score_images,
        calibration_split=chosen_split,
        calibration_first=first,
        calibration_images=calibration_images,
    )

"""Options of a run -> what a user would type to repeat it, or one case of it."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path

from harness.options.values import HarnessOptions
from harness.specs import DEFAULT_RECIPES, MIB, Case, DatasetRequest, Precision, TimingPlan, TrtOptions

FLAGS = {  # field of the options -> what a user types
    "name": "--dataset",
    "data_dir": "--data-dir",
    "split": "--split",
    "score_first": "--score-from",
    "score_images": "--score-images",
    "calibration_images": "--calibration-images",
    "calibration_first": "--calibration-from",
    "calibration_split": "--calibration-split",
    "batch_sizes": "--batch-size",
    "window": "--timing-window",
    "launch": "--timing-launch",
    "n_rounds": "--timing-rounds",
    "score_batch": "--score-batch",
    "input_scale": "--input-scale",
    "num_classes": "--num-classes",
    "label_offset": "--label-offset",
    "device": "--device",
    "num_threads": "--threads",
    "worker_python": "--worker-python",
    "floor": "--floor",
    "max_drop": "--max-drop",
    "max_slowdown": "--max-slowdown",
    "alpha": "--alpha",
    "tf32": "--trt-tf32",
    "optimization_level": "--trt-optimization-level",
    "tactic_sources": "--trt-tactic-sources",
    "version_compatible": "--trt-version-compatible",
    "hardware_compatible": "--trt-hardware-compatible",
    "ranges_file": "--trt-ranges",
    "quantile": "--trt-quantile",
    "cutoff": "--trt-cutoff",
}


def changed_options(options: HarnessOptions) -> dict[str, str]:
    """Return the options that differ from their defaults, as text."""
    changed = {}
    parts = (
        (options, HarnessOptions()),
        (options.data, DatasetRequest()),
        (options.timing, TimingPlan()),
        (options.trt, TrtOptions()),
    )
    for part, default in parts:
        for field in fields(part):
            value = getattr(part, field.name)
            if value != getattr(default, field.name) and field.name not in ("data", "timing", "trt", "root"):
                changed[field.name] = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return changed


def changed_selection(options: HarnessOptions) -> bool:
    """Tell whether fewer cases were asked for than there are."""
    default = HarnessOptions()
    names = ("backends", "precisions", "recipes", "models")
    return any(getattr(options, name) != getattr(default, name) for name in names)


def command_of(case: Case, options: HarnessOptions) -> str:
    """Return the command that repeats one case alone."""
    asked = next((name for name in options.models if Path(name).stem == case.model), case.model)
    words = ["pytest", "suites/", f"--backend={case.backend}", f"--precision={case.precision.value}"]
    words.append(f"--model={asked}")
    if case.precision is Precision.INT8 or case.recipe != DEFAULT_RECIPES[case.precision.value]:
        words.append(f"--recipe={case.recipe}")
    changed = changed_options(options)
    for name, flag in FLAGS.items():
        if name in changed:
            words += [flag] if changed[name] == "True" else [f"{flag}={changed[name]}"]
    if options.trt.workspace_bytes is not None:
        words.append(f"--trt-workspace={options.trt.workspace_bytes // MIB}")
    words += [f"--backend-dir={folder}" for folder in options.backend_dirs]
    words += [f"--trt-profile={low}:{best}:{high}" for low, best, high in options.trt.profiles]
    words += [f"--trt-plugin={library}" for library in options.trt.plugins]
    return shlex.join(words)

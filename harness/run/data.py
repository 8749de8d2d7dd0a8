"""The images of a run, looked at before any engine is built."""

from __future__ import annotations

from dataclasses import replace

from harness.datasets import check_range, open_dataset
from harness.errors import ConfigError
from harness.options.values import HarnessOptions
from harness.protocols import Progress
from harness.specs import Precision


def check_data(options: HarnessOptions, progress: Progress) -> None:
    """Open the images once before any engine is built, downloading them if they must be.

    Raises: DataError for a data set that is missing, damaged or too small; ConfigError for calibration images that
    would also be scored, whatever name either was asked for by.
    """
    data = options.data
    scored = open_dataset(data.name, split=data.split, data_dir=data.data_dir, progress=progress)
    check_range(data.scored.first, data.scored.stop, name=scored.name, split=scored.split, n_images=scored.n_images)
    if Precision.INT8 not in options.precisions:
        return
    found = open_dataset(data.name, split=data.calibration_split, data_dir=data.data_dir, progress=progress)
    wanted = data.calibration
    check_range(wanted.first, wanted.stop, name=found.name, split=found.split, n_images=found.n_images)
    shared = replace(data.scored, dataset=scored.name, split=scored.split).overlap(
        replace(wanted, dataset=found.name, split=found.split)
    )
    if shared:
        raise ConfigError(
            f"{shared} calibration images of {found.name}/{found.split} would also be scored; move one with "
            "--score-from or --calibration-from"
        )

"""Options of OpenCV. Imports no runtime."""

from __future__ import annotations

from dataclasses import dataclass

from harness.options.rows import TEXT, Option, OptionGroup, values_of
from harness.specs import Settings

NAME = "opencv"
AUTO, CLASSIC, NEW = "auto", "classic", "new"
ENGINES = (AUTO, CLASSIC, NEW)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpencvOptions:
    """Options of OpenCV's DNN module."""

    engine: str = AUTO

    @classmethod
    def of(cls, settings: Settings) -> OpencvOptions:
        """Return the options of a run's settings. Raises: ConfigError."""
        return values_of(cls, settings, NAME)


ROWS = (
    Option(
        flag="--opencv-engine",
        field="engine",
        kind=TEXT,
        choices=ENGINES,
        help="graph engine of OpenCV 5",
        default="auto: new for FP16 files, and where classic gives outputs of another shape; else classic",
        section="OpenCV",
        group=NAME,
    ),
)
GROUP = OptionGroup(name=NAME, rows=ROWS, read=OpencvOptions.of)

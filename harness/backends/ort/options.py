"""Options of ONNX Runtime. Imports no runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.errors import ConfigError
from harness.options.rows import PATH, Option, OptionGroup, values_of
from harness.specs import ModelSpec, Settings, TimingPlan

NAME = "ort"
LIBRARY_FLAG = "--ort-custom-ops"


@dataclass(frozen=True, slots=True, kw_only=True)
class OrtOptions:
    """Options of ONNX Runtime, whatever provider runs."""

    custom_ops: tuple[str, ...] = ()  # libraries of operators

    @classmethod
    def of(cls, settings: Settings) -> OrtOptions:
        """Return the options of a run's settings. Raises: ConfigError."""
        return values_of(cls, settings, NAME)


def check(settings: Settings, models: Sequence[ModelSpec], timing: TimingPlan, score_batch: int) -> None:
    """Check what only a run can be wrong about: a library that is not there. Raises: ConfigError."""
    del models, timing, score_batch
    for library in OrtOptions.of(settings).custom_ops:
        if not Path(library).is_file():
            raise ConfigError(f"{LIBRARY_FLAG}={library}: no such file")


_row = partial(Option, section="ONNX Runtime", group=NAME)
ROWS = (
    _row(
        flag=LIBRARY_FLAG,
        field="custom_ops",
        kind=PATH,
        metavar="LIB",
        help="library with operators of your own, for every ONNX Runtime provider",
        default="none",
        repeated=True,
        place="absolute",
    ),
)
GROUP = OptionGroup(name=NAME, rows=ROWS, read=OrtOptions.of, check=check)

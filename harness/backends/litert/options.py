"""Options of LiteRT. Imports no runtime."""

from __future__ import annotations

from dataclasses import dataclass

from harness.options.rows import SWITCH, Option, OptionGroup, values_of
from harness.specs import Settings

NAME = "litert"


@dataclass(frozen=True, slots=True, kw_only=True)
class LitertOptions:
    """Options of LiteRT."""

    reference_kernels: bool = False

    @classmethod
    def of(cls, settings: Settings) -> LitertOptions:
        """Return the options of a run's settings. Raises: ConfigError."""
        return values_of(cls, settings, NAME)


ROWS = (
    Option(
        flag="--litert-reference-kernels",
        field="reference_kernels",
        kind=SWITCH,
        help="run without XNNPACK: a loss that stays is not its kernels'",
        section="LiteRT",
        group=NAME,
    ),
)
GROUP = OptionGroup(name=NAME, rows=ROWS, read=LitertOptions.of)

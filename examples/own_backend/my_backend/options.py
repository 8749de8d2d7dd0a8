"""Options of the backend. Imports no runtime: pytest reads them in every session."""

from dataclasses import dataclass

from harness.errors import ConfigError
from harness.options.rows import WHOLE, Option, OptionGroup, values_of

NAME = "my-backend"


@dataclass(frozen=True, slots=True, kw_only=True)
class MyOptions:
    """What a user may say of the backend."""

    bits: int = 23  # of the mantissa that an output keeps

    def __post_init__(self):
        if not 1 <= self.bits <= 23:
            raise ConfigError(f"--my-bits={self.bits}: expected 1 to 23")

    @classmethod
    def of(cls, settings):
        """Return the options of a run's settings."""
        return values_of(cls, settings, NAME)


GROUP = OptionGroup(
    name=NAME,
    rows=(
        Option(
            flag="--my-bits",
            field="bits",
            kind=WHOLE,
            help="bits of the mantissa that an output keeps",
            unit="bits",
            section="My backend",
            group=NAME,
        ),
    ),
    read=MyOptions.of,
)

"""Options of TensorFlow. Imports no runtime."""

from __future__ import annotations

from dataclasses import dataclass

from harness.options.rows import TEXT, Option, OptionGroup, values_of
from harness.specs import Settings

NAME = "tensorflow"
GRAPH, XLA = "graph", "xla"
MODES = (GRAPH, XLA)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorflowOptions:
    """Options of TensorFlow."""

    mode: str = GRAPH

    @classmethod
    def of(cls, settings: Settings) -> TensorflowOptions:
        """Return the options of a run's settings. Raises: ConfigError."""
        return values_of(cls, settings, NAME)


ROWS = (
    Option(
        flag="--tensorflow-mode",
        field="mode",
        kind=TEXT,
        choices=MODES,
        help="how TensorFlow runs a function: as a graph, or compiled by XLA",
        section="TensorFlow",
        group=NAME,
    ),
)
GROUP = OptionGroup(name=NAME, rows=ROWS, read=TensorflowOptions.of)

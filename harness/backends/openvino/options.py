"""Options of OpenVINO. Imports no runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.errors import ConfigError
from harness.options.rows import PATH, TEXT, WHOLE, Option, OptionGroup, values_of
from harness.specs import ModelSpec, Settings, TimingPlan

NAME = "openvino"
LIBRARY_FLAG = "--openvino-extension"
HINTS = ("latency", "throughput")
DEFAULT, ON, OFF = "default", "on", "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenvinoOptions:
    """Options of OpenVINO's plug-ins."""

    hint: str = HINTS[0]
    streams: int = 1
    pinning: str = DEFAULT
    snippets: str = DEFAULT
    extensions: tuple[str, ...] = ()  # libraries of operators

    def __post_init__(self) -> None:
        if self.streams < 1:
            raise ConfigError(f"--openvino-streams={self.streams}: expected 1 or more")

    @classmethod
    def of(cls, settings: Settings) -> OpenvinoOptions:
        """Return the options of a run's settings. Raises: ConfigError."""
        return values_of(cls, settings, NAME)

    def of_cpu(self) -> dict[str, object]:
        """Return what only the CPU plug-in takes."""
        pinning = {} if self.pinning == DEFAULT else {"ENABLE_CPU_PINNING": self.pinning == ON}
        snippets = {} if self.snippets == DEFAULT else {"SNIPPETS_MODE": "DISABLE"}
        return {"NUM_STREAMS": self.streams, **pinning, **snippets}


_row = partial(Option, section="OpenVINO", group=NAME)
ROWS = (
    _row(flag="--openvino-hint", field="hint", kind=TEXT, choices=HINTS, help="what the plug-in is tuned for"),
    _row(flag="--openvino-streams", field="streams", kind=WHOLE, help="inference streams of the CPU plug-in"),
    _row(
        flag="--openvino-pinning",
        field="pinning",
        kind=TEXT,
        choices=(DEFAULT, ON, OFF),
        help="bind threads to cores",
        default="the library's",
    ),
    _row(
        flag="--openvino-snippets",
        field="snippets",
        kind=TEXT,
        choices=(DEFAULT, OFF),
        help="whether the CPU plug-in fuses operators into subgraphs that it generates code for",
        default="the library's",
    ),
    _row(
        flag=LIBRARY_FLAG,
        field="extensions",
        kind=PATH,
        metavar="LIB",
        help="library with operators of your own",
        default="none",
        repeated=True,
        place="absolute",
    ),
)


def check(settings: Settings, models: Sequence[ModelSpec], timing: TimingPlan, score_batch: int) -> None:
    """Check what only a run can be wrong about: a library that is not there. Raises: ConfigError."""
    del models, timing, score_batch
    for library in OpenvinoOptions.of(settings).extensions:
        if not Path(library).is_file():
            raise ConfigError(f"{LIBRARY_FLAG}={library}: no such file")


GROUP = OptionGroup(name=NAME, rows=ROWS, read=OpenvinoOptions.of, check=check)

"""Options of PyTorch. Imports no runtime."""

from __future__ import annotations

from dataclasses import dataclass

from harness.options.rows import TEXT, Option, OptionGroup, values_of
from harness.specs import Settings

NAME = "torch"
EAGER, SCRIPT, COMPILE, AOTI = "eager", "script", "compile", "aoti"
MODES = (EAGER, SCRIPT, COMPILE, AOTI)
COMPILED = (COMPILE, AOTI)  # need a C++ compiler; their kernels are not ATen's


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchOptions:
    """Options of PyTorch."""

    mode: str = EAGER

    @classmethod
    def of(cls, settings: Settings) -> TorchOptions:
        """Return the options of a run's settings. Raises: ConfigError."""
        return values_of(cls, settings, NAME)


ROWS = (
    Option(
        flag="--torch-mode",
        field="mode",
        kind=TEXT,
        choices=MODES,
        help="how PyTorch runs a graph: node by node, as a frozen TorchScript, by torch.compile, or by AOTInductor",
        section="PyTorch",
        group=NAME,
    ),
)
GROUP = OptionGroup(name=NAME, rows=ROWS, read=TorchOptions.of)

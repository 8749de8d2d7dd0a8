"""Options that every CUDA backend reads. Imports no runtime."""

from __future__ import annotations

from dataclasses import dataclass

from harness.options.rows import SWITCH, Option, OptionGroup, values_of
from harness.specs import Settings

NAME = "cuda"


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaOptions:
    """Options of every CUDA backend."""

    tf32: bool = False  # FP32 products and convolutions may round their inputs to TF32

    @classmethod
    def of(cls, settings: Settings) -> CudaOptions:
        """Return the options of a run's settings. Raises: ConfigError."""
        return values_of(cls, settings, NAME)


ROWS = (
    Option(
        flag="--cuda-tf32",
        field="tf32",
        kind=SWITCH,
        help="let FP32 engines of trt, ort-cuda and torch-cuda compute in TF32",
        section="CUDA",
        group=NAME,
    ),
)
GROUP = OptionGroup(name=NAME, rows=ROWS, read=CudaOptions.of)

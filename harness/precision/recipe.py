"""What a recipe file offers: its name, what it needs, and how it converts. No tool is imported here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import ConfigError
from harness.protocols import CalibrationSet
from harness.records import TensorCalibration
from harness.specs import ModelSpec, Precision

QDQ, CAST, NOTHING = "qdq", "cast", "nothing"
WRITES = (QDQ, CAST, NOTHING)
# Families of runtimes that quantize while they build.
EXECUTORCH, LITERT, MNN, NCNN, TENSORRT = "executorch", "litert", "mnn", "ncnn", "tensorrt"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionRequest:
    """What a conversion may use. `work_dir` is its own and goes away afterwards."""

    spec: ModelSpec
    source: Path  # the FP32 ONNX file
    target: Path  # to be written
    work_dir: Path
    weight_bits: int = 8  # 7 = reduced range
    calibration: CalibrationSet | None = None  # checked while it is read
    kept_float: tuple[str, ...] = ()  # nodes of the source that are not converted


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What a conversion has to say beside the file."""

    method: str = ""  # of calibration: minmax, entropy, ...
    batch_size: int = 0  # of calibration [images]
    warnings: tuple[str, ...] = ()
    tensors: tuple[TensorCalibration, ...] = ()  # how each range was chosen, where the recipe can tell


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One way to prepare a model; a file in `harness/precision/` lists its own in RECIPES.

    `convert=None` leaves the FP32 file as it is: precision "none", or a runtime that quantizes while it builds.
    """

    name: str
    precision: Precision
    summary: str
    writes: str  # into the file: QDQ (nodes), CAST (weights of another type) or NOTHING
    convert: Callable[[ConversionRequest], Conversion] | None = None
    tool_versions: Callable[[], Mapping[str, str]] = field(default=dict)
    needs_calibration: bool = False
    weight_bits: int | None = None  # None: as asked; otherwise fixed by the recipe
    required_modules: tuple[str, ...] = ()
    install_hint: str = ""
    quantizes_in: str = ""  # the family of runtimes that quantizes while it builds; "" = the file says all
    revision: int = 1  # raised when the same tools would write another file: old cache entries no longer match

    def __post_init__(self) -> None:
        if self.writes not in WRITES:
            raise ConfigError(f"recipe {self.name} writes {self.writes!r}; expected one of {', '.join(WRITES)}")
        if (self.convert is None) != (self.writes == NOTHING):
            raise ConfigError(f"recipe {self.name} writes {self.writes}: only one that writes something converts")

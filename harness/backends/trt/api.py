"""What one TensorRT module can do, found by looking, never by its version; and its log."""

from __future__ import annotations

import importlib
from typing import Any

from harness.backends._traits import Ability, Traits, takes_files
from harness.errors import BackendUnavailable, ConfigError
from harness.precision.recipe import QDQ, TENSORRT
from harness.specs import BF16_RUNTIME_RECIPE, Precision

MAX_LINE = 300  # characters of a log line worth keeping
MAX_WARNINGS = 5


class TrtApi:
    """One imported `tensorrt` or `tensorrt_rtx` module and its capabilities.

    TensorRT 8.6 is typed by flags; from 10 on the network's own types decide; 11 and TensorRT for RTX know no flags.
    """

    def __init__(self, module: Any) -> None:
        self.trt = module
        self.version: str = module.__version__
        # RTX 1.4 has FP16 and INT8 flags that its builder refuses, so their presence alone says nothing.
        self.is_rtx = hasattr(module, "IRuntimeCache")
        self.has_weak_typing = hasattr(module.BuilderFlag, "FP16") and not self.is_rtx
        self.has_strong_typing = hasattr(module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
        # 8.6 has neither the type nor networks whose own types decide.
        is_typed = self.has_strong_typing or not self.has_weak_typing
        self.has_bf16 = is_typed and hasattr(module.DataType, "BF16")
        self.has_bf16_flag = self.has_weak_typing and hasattr(module.BuilderFlag, "BF16")
        self.has_timing_cache = not self.is_rtx  # RTX: a no-op since 1.2

    def has_calibrator(self, recipe: str) -> bool:
        """Tell whether a `trt-*` recipe can run: weak typing and the class or property it needs."""
        needs = CALIBRATORS.get(recipe)
        if not self.has_weak_typing:
            return False
        if needs is None:
            return hasattr(self.trt.ITensor, "dynamic_range")
        return hasattr(self.trt, needs)

    def is_strong(self, recipe: str) -> bool:
        """Tell whether a network of this recipe is strongly typed; flags and calibrators need weak typing."""
        return self.has_strong_typing and recipe not in (*VENDOR_RECIPES, BF16_RUNTIME_RECIPE)

    def bf16_refusal(self, recipe: str) -> str:
        """Return why a BF16 recipe cannot be built, "" when it can."""
        if recipe == BF16_RUNTIME_RECIPE:
            why = "has no builder flag BF16: the network's own types decide, so use the recipe cast"
            return "" if self.has_bf16_flag else f"TensorRT {self.version} {why}"
        return "" if self.has_bf16 else f"TensorRT {self.version} has no BF16: neither the type nor strong typing"

    def network_flags(self, recipe: str) -> int:
        """Return the creation flags; their bit numbers differ between versions."""
        members = self.trt.NetworkDefinitionCreationFlag
        flags = 0
        if hasattr(members, "EXPLICIT_BATCH") and not self.is_rtx:
            flags |= 1 << int(members.EXPLICIT_BATCH)
        if self.is_strong(recipe):
            flags |= 1 << int(members.STRONGLY_TYPED)
        return flags

    def shares_profiles(self, config: Any) -> bool:
        """Tell whether several contexts may run on one profile of what a builder configuration builds.

        Off in 8.6, where a second context on a profile would crash; on in 10; where the member is gone, always on.
        """
        feature = getattr(getattr(self.trt, "PreviewFeature", None), "PROFILE_SHARING_0806", None)
        return feature is None or bool(config.get_preview_feature(feature))

    def tactic_mask(self, names: tuple[str, ...]) -> int:
        """Return the bit mask of tactic sources. Raises: ConfigError for a name this version lacks."""
        known = self.trt.TacticSource.__members__
        for name in names:
            if name not in known:
                raise ConfigError(
                    f"tactic source {name!r} is unknown to TensorRT {self.version}; it has {', '.join(known)}"
                )
        return sum(1 << int(known[name]) for name in set(names))

    def tactic_names(self, mask: int) -> str:
        """Return the names in a mask of tactic sources, joined by '|'."""
        names = [name for name, member in self.trt.TacticSource.__members__.items() if mask >> int(member) & 1]
        return "|".join(names) or "none"


def load_api(module: str, install_hint: str) -> TrtApi:
    """Import a TensorRT module. Raises: BackendUnavailable with what to install."""
    try:
        return TrtApi(importlib.import_module(module))
    except ImportError as error:
        raise BackendUnavailable(f"{module}: {error}; {install_hint}") from error


LEGACY_RECIPE, SEARCH_RECIPE = "trt-legacy", "trt-search"
CALIBRATORS = {
    "trt-entropy": "IInt8EntropyCalibrator",
    "trt-entropy2": "IInt8EntropyCalibrator2",
    "trt-minmax": "IInt8MinMaxCalibrator",
    LEGACY_RECIPE: "IInt8LegacyCalibrator",
    SEARCH_RECIPE: "IInt8LegacyCalibrator",
}
METHODS = {  # as told to a reader
    "trt-entropy": "entropy",
    "trt-entropy2": "entropy2",
    "trt-minmax": "minmax",
    LEGACY_RECIPE: "legacy",
    SEARCH_RECIPE: "legacy",
}
RANGES_RECIPE = "trt-ranges"
VENDOR_RECIPES = (*CALIBRATORS, RANGES_RECIPE)


def traits_of(backend: str, module: str) -> Traits:
    """Return what a TensorRT of some module can do."""
    floats = {Precision.FP32: "FP32, TF32 when asked", Precision.FP16: "FP16", Precision.BF16: "BF16"}
    calibrated = Ability(runs="8-bit kernels on Q/DQ, or calibrated by itself", takes=(QDQ, TENSORRT))
    return Traits(
        runtime=f"TensorRT ({module})",
        extra=backend,
        device="cuda:0, ...",
        batch="of the profiles",
        layers="names, types, tactics, times",
        abilities={**takes_files(floats), Precision.INT8: calibrated},
    )


class LogLines:
    """What TensorRT logged: every error, and each warning once."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []

    def take(self, is_error: bool, text: str) -> None:
        """Keep a line."""
        line = " ".join(text.split())[:MAX_LINE]
        if is_error:
            self.errors.append(line)
        elif line not in self.warnings:
            self.warnings.append(line)

    def reason(self, since: int = 0) -> str:
        """Return the first error in words since a count of errors; what follows it is usually noise.

        8.6 logs a bare "1:" before it says that device memory is full.
        """
        fresh = self.errors[since:]
        in_words = [line for line in fresh if any(letter.isalpha() for letter in line)]
        return (in_words or fresh or ["TensorRT logged no error"])[0]

    def notes(self) -> tuple[str, ...]:
        """Return the warnings as notes, the first few of them."""
        more = len(self.warnings) - MAX_WARNINGS
        shown = tuple(f"TensorRT warns: {line}" for line in self.warnings[:MAX_WARNINGS])
        return (*shown, f"TensorRT gave {more} more warnings") if more > 0 else shown


def make_logger(module: Any, lines: LogLines) -> Any:
    """Return a TensorRT logger that fills `lines`; exceptions in its callback would be swallowed, so it raises none."""

    class Logger(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(module.ILogger.Severity.WARNING):
                lines.take(int(severity) <= int(module.ILogger.Severity.ERROR), message)

    return Logger()

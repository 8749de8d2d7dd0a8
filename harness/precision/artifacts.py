"""A model in one precision: converted by a recipe, or taken from the content cache."""

from __future__ import annotations

import importlib.util
import time

from harness.errors import BackendUnavailable, ConfigError, Unsupported
from harness.precision.catalog import find_recipe
from harness.precision.converting import ENTRY_REVISION, NOTES, calibration_note, converted_entry, warnings_of
from harness.precision.keeping import can_keep
from harness.precision.recipe import Recipe
from harness.precision.source import Source, check_own_operators, open_source
from harness.protocols import CalibrationSet
from harness.records import Artifact
from harness.specs import GIVEN_RECIPE, ImageRange, ModelSpec, Precision
from harness.store.cache import ContentCache, Entry

FP32_BITS = 32


def prepare_artifact(
    spec: ModelSpec,
    precision: Precision,
    recipe: str,
    *,
    calibration: CalibrationSet | None,
    cache_dir: str,
    weight_bits: int = 8,
    rebuild: bool = False,
    calibration_range: ImageRange | None = None,
    keep_float: tuple[str, ...] = (),
) -> Artifact:
    """Prepare a model in one precision, or take it from the content cache.

    `weight_bits=7` keeps 8-bit kernels from saturating on CPUs without VNNI; `keep_float`: regular expressions of the
    names of nodes that are not converted.
    Raises: ConfigError for an unknown recipe, DataError for a bad model file, bad calibration images, or a pattern
    that matches no node, BackendUnavailable when the recipe's tool is not installed, BuildError when the conversion
    fails, Unsupported for OpenVINO IR where the recipe converts, and a model without anything to convert.
    """
    chosen = find_recipe(precision, recipe)
    if spec.is_quantized != (recipe == GIVEN_RECIPE):
        kind = "quantized already" if spec.is_quantized else "not quantized"
        raise ConfigError(f"model {spec.name}: recipe {recipe} is not for a file that is {kind}")
    started = time.perf_counter_ns()
    source = open_source(spec, chosen, keep_float, cache_dir=cache_dir)
    if chosen.convert is None:
        return _unchanged(source, chosen, prepare_ns=time.perf_counter_ns() - started)
    spec = source.spec
    _check_convertible(chosen, spec)
    if chosen.needs_calibration and calibration is None:
        raise ConfigError(f"model {spec.name}: recipe {recipe} needs calibration images; none were given")
    bits = chosen.weight_bits or weight_bits
    tools = dict(chosen.tool_versions())
    used = calibration if chosen.needs_calibration else None
    key = _cache_key(chosen, source, tools=tools, bits=bits, calibrated_by=used.fingerprint if used else "")
    made = _made(chosen, spec, bits, used, kept=source.kept_float, key=key, cache_dir=cache_dir, rebuild=rebuild)
    entry, cache_hit = made
    return Artifact(
        model=spec.name,
        precision=precision,
        recipe=recipe,
        onnx_path=entry.path,
        sha256=entry.sha256,
        source_sha256=source.given_sha256,
        output_kind=spec.output_kind,
        exported=source.exported,
        tools=tools,
        weight_bits=bits,
        kept_float=source.kept_float,
        can_keep_float=can_keep(chosen),
        calibration=calibration_note(used, calibration_range, entry),
        cache_hit=cache_hit,
        prepare_ns=time.perf_counter_ns() - started,
        warnings=warnings_of(entry),
    )


def _unchanged(source: Source, recipe: Recipe, *, prepare_ns: int) -> Artifact:
    return Artifact(
        model=source.spec.name,
        precision=recipe.precision,
        recipe=recipe.name,
        onnx_path=source.spec.onnx_path,
        sha256=source.sha256,
        source_sha256=source.given_sha256,
        output_kind=source.spec.output_kind,
        exported=source.exported,
        weight_bits=FP32_BITS,
        kept_float=source.kept_float,
        can_keep_float=can_keep(recipe),
        prepare_ns=prepare_ns,
    )


def _cache_key(
    recipe: Recipe, source: Source, *, tools: dict[str, str], bits: int, calibrated_by: str
) -> dict[str, object]:
    spec = source.spec
    return {
        **({"kept_float": list(source.kept_float)} if source.kept_float else {}),
        "entry": ENTRY_REVISION,
        "source": source.sha256,
        "recipe": recipe.name,
        "revision": recipe.revision,
        "weight_bits": bits,
        "fixed_batch": spec.max_batch or 0,
        "tools": tools,
        "calibration": calibrated_by,
        # The same pixels scaled by another card are other calibration images.
        "preprocessing": [spec.layout, spec.scale, list(spec.mean), list(spec.std)] if calibrated_by else [],
    }


def _made(
    recipe: Recipe,
    spec: ModelSpec,
    weight_bits: int,
    calibration: CalibrationSet | None,
    *,
    kept: tuple[str, ...],
    key: dict[str, object],
    cache_dir: str,
    rebuild: bool,
) -> tuple[Entry, bool]:
    """Return the entry of a converted file and whether it was there; two runs at once convert it once."""
    cache = ContentCache(cache_dir, kind="artifacts")
    with cache.building(key):
        entry = None if rebuild else cache.lookup(key, needs=NOTES).entry
        if entry is not None:
            return entry, True
        return converted_entry(recipe, spec, weight_bits, calibration, kept=kept, cache=cache, key=key), False


def _check_convertible(recipe: Recipe, spec: ModelSpec) -> None:
    if not spec.is_onnx:
        raise Unsupported(f"model {spec.name} is OpenVINO IR, which recipe {recipe.name} cannot convert")
    check_own_operators(spec, recipe.name)
    missing = [name for name in recipe.required_modules if importlib.util.find_spec(name) is None]
    if missing:
        raise BackendUnavailable(f"recipe {recipe.name} needs {', '.join(missing)}; {recipe.install_hint}")

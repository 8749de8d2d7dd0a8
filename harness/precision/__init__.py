"""Model -> artifact in one precision. One file per family of recipes; a file joins by listing RECIPES."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from difflib import get_close_matches
from pathlib import Path

from harness.discovery import Room
from harness.errors import BackendUnavailable, BuildError, ConfigError
from harness.models.onnx_graph import check_model, check_scales, load_model, model_digest
from harness.precision import recipes
from harness.precision.calibration import CheckedCalibration, check_calibration
from harness.precision.recipe import QDQ, Conversion, ConversionRequest, Recipe
from harness.protocols import CalibrationSet
from harness.records import Artifact, Calibration
from harness.specs import ImageRange, ModelSpec, Precision
from harness.store.cache import ContentCache, Entry

__all__ = ["check_calibration", "find_recipe", "prepare_artifact", "recipe_names"]

FP32_BITS = 32
WARNING_SEPARATOR = "\n"


ROOM = Room("recipes", noun="recipe file", package=recipes.__name__, path=recipes.__path__, offers="RECIPES")


def list_recipes() -> tuple[Recipe, ...]:
    """Return the recipes of all files; their tools are not imported. Raises: ConfigError for a file that is broken."""
    found: dict[tuple[Precision, str], Recipe] = {}
    for offered in ROOM.load_all().values():
        for recipe in offered:
            if (recipe.precision, recipe.name) in found:
                raise ConfigError(f"two {recipe.precision} recipes are called {recipe.name}")
            found[recipe.precision, recipe.name] = recipe
    return tuple(found.values())


def recipe_names(precision: Precision) -> tuple[str, ...]:
    """Return the names of all recipes of a precision."""
    return tuple(recipe.name for recipe in list_recipes() if recipe.precision is precision)


def find_recipe(precision: Precision, name: str) -> Recipe:
    """Return a recipe. Raises: ConfigError for an unknown name, with near ones."""
    known = {recipe.name: recipe for recipe in list_recipes() if recipe.precision is precision}
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"no {precision} recipe is called {name!r}; {hint}there are: {', '.join(sorted(known))}")
    return known[name]


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
) -> Artifact:
    """Prepare a model in one precision, or take it from the content cache.

    `weight_bits=7` keeps 8-bit kernels from saturating on CPUs without VNNI.
    Raises: ConfigError for an unknown recipe, DataError for a bad model file or bad calibration images,
    BackendUnavailable when the recipe's tool is not installed, BuildError when the conversion fails.
    """
    chosen = find_recipe(precision, recipe)
    started = time.perf_counter_ns()
    source_sha256 = model_digest(spec.onnx_path)
    if chosen.convert is None:
        return _unchanged(spec, precision, recipe, source_sha256=source_sha256, started_ns=started)
    _check_installed(chosen)
    if chosen.needs_calibration and calibration is None:
        raise ConfigError(f"model {spec.name}: recipe {recipe} needs calibration images; none were given")
    bits = chosen.weight_bits or weight_bits
    tools = dict(chosen.tool_versions())
    used = calibration if chosen.needs_calibration else None
    key = _cache_key(
        chosen,
        spec,
        source_sha256=source_sha256,
        tools=tools,
        bits=bits,
        calibrated_by=used.fingerprint if used else "",
    )
    cache = ContentCache(cache_dir, kind="artifacts")
    found = cache.lookup(key)
    cache_hit = found.entry is not None and not rebuild
    entry = found.entry if found.entry and cache_hit else _convert(chosen, spec, bits, used, cache=cache, key=key)
    return Artifact(
        model=spec.name,
        precision=precision,
        recipe=recipe,
        onnx_path=entry.path,
        sha256=entry.sha256,
        source_sha256=source_sha256,
        output_kind=spec.output_kind,
        tools=tools,
        weight_bits=bits,
        calibration=_calibration_note(used, calibration_range, entry),
        cache_hit=cache_hit,
        prepare_ns=time.perf_counter_ns() - started,
        warnings=tuple(line for line in entry.meta["warnings"].split(WARNING_SEPARATOR) if line),
    )


def _unchanged(spec: ModelSpec, precision: Precision, recipe: str, *, source_sha256: str, started_ns: int) -> Artifact:
    return Artifact(
        model=spec.name,
        precision=precision,
        recipe=recipe,
        onnx_path=spec.onnx_path,
        sha256=source_sha256,
        source_sha256=source_sha256,
        output_kind=spec.output_kind,
        weight_bits=FP32_BITS,
        prepare_ns=time.perf_counter_ns() - started_ns,
    )


def _cache_key(
    recipe: Recipe, spec: ModelSpec, *, source_sha256: str, tools: dict[str, str], bits: int, calibrated_by: str
) -> dict[str, object]:
    return {
        "source": source_sha256,
        "recipe": recipe.name,
        "revision": recipe.revision,
        "weight_bits": bits,
        "fixed_batch": spec.max_batch or 0,
        "tools": tools,
        "calibration": calibrated_by,
        # The same pixels scaled by another card are other calibration images.
        "preprocessing": [spec.layout, spec.scale, list(spec.mean), list(spec.std)] if calibrated_by else [],
    }


def _convert(
    recipe: Recipe,
    spec: ModelSpec,
    weight_bits: int,
    calibration: CalibrationSet | None,
    *,
    cache: ContentCache,
    key: dict[str, object],
) -> Entry:
    with tempfile.TemporaryDirectory(prefix="harness-convert-") as folder:
        target = Path(folder) / f"{spec.name}.{recipe.name}.onnx"
        request = ConversionRequest(
            spec=spec,
            source=Path(spec.onnx_path),
            target=target,
            work_dir=Path(folder),
            weight_bits=weight_bits,
            calibration=CheckedCalibration(calibration, spec) if calibration else None,
        )
        conversion = _converted(recipe, request)
        meta = {
            "method": conversion.method,
            "batch_size": str(conversion.batch_size),
            "warnings": WARNING_SEPARATOR.join(conversion.warnings),
        }
        return cache.put(key, target, name=target.name, meta=meta)


def _converted(recipe: Recipe, request: ConversionRequest) -> Conversion:
    """Run a conversion and check the file it wrote."""
    if recipe.convert is None:
        raise BuildError(f"recipe {recipe.name} converts nothing")
    conversion = recipe.convert(request)
    if not request.target.is_file():
        raise BuildError(f"recipe {recipe.name} wrote no file for model {request.spec.name}")
    n_pairs = check_scales(load_model(request.target), request.target)
    if recipe.writes == QDQ and not n_pairs:
        raise BuildError(f"recipe {recipe.name} put no Q/DQ node into model {request.spec.name}")
    check_model(request.target)
    return conversion


def _calibration_note(
    calibration: CalibrationSet | None, images: ImageRange | None, entry: Entry
) -> Calibration | None:
    if calibration is None:
        return None
    return Calibration(
        images=images or ImageRange(dataset="unnamed", split="", first=0, stop=calibration.n_images),
        fingerprint=calibration.fingerprint,
        batch_size=int(entry.meta["batch_size"]),
        method=entry.meta["method"],
    )


def _check_installed(recipe: Recipe) -> None:
    missing = [name for name in recipe.required_modules if importlib.util.find_spec(name) is None]
    if missing:
        raise BackendUnavailable(f"recipe {recipe.name} needs {', '.join(missing)}; {recipe.install_hint}")

"""One conversion: the file that a recipe writes, checked, and what is noted beside it in the content cache."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec

from harness.errors import BuildError
from harness.models.onnx_graph import check_model, check_scales, load_model, scales_digest
from harness.precision.calibration import CheckedCalibration
from harness.precision.noise import Noise, noise_of
from harness.precision.recipe import QDQ, Conversion, ConversionRequest, Recipe
from harness.protocols import CalibrationSet
from harness.records import Calibration, TensorCalibration
from harness.specs import ImageRange, ModelSpec
from harness.store.cache import ContentCache, Entry

WARNING_SEPARATOR = "\n"
NOTES = ("method", "batch_size", "warnings")  # kept with a converted file
ENTRY_REVISION = 5  # of what is noted beside a file in the cache


def converted_entry(
    recipe: Recipe,
    spec: ModelSpec,
    weight_bits: int,
    calibration: CalibrationSet | None,
    *,
    kept: tuple[str, ...],
    cache: ContentCache,
    key: dict[str, object],
) -> Entry:
    """Convert a model and store the file with its notes under a key. Raises: BuildError, DataError, Unsupported."""
    with tempfile.TemporaryDirectory(prefix="harness-convert-") as folder:
        target = Path(folder) / f"{spec.name}.{recipe.name}.onnx"
        request = ConversionRequest(
            spec=spec,
            source=Path(spec.onnx_path),
            target=target,
            work_dir=Path(folder),
            weight_bits=weight_bits,
            calibration=CheckedCalibration(calibration, spec) if calibration else None,
            kept_float=kept,
        )
        conversion = _converted(recipe, request)
        used = request.calibration if recipe.writes == QDQ else None
        noise, unmeasured = noise_of(request, used) if used else (Noise(), ())
        meta = {
            "method": conversion.method,
            "batch_size": str(conversion.batch_size),
            "warnings": WARNING_SEPARATOR.join((*conversion.warnings, *unmeasured)),
            "ranges": scales_digest(load_model(target)),
            "tensors": msgspec.json.encode(conversion.tensors).decode(),
            "noise": msgspec.json.encode(noise).decode(),
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


def calibration_note(calibration: CalibrationSet | None, images: ImageRange | None, entry: Entry) -> Calibration | None:
    """Return how a stored file was calibrated; `images`: their range, where it is known."""
    if calibration is None:
        return None
    noise = msgspec.json.decode(entry.meta["noise"], type=Noise)
    return Calibration(
        images=images or ImageRange(dataset="unnamed", split="", first=0, stop=calibration.n_images),
        fingerprint=calibration.fingerprint,
        batch_size=int(entry.meta["batch_size"]),
        method=entry.meta["method"],
        tensors=msgspec.json.decode(entry.meta["tensors"], type=tuple[TensorCalibration, ...]),
        noise=noise.tensors,
        n_noise_images=noise.n_images,
        ranges_sha256=entry.meta["ranges"],
    )


def warnings_of(entry: Entry) -> tuple[str, ...]:
    """Return what a conversion warned of."""
    return tuple(line for line in entry.meta["warnings"].split(WARNING_SEPARATOR) if line)

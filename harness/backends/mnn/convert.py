"""ONNX -> .mnn, and INT8 by MNN's quantizer; each in a child, because they abort on what they cannot read.

Their console scripts are never called: those install a telemetry package. The extension module behind them does not.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.backends._cpu import import_runtime
from harness.backends._host.conversion import Converted, converted, run_converter
from harness.backends._host.graph import widened
from harness.backends._host.request import OpenRequest
from harness.errors import BuildError, Unsupported
from harness.specs import Precision

REVISION = 1  # raised when the same tools would write another file
METHODS = {"mnn-kl": "KL", "mnn-ema": "EMA"}  # recipe -> the quantizer's own word
FORMATS = {1: "GRAY", 3: "RGB"}  # channels -> the quantizer's own word
PNG_COLORS = {1: 0, 3: 2}  # channels -> colour type. Source: PNG specification, 11.2.2 IHDR
BATCH = 50  # of the quantizer [images]
PIXEL_MAX = 255
CONVERT = "import _tools; _tools.mnnconvert(['mnnconvert', *sys.argv[1:]])"
QUANTIZE = "import _tools; _tools.mnnquant(['mnnquant', *sys.argv[1:]])"
MODEL, RESULT, QUANTIZED, CONFIG = "m.onnx", "m.mnn", "q.mnn", "quantize.json"  # in a folder of their own


def converted_model(request: OpenRequest, versions: Mapping[str, str]) -> Converted:
    """Return a model in MNN's format, its weights stored in FP16 where that was asked. Raises: BuildError."""
    is_half = request.artifact.precision is Precision.FP16

    def make(folder: Path) -> tuple[bytes, dict[str, str]]:
        onnx = import_runtime("onnx")
        onnx.save(widened(request.model), str(folder / MODEL))
        arguments = ["-f", "ONNX", "--modelFile", MODEL, "--MNNModel", RESULT, "--bizCode", "harness"]
        arguments += ["--keepInputFormat", "1", *(["--fp16"] if is_half else [])]
        run_converter("mnnconvert", CONVERT, *arguments, subject=request.subject, folder=folder)
        return _made(request, folder / RESULT, "mnnconvert"), {}

    key = {"to": "mnn", "artifact": request.artifact.sha256, "half": is_half, "revision": REVISION, **versions}
    return converted(request.options, key, f"{request.artifact.model}.mnn", make)


def quantized_model(request: OpenRequest, source: Converted, versions: Mapping[str, str]) -> Converted:
    """Return the model with 8-bit products, calibrated by MNN. Raises: BuildError, Unsupported."""
    method = METHODS[request.artifact.recipe]

    def make(folder: Path) -> tuple[bytes, dict[str, str]]:
        (folder / RESULT).write_bytes(source.data)
        images = np.concatenate(list(request.images.batches(BATCH)))
        settings = write_pictures(images, folder / "images", request.label)
        settings |= {"feature_quantize_method": method, "weight_quantize_method": "MAX_ABS", "batch_size": BATCH}
        (folder / CONFIG).write_text(json.dumps(settings))
        run_converter("mnnquant", QUANTIZE, RESULT, QUANTIZED, CONFIG, subject=request.subject, folder=folder)
        return _made(request, folder / QUANTIZED, "mnnquant"), {}

    key = {
        "to": "mnn",
        "artifact": request.artifact.sha256,
        "recipe": request.artifact.recipe,
        "calibration": request.images.fingerprint,
        "revision": REVISION,
        **versions,
    }
    return converted(request.options, key, f"{request.artifact.model}-int8.mnn", make)


def write_pictures(images: NDArray[np.float32], folder: Path, label: str) -> dict[str, object]:
    """Write float32[N, C, H, W] as PNG files, and return how the quantizer reads the same values from them.

    A value is `(pixel - mean) * normal`: black is the smallest of its channel, white the largest. That is exact for
    images that were pixels of 0..255, and off by half a level at most for others.
    Raises: Unsupported for other than one or three channels: the quantizer reads pictures only.
    """
    if images.ndim != 4 or images.shape[1] not in FORMATS:
        raise Unsupported(f"{label}: MNN's quantizer reads pictures of 1 or 3 channels, not {list(images.shape[1:])}")
    lowest, highest = images.min(axis=(0, 2, 3)), images.max(axis=(0, 2, 3))
    normal = np.maximum(highest - lowest, np.finfo(np.float32).tiny).astype(np.float64) / PIXEL_MAX
    folder.mkdir()
    for index, image in enumerate(images):
        pixels = np.rint((image - lowest[:, None, None]) / normal[:, None, None]).clip(0, PIXEL_MAX).astype(np.uint8)
        (folder / f"{index:06}.png").write_bytes(png(pixels))
    return {
        "format": FORMATS[images.shape[1]],
        "mean": (-lowest / normal).tolist(),
        "normal": normal.tolist(),
        "width": images.shape[3],
        "height": images.shape[2],
        "path": f"{folder}/",
        "used_image_num": len(images),
        "debug": False,
    }


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return uint8[C, H, W] as a PNG file of 1 or 3 channels."""
    channels, height, width = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels.transpose(1, 2, 0))
    head = struct.pack(">IIBBBBB", width, height, 8, PNG_COLORS[channels], 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _made(request: OpenRequest, path: Path, tool: str) -> bytes:
    if not path.is_file() or not path.stat().st_size:
        raise BuildError(f"{request.subject}: {tool} ended without an error, but wrote no model")
    return path.read_bytes()

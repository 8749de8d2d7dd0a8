"""ONNX -> ncnn by pnnx, a program, and INT8 by ranges of ours; both kept in the content cache."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.backends._cpu import import_runtime
from harness.backends._host.conversion import Converted, converted, run_program
from harness.backends._host.graph import widened, with_batch
from harness.backends._host.request import OpenRequest
from harness.backends.ncnn.files import NcnnFiles
from harness.backends.ncnn.runner import Storage, load_net
from harness.errors import BuildError
from harness.precision.ranges import LargestValue, MagnitudeHistogram, entropy_threshold

METHODS = {"ncnn-minmax": "minmax", "ncnn-entropy": "entropy"}
REVISION = 1  # raised when the same tools would write another file
CALIBRATION_BATCH = 100  # images read at once; ncnn runs them one by one


def converted_model(request: OpenRequest, versions: Mapping[str, str]) -> Converted:
    """Return a model in ncnn's format, weights in FP32. Raises: BuildError."""
    key = {"to": "ncnn", "artifact": request.artifact.sha256, "pnnx": versions["pnnx"], "revision": REVISION}
    return converted(
        request.options, key, f"{request.artifact.model}.ncnn.zip", lambda folder: (_by_pnnx(request, folder), {})
    )


def _by_pnnx(request: OpenRequest, folder: Path) -> bytes:
    onnx = import_runtime("onnx")
    onnx.save(with_batch(widened(request.model), 1), str(folder / "m.onnx"))
    shape = ",".join(str(size) for size in (1, *request.input.shape[1:]))
    arguments = ("m.onnx", f"inputshape=[{shape}]", "fp16=0")
    run_program("pnnx", _pnnx(), *arguments, subject=request.subject, folder=folder)
    param, weights = folder / "m.ncnn.param", folder / "m.ncnn.bin"
    if not (param.is_file() and weights.is_file()):
        raise BuildError(f"{request.label}: pnnx wrote no ncnn model of {request.artifact.onnx_path}")
    return NcnnFiles(param=param.read_text(), weights=weights.read_bytes()).packed()


def _pnnx() -> Path:
    """Return the program; importing the package would need PyTorch."""
    found = importlib.util.find_spec("pnnx")
    if found is None or found.origin is None:
        raise BuildError("pnnx is not installed; pip install --no-deps pnnx")
    return Path(found.origin).parent / "pnnx"


def quantized_model(ncnn: Any, request: OpenRequest, source: Converted, versions: Mapping[str, str]) -> Converted:
    """Return the model with 8-bit products, by ranges of its calibration images. Raises: BuildError, Unsupported."""
    key = {
        "to": "ncnn",
        "artifact": request.artifact.sha256,
        "recipe": request.artifact.recipe,
        "calibration": request.images.fingerprint,
        "revision": REVISION,
        **versions,
    }

    def make(folder: Path) -> tuple[bytes, dict[str, str]]:
        del folder
        files = NcnnFiles.unpacked(source.data)
        return files.quantized(_ranges(ncnn, request, files)).packed(), {}

    return converted(request.options, key, f"{request.artifact.model}.ncnn-int8.zip", make)


def _ranges(ncnn: Any, request: OpenRequest, files: NcnnFiles) -> dict[str, float]:
    """Return the magnitude that becomes 127 of every product's input, as ncnn computes it in FP32."""
    names = tuple(dict.fromkeys(layer.inputs[0] for layer in files.layers if layer.can_be_int8))
    net = load_net(ncnn, files, request, Storage.FP32)
    largest = {name: LargestValue() for name in names}
    for name, values in _blobs(ncnn, net, request, names):
        largest[name].update(values)
    ranges = {name: value.largest for name, value in largest.items()}
    for name, value in ranges.items():
        if not np.isfinite(value):
            raise BuildError(f"{request.label}: blob {name} becomes {value} on calibration images; FP32 overflows")
    if METHODS[request.artifact.recipe] == "minmax":
        return ranges
    histograms = {name: MagnitudeHistogram(ranges[name]) for name in names}
    for name, values in _blobs(ncnn, net, request, names):
        histograms[name].update(values)
    return {name: entropy_threshold(histogram) for name, histogram in histograms.items()}


def _blobs(
    ncnn: Any, net: Any, request: OpenRequest, names: tuple[str, ...]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield name and values of the blobs of one calibration image after the other."""
    source = net.input_names()[0]
    for images in request.images.batches(CALIBRATION_BATCH):
        for image in images:
            extractor = net.create_extractor()
            extractor.set_light_mode(False)  # else a blob is freed when it has been read
            extractor.input(source, ncnn.Mat(np.ascontiguousarray(image)).clone())
            for name in names:
                status, blob = extractor.extract(name)
                if status:
                    raise BuildError(f"{request.label}: ncnn cannot compute blob {name} (status {status})")
                yield name, np.array(blob, np.float32)

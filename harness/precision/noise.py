"""What quantization does to every tensor: FP32 against the float emulation of the Q/DQ file, on calibration images."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import BuildError, Unsupported
from harness.models.onnx_graph import load_model
from harness.precision.activations import ActivationReader
from harness.precision.recipe import ConversionRequest
from harness.precision.recipes.int8_qdq import QUANTIZED_OPS, float_tensors, prepare_graph
from harness.protocols import CalibrationSet
from harness.records import TensorNoise
from harness.specs import ModelSpec

if TYPE_CHECKING:
    import onnx

MAX_TENSORS = 64  # of a model whose every tensor is told; of a larger one, what its products give
MAX_PRODUCTS = 256
N_IMAGES = 100
DECIMALS = 2
WORST_DB = -200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """What was measured, in the graph's order."""

    tensors: tuple[TensorNoise, ...] = ()
    n_images: int = 0


def noise_of(request: ConversionRequest, calibration: CalibrationSet) -> tuple[Noise, tuple[str, ...]]:
    """Return the noise of the file that a conversion wrote, and a warning where it cannot be measured."""
    try:
        return tensor_noise(request.source, request.target, request.spec, calibration, request.work_dir), ()
    except (BuildError, Unsupported) as error:
        return Noise(), (f"signal-to-noise ratios were not measured: {error}",)


def tensor_noise(source: Path, quantized: Path, spec: ModelSpec, calibration: CalibrationSet, work_dir: Path) -> Noise:
    """Return the signal-to-noise ratio of the tensors that both files name; ratios of powers summed over all images.

    `source`: the FP32 file. Of a model with many tensors only what its products give is measured.
    Raises: BuildError when a file does not run; DataError for bad images.
    """
    files = prepare_graph(source, work_dir, fold=False), load_model(quantized)
    names = _common(*files)
    if not names:
        return Noise()
    readers = []
    for place, model in zip(("fp32", "emulation"), files, strict=True):
        folder = work_dir / f"noise-{place}"
        folder.mkdir()
        readers.append(ActivationReader(model, names, spec, folder, is_emulated=True))
    size = readers[0].batch_size = readers[1].batch_size = min(reader.batch_size for reader in readers)
    signal, noise, n_images = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0), 0
    batches = zip(*(reader.read(calibration) for reader in readers), strict=True)
    for exact, rounded in islice(batches, max(N_IMAGES // size, 1)):
        n_images += size
        for name in names:
            value = exact[name].astype(np.float64)
            signal[name] += float(np.square(value).sum())
            noise[name] += float(np.square(value - rounded[name]).sum())
    told = tuple(TensorNoise(tensor=name, snr_db=_decibels(signal[name], noise[name])) for name in names)
    return Noise(tensors=told, n_images=min(n_images, calibration.n_images))


def _common(exact: onnx.ModelProto, quantized: onnx.ModelProto) -> tuple[str, ...]:
    kept = {value.name for value in quantized.graph.input}
    kept.update(name for node in quantized.graph.node for name in node.output)
    names = tuple(name for name in float_tensors(exact) if name in kept)
    if len(names) <= MAX_TENSORS:
        return names
    products = {name for node in exact.graph.node if node.op_type in QUANTIZED_OPS for name in node.output}
    names = tuple(name for name in names if name in products)
    return names if len(names) <= MAX_PRODUCTS else ()


def _decibels(signal: float, noise: float) -> float | None:
    """Return the ratio in dB, WORST_DB where the emulation overflows; None where nothing differs."""
    if noise == 0:
        return None
    ratio = signal / noise if np.isfinite(noise) else 0.0
    return max(round(10 * float(np.log10(ratio)), DECIMALS), WORST_DB) if ratio > 0 else WORST_DB

"""Whether OpenVINO's CPU computes small chains of INT8 MatMuls as a Q/DQ file says, with a bias and without.

    python benchmarks/openvino_matmul_chains.py [--trials 200]

Seeded nets: 2 to 4 MatMuls of 1 to 64 columns with weights by column, Relu or nothing between them, static batch 4.
Each is held against ONNX Runtime without optimizations, as OpenVINO compiles it and with SNIPPETS_MODE=DISABLE.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

BATCH, WIDTHS, WRONG = 4, (1, 2, 3, 5, 7, 8, 16, 31, 32, 64), 0.02
HALF = {np.int8: (40 / 127, 0), np.uint8: (80 / 255, 128)}  # scale and zero point of -40..40


def chain(
    widths: Sequence[int], *, has_relu: bool, has_bias: bool, kind: type, generator: np.random.Generator
) -> bytes:
    """Return the file of a chain of MatMuls, each behind Q/DQ pairs."""
    nodes, weights, last = [], [], "x"

    def keep(name: str, values: Any) -> str:
        weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    for k, (n_in, n_out) in enumerate(pairwise(widths)):
        scale, zero = HALF[kind]
        pair = [keep(f"s{k}", np.float32(scale)), keep(f"z{k}", kind(zero))]
        nodes.append(helper.make_node("QuantizeLinear", [last, *pair], [f"q{k}"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"q{k}", *pair], [f"d{k}"]))
        values = generator.normal(0, 1, (n_in, n_out)).astype(np.float32)
        scales = np.abs(values).max(axis=0) / 127
        stored = [keep(f"wq{k}", np.round(values / scales).astype(np.int8)), keep(f"ws{k}", scales)]
        zeros = keep(f"wz{k}", np.zeros(n_out, np.int8))
        nodes.append(helper.make_node("DequantizeLinear", [*stored, zeros], [f"w{k}"], axis=1))
        nodes.append(helper.make_node("MatMul", [f"d{k}", f"w{k}"], [f"m{k}"]))
        last = f"m{k}"
        bias = generator.normal(0, 1, n_out).astype(np.float32)
        if has_bias:
            nodes.append(helper.make_node("Add", [last, keep(f"b{k}", bias)], [f"a{k}"]))
            last = f"a{k}"
        if has_relu and k < len(widths) - 2:
            nodes.append(helper.make_node("Relu", [last], [f"r{k}"]))
            last = f"r{k}"
    nodes.append(helper.make_node("Identity", [last], ["y"]))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, size])
        for name, size in (("x", widths[0]), ("y", widths[-1]))
    ]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def error_of(ours: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Return the norm of what differs over the reference's norm; infinite for NaN."""
    found = float(np.linalg.norm(ours.astype(np.float64) - reference) / max(1e-6, float(np.linalg.norm(reference))))
    return found if np.isfinite(found) else float("inf")


def main() -> None:
    """Print how many chains are wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    trials = parser.parse_args().trials
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    core = openvino.Core()
    settings = {"as compiled": {}, "SNIPPETS_MODE=DISABLE": {"SNIPPETS_MODE": "DISABLE"}}
    print(f"OpenVINO {openvino.__version__}, ONNX Runtime {onnxruntime.__version__}, onnx {onnx.__version__}")
    for has_bias in (True, False):
        wrong, refused, largest = dict.fromkeys(settings, 0), dict.fromkeys(settings, 0), dict.fromkeys(settings, 0.0)
        for trial in range(trials):
            generator = np.random.default_rng([trial, has_bias])
            widths = [int(width) for width in generator.choice(WIDTHS, size=int(generator.integers(3, 6)))]
            kind = (np.int8, np.uint8)[int(generator.integers(2))]
            has_relu = bool(generator.integers(2))
            file = chain(widths, has_relu=has_relu, has_bias=has_bias, kind=kind, generator=generator)
            images = generator.normal(0, 10, (BATCH, widths[0])).astype(np.float32)
            reference = onnxruntime.InferenceSession(file, options).run(None, {"x": images})[0]
            for name, extra in settings.items():
                config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, **extra}
                try:
                    compiled = core.compile_model(core.read_model(file), "CPU", config)
                except RuntimeError:
                    refused[name] += 1
                    continue
                error = error_of(next(iter(compiled(images).values())), reference)
                wrong[name] += error > WRONG
                largest[name] = max(largest[name], error)
        for name in settings:
            told = f"{wrong[name]} of {trials} wrong by more than {WRONG:.0%}, {refused[name]} not compiled"
            print(f"{'with' if has_bias else 'without'} a bias, {name}: {told}; largest error {largest[name]:.2g}")


if __name__ == "__main__":
    main()

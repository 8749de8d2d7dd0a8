"""ONNX file -> .pte files. Run in a child, in a folder of its own: exporting takes long and talks much.

Every batch size gets a program of its own: a program of a free batch fails on convolutions at larger sizes. INT8 is
calibrated once, on a graph of a free batch, so that all programs hold the same scales.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from harness.backends._cpu import import_runtime
from harness.backends.torch.graph import module_of
from harness.models.onnx_graph import load_model, node_id

MODEL, IMAGES, ORDER, TOLD, SUFFIX = "m.onnx", "images.npy", "order.json", "told.json", ".pte"  # in the folder
EXAMPLE_BATCH = 2  # a batch of 1 would be taken for a constant
CALIBRATION_BATCH = 100
ONNX_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
ATEN_PRODUCTS = ("conv2d", "convolution", "conv_transpose2d", "linear", "addmm", "mm", "matmul", "bmm")


def main() -> None:
    """Write a program for each size of ORDER from MODEL, quantized where IMAGES are, and TOLD."""
    torch = import_runtime("torch")
    order, model = json.loads(Path(ORDER).read_text()), load_model(MODEL)
    names = [node_id(node) for node in model.graph.node if node.op_type in ONNX_PRODUCTS]
    module, shape, fixed = module_of(torch, model), order["shape"], order["fixed"]
    batch = fixed or CALIBRATION_BATCH
    told: dict[str, Any] = {"portable": [], "layers": [], "calibration_batch": 0}
    with torch.no_grad():
        if Path(IMAGES).exists():
            images = np.load(IMAGES)
            module = _quantized(torch, module, images, shape, batch=batch, is_fixed=bool(fixed))
            told["calibration_batch"] = min(batch, len(images))
        for size in order["sizes"]:
            exported = torch.export.export(module, (torch.rand(size, *shape),))
            lowered = _lowered(exported)
            told["layers"], told["portable"] = _layers(exported, names), _left(lowered)
            Path(f"{size}{SUFFIX}").write_bytes(lowered.to_executorch().buffer)
    Path(TOLD).write_text(json.dumps(told))


def _quantized(torch: Any, module: Any, images: Any, shape: list[int], *, batch: int, is_fixed: bool) -> Any:
    pt2e = import_runtime("torchao.quantization.pt2e.quantize_pt2e")
    xnnpack = import_runtime("executorch.backends.xnnpack.quantizer.xnnpack_quantizer")
    free = None if is_fixed else ({0: torch.export.Dim("n", min=1, max=max(len(images), EXAMPLE_BATCH))},)
    example = torch.rand(batch if is_fixed else EXAMPLE_BATCH, *shape)
    graph = torch.export.export(module, (example,), dynamic_shapes=free).module()
    quantizer = xnnpack.XNNPACKQuantizer().set_global(xnnpack.get_symmetric_quantization_config(is_per_channel=True))
    prepared = pt2e.prepare_pt2e(graph, quantizer)
    stop = len(images) // batch * batch if is_fixed else len(images)
    for first in range(0, stop, batch):
        prepared(torch.from_numpy(images[first : first + batch]))
    return pt2e.convert_pt2e(prepared)


def _lowered(exported: Any) -> Any:
    exir = import_runtime("executorch.exir")
    xnnpack = import_runtime("executorch.backends.xnnpack.partition.xnnpack_partitioner")
    return exir.to_edge_transform_and_lower(exported, partitioner=[xnnpack.XnnpackPartitioner()])


def _operator(node: Any) -> str:
    """Return conv2d of aten.conv2d.default."""
    parts = str(node.target).split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def _layers(exported: Any, names: list[str]) -> list[list[str]]:
    """Return every product: its ONNX node where all are found again, its operator, and the type that it is fed with."""
    products = [
        node for node in exported.graph.nodes if node.op == "call_function" and _operator(node) in ATEN_PRODUCTS
    ]
    known = names if len(names) == len(products) else [""] * len(products)
    return [
        [name, _operator(node), "int8" if _operator(node.args[0]).startswith("dequantize") else "fp32"]
        for name, node in zip(known, products, strict=True)
    ]


def _left(lowered: Any) -> list[str]:
    """Return the operators that no delegate took."""
    nodes = [node for node in lowered.exported_program().graph.nodes if node.op == "call_function"]
    return sorted({_operator(node) for node in nodes if "aten" in str(node.target)})

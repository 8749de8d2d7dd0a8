"""ONNX file -> a package of AOTInductor. Run in a child, in a folder of its own: it starts compilers."""

from __future__ import annotations

from typing import Any

from harness.backends._cpu import import_runtime
from harness.backends.torch.graph import module_of
from harness.models.onnx_graph import load_model

MODEL, RESULT = "m.onnx", "m.pt2"  # in the folder
EXAMPLE_BATCH = 2  # a batch of 1 would be taken for a constant


def main(threads: str, device: str, tf32: str, largest: str, *shape: str) -> None:
    """Write RESULT from MODEL for a device.

    `tf32`: "1" lets products of FP32 be computed in it; `shape`: of an image; `largest`: batch, 0 for a fixed one.
    """
    torch = import_runtime("torch")
    torch.set_num_threads(int(threads))
    inductor = import_runtime("torch._inductor")
    set_tf32(torch, tf32 == "1")
    module = module_of(torch, load_model(MODEL)).to(device)
    with torch.inference_mode():
        exported = exported_module(torch, module, int(largest), tuple(map(int, shape)), device)
        inductor.aoti_compile_and_package(exported, package_path=RESULT)


def set_tf32(torch: Any, is_on: bool) -> None:
    """Say whether products and convolutions of FP32 may round their inputs to TF32 on a GPU; cuDNN's do by default.

    By the older of PyTorch's two ways: its own compiler asks by that one, and fails where the newer was used.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = is_on


def exported_module(torch: Any, module: Any, largest: int, shape: tuple[int, ...], device: str) -> Any:
    """Return an exported program of a free batch up to `largest`, or of the batch that `shape` begins with."""
    if not largest:
        return torch.export.export(module, (torch.rand(*shape, device=device),))
    sizes = ({0: torch.export.Dim("n", min=1, max=largest)},)
    example = torch.rand(EXAMPLE_BATCH, *shape, device=device)
    return torch.export.export(module, (example,), dynamic_shapes=sizes)

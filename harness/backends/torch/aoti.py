"""ONNX file -> a package of AOTInductor. Run in a child, in a folder of its own: it starts compilers."""

from __future__ import annotations

from typing import Any

from harness.backends._cpu import import_runtime
from harness.backends.torch.graph import module_of
from harness.models.onnx_graph import load_model

MODEL, RESULT = "m.onnx", "m.pt2"  # in the folder
EXAMPLE_BATCH = 2  # a batch of 1 would be taken for a constant


def main(threads: str, largest: str, *shape: str) -> None:
    """Write RESULT from MODEL: `shape` is an image's, `largest` the batch that it takes at most, 0 for a fixed one."""
    torch = import_runtime("torch")
    torch.set_num_threads(int(threads))
    inductor = import_runtime("torch._inductor")
    module = module_of(torch, load_model(MODEL))
    with torch.inference_mode():
        exported = exported_module(torch, module, int(largest), tuple(map(int, shape)))
        inductor.aoti_compile_and_package(exported, package_path=RESULT)


def exported_module(torch: Any, module: Any, largest: int, shape: tuple[int, ...]) -> Any:
    """Return an exported program of a free batch up to `largest`, or of the batch that `shape` begins with."""
    if not largest:
        return torch.export.export(module, (torch.rand(*shape),))
    sizes = ({0: torch.export.Dim("n", min=1, max=largest)},)
    return torch.export.export(module, (torch.rand(EXAMPLE_BATCH, *shape),), dynamic_shapes=sizes)

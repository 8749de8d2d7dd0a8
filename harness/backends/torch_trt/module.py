"""A module of PyTorch that Torch-TensorRT has compiled: engines of TensorRT, and what is left to PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.backends._cpu import import_runtime
from harness.backends._host.conversion import Converted
from harness.backends._host.request import OpenRequest
from harness.backends.torch.aoti import exported_module
from harness.backends.torch.compiled import Target
from harness.backends.torch_cuda.module import CudaModule

PACKAGE = "torch_tensorrt"
ENGINE, LEFT = "_run_on_acc", "_run_on_gpu"  # in the names of the parts that its partitioner makes
MIN_BLOCK_SIZE = 1  # operators that are worth an engine; by default 5, more than a small net has in a row
N_NAMED = 5


class TrtModule(CudaModule):
    """The compiled module of one artifact. Types are those of the file: it has no say in precision."""

    tells_kernels = False

    def versions(self) -> dict[str, str]:
        """Return the versions of PyTorch, Torch-TensorRT and TensorRT."""
        others = (PACKAGE, "tensorrt")
        return {**super().versions(), **{name: str(import_runtime(name).__version__) for name in others}}

    def read_back(self) -> dict[str, str]:
        """Return what decides the arithmetic of what PyTorch runs, and what was asked of Torch-TensorRT."""
        return {**super().read_back(), "min_block_size": str(MIN_BLOCK_SIZE)}

    def _mode_of(self, request: OpenRequest) -> str:
        del request
        return "dynamo"

    def _made_call(self, request: OpenRequest, target: Target) -> tuple[Callable[[Any], Any], Converted | None]:
        torch_tensorrt = import_runtime(PACKAGE)
        fixed, row = request.input.shape[0], tuple(size or 1 for size in request.input.shape[1:])
        ends = {"min_shape": (1, *row), "opt_shape": (self._largest, *row), "max_shape": (self._largest, *row)}
        sizes = {"shape": (fixed, *row)} if fixed else ends
        with self._torch.no_grad():
            exported = exported_module(
                self._torch,
                self._module,
                0 if fixed else self._largest,
                (fixed, *row) if fixed else row,
                target.device,
            )
            compiled: Any = torch_tensorrt.dynamo.compile(
                exported,
                arg_inputs=[torch_tensorrt.Input(dtype=self._torch.float32, **sizes)],
                device=self._device,
                disable_tf32=not target.tf32,
                min_block_size=MIN_BLOCK_SIZE,
            )
        self.notes = (parts_in_words(compiled),)
        return compiled, None


def parts_in_words(compiled: Any) -> str:
    """Return how many engines a compiled module has, and which operators are left to PyTorch."""
    parts = list(compiled.named_children())
    n_engines = sum(ENGINE in name for name, _ in parts)
    left = [
        str(node.target)
        for name, part in parts
        if LEFT in name
        for node in part.graph.nodes
        if node.op == "call_function"
    ]
    more = ", ..." if len(left) > N_NAMED else ""
    rest = f"{len(left)} operators: {', '.join(left[:N_NAMED])}{more}" if left else "nothing"
    return f"TensorRT runs {n_engines} engines, PyTorch {rest}"

"""A PyTorch module on one GPU, run on a stream and on memory that are ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from harness.backends._host.conversion import Converted
from harness.backends._host.request import OpenRequest
from harness.backends.torch.aoti import set_tf32
from harness.backends.torch.compiled import Target, call_of_mode
from harness.backends.torch.graph import module_of
from harness.backends.torch.options import COMPILED, TorchOptions
from harness.backends.torch.runner import dtype_of, node_layers, scope_of
from harness.errors import BuildError, MeasurementError
from harness.models.onnx_graph import one_line
from harness.records import Layer

ERRORS = (RuntimeError, ValueError, TypeError)  # of PyTorch; what CUDA reports is a RuntimeError


class DeviceArray:
    """Device memory as `torch.as_tensor` takes it, without a copy: the CUDA array interface, version 2."""

    def __init__(self, address: int, shape: tuple[int, ...]) -> None:
        """`address`: of float32 without gaps; whoever allocated the memory keeps it."""
        self.__cuda_array_interface__ = {"data": (address, False), "shape": shape, "typestr": "<f4", "version": 2}


class CudaModule:
    """The module of one artifact on one GPU.

    All that it allocates comes from a memory pool of its own: a CUDA graph that we capture keeps the addresses of
    tensors that PyTorch has freed since, and in the shared pool they could be given to somebody else.
    """

    notes: tuple[str, ...] = ()  # what there is to say of the module

    def __init__(self, torch: Any, request: OpenRequest, target: Target, *, stream: Any, largest: int) -> None:
        """`stream`: every inference is enqueued on it; `largest`: batch. Raises: BuildError, Unsupported."""
        self._torch, self._label, self._cuda_stream, self._largest = torch, request.label, stream, largest
        self.mode = self._mode_of(request)
        self._scope = scope_of(torch, request, self.mode, "cuda")
        set_tf32(torch, target.tf32)
        try:
            torch.cuda.set_device(target.index)  # also the device that the pool is of
            self._device = torch.device("cuda", target.index)
            self._stream = torch.cuda.ExternalStream(int(stream.handle), device=self._device)
            self._pool: Any = torch.cuda.MemPool()
            with self._on_stream():
                self._module: Any = module_of(torch, request.model).to(self._device)
                call, made = self._made_call(request, target)
            stream.synchronize()
        except ERRORS as error:
            raise BuildError(f"{request.label}: PyTorch fails on {target.device}: {one_line(error)}") from error
        self._call: Callable[[Any], Any] = call
        self.converted: Converted | None = made

    @property
    def tells_kernels(self) -> bool:
        """Tell whether a call runs the kernels of the nodes one by one."""
        return self.mode not in COMPILED

    def versions(self) -> dict[str, str]:
        """Return the versions of PyTorch and of what it brings along."""
        torch = self._torch
        cudnn = torch.backends.cudnn.version()
        told = {"torch": torch.__version__, "cuda": torch.version.cuda, **({"cudnn": cudnn} if cudnn else {})}
        return {name: str(version) for name, version in told.items()}

    def read_back(self) -> dict[str, str]:
        """Return what decides the arithmetic, as PyTorch has it."""
        backends = self._torch.backends
        return {
            "mode": self.mode,
            "matmul_allow_tf32": str(backends.cuda.matmul.allow_tf32),
            "cudnn_allow_tf32": str(backends.cudnn.allow_tf32),
            "fp16_reduced_precision_reduction": str(backends.cuda.matmul.allow_fp16_reduced_precision_reduction),
            "cudnn_benchmark": str(backends.cudnn.benchmark),
        }

    def tensor(self, address: int, shape: tuple[int, ...]) -> Any:
        """Return float32 of a shape that lies in memory of ours."""
        return self._torch.as_tensor(DeviceArray(address, shape), device=self._device)

    def enqueue(self, source: Any, target: Any) -> None:
        """Put one inference on the stream, and the copy of its outputs to `target`. Raises: MeasurementError."""
        try:
            with self._on_stream(), self._scope():
                made = self._call(source)
                if tuple(made.shape) != tuple(target.shape):  # a copy would spread one row over all
                    raise MeasurementError(
                        f"{self._label}: output has shape {list(made.shape)}; expected {list(target.shape)}"
                    )
                target.copy_(made)
        except ERRORS as error:
            raise MeasurementError(f"{self._label}: batch {len(source)} failed: {one_line(error)}") from error

    def layers(self, shape: tuple[int, ...]) -> tuple[Layer, ...]:
        """Return the nodes with the type that each makes of a batch; their times would be those of their launches.

        Of a compiled module the kernels are other ones: no types are told. Raises: MeasurementError.
        """
        kinds: dict[str, tuple[str, str]] = {}

        def observe(name: str, kind: str, made: Any) -> None:
            kinds[name] = kind, dtype_of(made)

        try:
            with self._on_stream(), self._scope():
                batch = self._torch.zeros(shape, device=self._device)
                self._module.observe = observe
                self._module(batch)
            self._cuda_stream.synchronize()
        except ERRORS as error:
            raise MeasurementError(f"{self._label}: reading the layers failed: {one_line(error)}") from error
        finally:
            self._module.observe = None
        return node_layers(kinds, tells_kernels=self.tells_kernels, times={})

    def close(self) -> None:
        """Free all that lies on the GPU; nothing runs any more, and the stream is still there."""
        self._call, self._module = _closed, None
        self._torch._C._cuda_clearCublasWorkspaces()  # they are kept by stream, and may lie in the pool
        self._pool = None
        self._torch.cuda.empty_cache()

    def _mode_of(self, request: OpenRequest) -> str:
        return TorchOptions.of(request.options.settings).mode

    def _made_call(self, request: OpenRequest, target: Target) -> tuple[Callable[[Any], Any], Converted | None]:
        """Return what runs a batch, and what was converted for it. Raises: BuildError."""
        return call_of_mode(self._torch, self._module, request, self.mode, versions=self.versions(), target=target)

    @contextmanager
    def _on_stream(self) -> Iterator[None]:
        with self._torch.cuda.use_mem_pool(self._pool, self._device), self._torch.cuda.stream(self._stream):
            yield


def _closed(images: Any) -> Any:
    raise RuntimeError("the module is closed")

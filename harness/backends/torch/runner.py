"""One module in PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from harness.backends._host.engine import BoundCall
from harness.backends._host.request import OpenRequest
from harness.backends.torch.options import EAGER
from harness.errors import Unsupported
from harness.precision.effective import median_times
from harness.protocols import Images, Outputs
from harness.records import Layer
from harness.specs import BF16_RUNTIME_RECIPE, Precision

PRECISION_OF_DTYPE = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8"}
Scope = Callable[[], AbstractContextManager[object]]  # what a call runs in
MOVING_OPERATORS = frozenset({"Cast", "DequantizeLinear", "Dropout", "Flatten", "Identity", "QuantizeLinear"})


class TorchRunner:
    """A module and the call that runs it. Implements `_host.engine.Runner`."""

    errors: tuple[type[BaseException], ...] = (RuntimeError, ValueError, TypeError)

    def __init__(
        self, torch: Any, module: Any, call: Callable[[Any], Any], *, scope: Scope, tells_kernels: bool
    ) -> None:
        """`module`: node by node, for its layers; `tells_kernels`: whether `call` runs the same kernels."""
        self._torch, self._module, self._call = torch, module, call
        self._scope, self._tells_kernels = scope, tells_kernels

    def run(self, images: Images) -> Outputs:
        """Run one batch."""
        with self._scope():
            return np.array(self._call(self._tensor(images)).float().numpy())

    def bind(self, images: Images) -> BoundCall:
        """Hold the batch as a tensor."""
        scope, call, batch = self._scope, self._call, self._tensor(images.copy())
        last: list[Any] = [None]

        def compute() -> None:
            with scope():
                last[0] = call(batch)

        return BoundCall(compute=compute, outputs=lambda: np.array(last[0].float().numpy()))

    def layers(self, images: Images, n_runs: int) -> tuple[Layer, ...]:
        """Return the nodes with the type that each made and its time, run one by one.

        Of a compiled module the kernels are other ones: neither types nor times are told.
        """
        kinds: dict[str, tuple[str, str]] = {}
        runs: list[dict[str, float]] = []
        for _ in range(n_runs):
            runs.append({})
            self._module.observe = self._observer(kinds, runs[-1])
            with self._scope():
                self._module(self._tensor(images))
        self._module.observe = None
        times = median_times(runs[1:] or runs) if self._tells_kernels else {}
        return node_layers(kinds, tells_kernels=self._tells_kernels, times=times)

    def close(self) -> None:
        """Free the module."""
        self._module = None
        self._call = _closed

    def _tensor(self, images: Images) -> Any:
        return self._torch.from_numpy(images if images.flags.writeable else images.copy())

    def _observer(self, kinds: dict[str, tuple[str, str]], times: dict[str, float]) -> Callable[[str, str, Any], None]:
        last = [time.perf_counter_ns()]

        def observe(name: str, kind: str, made: Any) -> None:
            now = time.perf_counter_ns()
            times[name] = float(now - last[0])
            kinds[name] = kind, dtype_of(made)
            last[0] = time.perf_counter_ns()

        return observe


def dtype_of(tensor: Any) -> str:
    """Return a tensor's type in a word: float32."""
    return str(tensor.dtype).removeprefix("torch.")


def node_layers(
    kinds: Mapping[str, tuple[str, str]], *, tells_kernels: bool, times: Mapping[str, float]
) -> tuple[Layer, ...]:
    """Return a layer a node: `kinds` node -> operator and the type that it made, `times` node -> ns where known.

    Without `tells_kernels` the kernels that run are other ones than the nodes', and their types are not told.
    """
    return tuple(
        Layer(
            name=name,
            kind=kind,
            precision=PRECISION_OF_DTYPE.get(dtype, dtype) if tells_kernels else "",
            is_compute=kind not in MOVING_OPERATORS,
            onnx_nodes=(name,),
            time_ns=times.get(name),
        )
        for name, (kind, dtype) in kinds.items()
    )


def scope_of(torch: Any, request: OpenRequest, mode: str, device: str = "cpu") -> Scope:
    """Return the scope that calls run in on a type of device; in that of BF16 by autocast, products are in BF16.

    Raises: Unsupported for autocast in another mode than eager.
    """
    if (request.artifact.precision, request.artifact.recipe) != (Precision.BF16, BF16_RUNTIME_RECIPE):
        inference: Scope = torch.inference_mode
        return inference
    if mode != EAGER:
        raise Unsupported(f"{request.label}: recipe {BF16_RUNTIME_RECIPE} is autocast, which needs mode {EAGER}")

    @contextmanager
    def scope() -> Iterator[None]:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16):
            yield

    return scope


def _closed(images: Any) -> Any:
    raise RuntimeError("the module is closed")

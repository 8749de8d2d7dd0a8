"""Programs of one model in ExecuTorch, one a batch size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.backends._host.engine import BoundCall
from harness.backends.executorch.convert import Programs
from harness.backends.executorch.lower import ATEN_PRODUCTS
from harness.errors import BuildError
from harness.models.onnx_graph import one_line
from harness.protocols import Images, Outputs
from harness.records import Layer

FORWARD, FLOAT = "forward", "fp32"


class ExecutorchRunner:
    """Implements `_host.engine.Runner`. A batch of another size is filled up to the next one, or cut into pieces."""

    errors: tuple[type[BaseException], ...] = (RuntimeError, ValueError, TypeError)

    def __init__(self, torch: Any, bindings: Any, programs: Programs, told: Mapping[str, Any], label: str) -> None:
        """Load all programs. Raises: BuildError."""
        self._torch, self._told = torch, told
        self._bytes = programs  # read where they lie, for as long as a program is used
        try:
            self._programs = {
                size: bindings._load_for_executorch_from_buffer(data) for size, data in programs.by_size.items()
            }
        except self.errors as error:
            raise BuildError(f"{label}: ExecuTorch cannot load what it made: {one_line(error)}") from error

    def run(self, images: Images) -> Outputs:
        """Run one batch."""
        largest = max(self._programs)
        return np.concatenate([self._piece(images[k : k + largest]) for k in range(0, len(images), largest)])

    def bind(self, images: Images) -> BoundCall:
        """Hold the batch as a tensor; of a size without a program of its own every run fills it up anew."""
        batch, program = images.copy(), self._programs.get(len(images))
        last: list[Any] = [None]
        if program is None:

            def fill() -> None:
                last[0] = self.run(batch)

            return BoundCall(compute=fill, outputs=lambda: np.array(last[0]))
        tensor = self._torch.from_numpy(batch)

        def compute() -> None:
            last[0] = program.run_method(FORWARD, (tensor,))[0]

        return BoundCall(compute=compute, outputs=lambda: np.array(last[0].numpy()))

    def layers(self, images: Images, n_runs: int) -> tuple[Layer, ...]:
        """Return the products with the type that each is fed with, unknown where not all are XNNPACK's; no times."""
        del images, n_runs
        is_delegated = not set(self._told["portable"]) & set(ATEN_PRODUCTS)
        return tuple(
            Layer(
                name=name or f"{kind} {place}",
                kind=kind,
                precision=precision if is_delegated or precision == FLOAT else "",
                kernel="XNNPACK" if is_delegated else "",
                is_compute=True,
                onnx_nodes=(name,) if name else (),
                time_ns=None,
            )
            for place, (name, kind, precision) in enumerate(self._told["layers"])
        )

    def close(self) -> None:
        """Free the programs."""
        self._programs = {}

    def _piece(self, images: Images) -> NDArray[np.float32]:
        size = min(known for known in self._programs if known >= len(images))
        fed = images
        if len(images) < size:
            fed = np.concatenate([images, np.repeat(images[:1], size - len(images), axis=0)])
        elif not images.flags.writeable:
            fed = images.copy()
        made = self._programs[size].run_method(FORWARD, (self._torch.from_numpy(fed),))[0]
        return np.array(made.numpy()[: len(images)])

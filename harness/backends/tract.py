"""tract, ONNX in Rust, on the CPU. `import tract` happens in `probe` and `build`, in worker processes only."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.backends._cpu import import_runtime
from harness.backends._host.adapter import HostBackend
from harness.backends._host.engine import BoundCall
from harness.backends._host.graph import widened, with_batch
from harness.backends._host.request import Opened, OpenRequest
from harness.backends._traits import Traits, takes_casts, takes_files
from harness.errors import BuildError
from harness.protocols import Images, Outputs
from harness.records import Layer
from harness.specs import Precision

if TYPE_CHECKING:
    from onnx import ModelProto

MULTIPLIED = {"FMA(F32)": "fp32", "FMA(F16)": "fp16", "FMA(I8)": "int8"}  # of a node's cost -> what it multiplies in
KINDS = {"DepthWise": "DepthWiseConv"}  # as a reader knows it
SKIPPED = frozenset({"Const", "Source"})
MOVING = frozenset({"Cast", "IntoShape", "LazyIm2col", "MoveAxis", "OptMatMulPack", "Pad", "Reshape", "RmAxis"})
NS_PER_S = 1e9


class TractRunner:
    """A runnable of each batch size: a free batch costs depthwise convolutions five times their time."""

    errors: tuple[type[BaseException], ...]

    def __init__(self, tract: Any, model: ModelProto, request: OpenRequest) -> None:
        self.errors = (tract.TractError, RuntimeError)
        self._tract, self._model, self._request = tract, model, request
        fixed = request.input.shape[0]
        self._runnables = {size: self._made(size) for size in ((fixed,) if fixed else request.batch_sizes)}

    def run(self, images: Images) -> Outputs:
        """Run one batch."""
        return np.array(self._of_size(len(images)).run([images])[0].to_numpy())

    def bind(self, images: Images) -> BoundCall:
        """Hold the batch as a tensor."""
        run, batch = self._of_size(len(images)).run, [self._tract.Tensor.from_numpy(images)]
        return BoundCall(compute=lambda: run(batch), outputs=lambda: np.array(run(batch)[0].to_numpy()))

    def layers(self, images: Images, n_runs: int) -> tuple[Layer, ...]:
        """Return the nodes that tract's own profiler tells, products with what they multiply in.

        It repeats its runs for some seconds itself, and tells means.
        """
        del n_runs
        nodes = json.loads(self._of_size(len(images)).profile_json([images]))["nodes"]
        told = [node for node in sorted(nodes, key=lambda node: node["qualified_id"]) if node["op_name"] not in SKIPPED]
        return tuple(self._layer(node) for node in told)

    def close(self) -> None:
        """Free the runnables."""
        self._runnables.clear()

    def _layer(self, node: dict[str, Any]) -> Layer:
        name, kind = node["node_name"], node["op_name"]
        parts = name.split(".")
        prefixes = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
        known = next((prefix for prefix in prefixes if prefix in self._request.nodes.names), None)
        precisions = [MULTIPLIED.get(cost, cost) for cost in node.get("cost", {})]
        return Layer(
            name=name,
            kind=KINDS.get(kind, kind),
            kernel=kind,
            precision=precisions[0] if precisions else "",
            is_compute=kind not in MOVING,
            onnx_nodes=(self._request.nodes.names[known],) if known else (),
            time_ns=node["secs_per_iter"] * NS_PER_S if "secs_per_iter" in node else None,
        )

    def _of_size(self, size: int) -> Any:
        if size not in self._runnables:
            self._runnables[size] = self._made(size)
        return self._runnables[size]

    def _made(self, size: int) -> Any:
        shape = ",".join(str(number) for number in (size, *self._request.input.shape[1:]))
        with tempfile.TemporaryDirectory(prefix="harness-tract-") as folder:
            path = Path(folder) / "m.onnx"
            import_runtime("onnx").save(with_batch(self._model, size), str(path))
            try:
                model = self._tract.onnx().load(str(path))
                model.set_input_fact(0, f"{shape},f32")
                model.set_output_fact(0, None)
                return model.into_model().into_runnable()
            except self.errors as error:
                reason = " ".join(str(error).split())
                raise BuildError(
                    f"{self._request.subject}: tract cannot build it for batch {size}: {reason}"
                ) from error


class TractBackend(HostBackend):
    """Runs ONNX files in tract."""

    name = "tract"
    required_modules = ("tract", "onnx", "onnxruntime")
    distributions = ("tract",)
    traits = Traits(
        runtime="tract",
        extra="tract",
        batch="one runnable for each size",
        layers="names, types of products, times",
        abilities={
            **takes_files(
                {
                    Precision.FP32: "FP32",
                    Precision.FP16: "FP32, weights rounded to FP16",
                    Precision.INT8: "Q/DQ as float emulation",
                }
            ),
            Precision.BF16: takes_casts("FP32, weights rounded to BF16"),
        },
    )

    def open(self, request: OpenRequest) -> Opened:
        """Read the file for every batch size. Raises: BuildError, BackendUnavailable."""
        tract = import_runtime("tract", self.install_hint)
        return Opened(
            runner=TractRunner(tract, widened(request.model), request),
            engine_bytes=os.path.getsize(request.artifact.onnx_path),
            options={"threads": "1 (its only way)"},
            notes=("engine size is that of the ONNX file: tract keeps no other form on disk",),
        )


BACKEND = TractBackend()

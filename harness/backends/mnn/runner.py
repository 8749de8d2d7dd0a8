"""One .mnn model in MNN's sessions."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.backends._host.engine import BoundCall
from harness.backends._host.request import OpenRequest
from harness.errors import BuildError, MeasurementError
from harness.models.onnx_graph import NodeIndex
from harness.precision.effective import median_times, onnx_nodes_of
from harness.protocols import Images, Outputs
from harness.records import Layer

INT8_MARK = "DT_INT8"  # in the type that MNN tells of an operator with 8-bit kernels
ADDED_PARTS = re.compile(r"(?:__matmul_converted|_raster_\d+)+$")  # to the name of the tensor that a node makes
MOVING_OPERATORS = frozenset({"Cast", "ConvertTensor", "FloatToInt8", "Int8ToFloat", "Raster", "Reshape", "Shape"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session of one batch size, and its tensors."""

    net: Any
    session: Any
    source: Any
    target: Any


class MnnRunner:
    """Sessions of the batch sizes asked for, and one for all others. Implements `_host.engine.Runner`."""

    errors: tuple[type[BaseException], ...] = (RuntimeError, ValueError, SystemError)

    def __init__(self, mnn: Any, data: bytes, request: OpenRequest) -> None:
        self._mnn, self._label, self._nodes = mnn, request.label, request.nodes
        self._threads, self._n_outputs = request.options.num_threads, request.output.shape[1] or 1
        self._folder = tempfile.TemporaryDirectory(prefix="harness-mnn-")  # an interpreter is opened from a file only
        self._path = Path(self._folder.name) / "m.mnn"
        self._path.write_bytes(data)
        row = tuple(size or 1 for size in request.input.shape[1:])
        sizes = (request.input.shape[0],) if request.input.shape[0] else request.batch_sizes
        self._sessions = {size: self._opened((size, *row)) for size in sizes}

    def run(self, images: Images) -> Outputs:
        """Copy a batch in, run it and copy the output out. Raises: MeasurementError for an error of MNN's."""
        session = self._sessions.get(len(images))
        if session is None:
            session = self._sessions[len(images)] = self._opened(images.shape)
        self._fill(session, images)
        self._check(session.net.runSession(session.session))
        return self._outputs(session, len(images))

    def bind(self, images: Images) -> BoundCall:
        """Give a session of its own its batch, anew before each run: MNN computes in the memory of its input."""
        session, mnn = self._opened(images.shape), self._mnn
        batch = mnn.Tensor(images.shape, mnn.Halide_Type_Float, images, mnn.Tensor_DimensionType_Caffe)
        fill, run, arguments = session.source.copyFrom, session.net.runSession, session.session

        def compute() -> object:
            fill(batch)
            return run(arguments)

        return BoundCall(compute=compute, outputs=lambda: self._outputs(session, len(images)))

    def layers(self, images: Images, n_runs: int) -> tuple[Layer, ...]:
        """Return the operators as MNN calls back between them; callbacks make small ones look longer than they are."""
        session = self._opened(images.shape)
        self._fill(session, images)
        kinds: dict[str, str] = {}
        runs: list[dict[str, float]] = []
        for _ in range(n_runs):
            runs.append({})
            before, after = self._callbacks(kinds, runs[-1])
            session.net.runSessionWithCallBackInfo(session.session, before, after)
        times = median_times(runs)
        return tuple(layer_of(name, kind, self._nodes, times[name]) for name, kind in kinds.items())

    def facts(self) -> dict[str, str]:
        """Return what MNN tells of a session."""
        session = next(iter(self._sessions.values()))
        memory, flops, backend = (session.net.getSessionInfo(session.session, code) for code in range(3))
        return {"memory": f"{memory:.3g} MB", "work": f"{flops:.3g} MFLOP", "backend": str(backend)}

    def close(self) -> None:
        """Free the sessions."""
        self._sessions.clear()
        self._folder.cleanup()

    def _callbacks(
        self, kinds: dict[str, str], times: dict[str, float]
    ) -> tuple[Callable[..., bool], Callable[..., bool]]:
        started = [0]

        def before(tensors: Any, info: Any) -> bool:
            del tensors, info
            started[0] = time.perf_counter_ns()
            return True

        def after(tensors: Any, info: Any) -> bool:
            del tensors
            times[info.getName()] = float(time.perf_counter_ns() - started[0])
            kinds[info.getName()] = info.getType()
            return True

        return before, after

    def _opened(self, shape: tuple[int, ...]) -> Session:
        net = self._mnn.Interpreter(str(self._path))
        session = net.createSession({"backend": "CPU", "numThread": self._threads, "precision": "high"})
        if session is None:
            raise BuildError(f"{self._label}: MNN made no session")
        source = net.getSessionInput(session)
        net.resizeTensor(source, shape)
        net.resizeSession(session)
        return Session(net=net, session=session, source=source, target=net.getSessionOutput(session))

    def _fill(self, session: Session, images: Images) -> None:
        mnn = self._mnn
        session.source.copyFrom(mnn.Tensor(images.shape, mnn.Halide_Type_Float, images, mnn.Tensor_DimensionType_Caffe))

    def _outputs(self, session: Session, n_images: int) -> Outputs:
        mnn, shape = self._mnn, (n_images, self._n_outputs)
        host = mnn.Tensor(shape, mnn.Halide_Type_Float, np.empty(shape, np.float32), mnn.Tensor_DimensionType_Caffe)
        session.target.copyToHostTensor(host)
        return np.array(host.getNumpyData(), np.float32).reshape(shape)

    def _check(self, status: int) -> None:
        """Check what a run answers: MNN prints its errors and leaves the output as it was."""
        if status:
            raise MeasurementError(f"{self._label}: MNN failed with status {status}")


def layer_of(name: str, kind: str, nodes: NodeIndex, time_ns: float) -> Layer:
    """Return an operator as a layer; without a mark it computes in FP32, since precision `high` was asked."""
    return Layer(
        name=name,
        kind=kind.partition(" ")[0],
        kernel=kind,
        precision="int8" if INT8_MARK in kind else "fp32",
        is_compute=kind.partition(" ")[0] not in MOVING_OPERATORS,
        onnx_nodes=onnx_nodes_of(ADDED_PARTS.sub("", name), nodes.names),
        time_ns=time_ns,
    )

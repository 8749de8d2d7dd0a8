"""TVM (Relax) on the CPU, untuned. `import tvm` happens in `build`, in worker processes only."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from harness.backends._cpu import import_runtime
from harness.backends._host.adapter import HostBackend
from harness.backends._host.engine import BoundCall
from harness.backends._host.request import Opened, OpenRequest
from harness.backends._traits import Traits, takes_casts, takes_files
from harness.errors import BuildError
from harness.precision.effective import is_multiplying, median_times
from harness.protocols import Images, Outputs
from harness.records import Layer
from harness.specs import Precision

THREADS = "TVM_NUM_THREADS"  # read when TVM is imported
PIPELINE = "zero"  # without it nothing is fused, and every product transposes its weights at every call
PRECISION_OF_DTYPE = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8"}
MOVING = ("reshape", "transpose", "cast", "quantize", "dequantize")


class TvmRunner:
    """A virtual machine of one compiled module; its batch is free. Implements `_host.engine.Runner`."""

    errors: tuple[type[BaseException], ...] = (RuntimeError, ValueError, TypeError)

    def __init__(self, tvm: Any, machine: Any, kernels: frozenset[str], request: OpenRequest) -> None:
        """`kernels`: the names of the functions that compute."""
        self._tvm, self._machine, self._kernels, self._request = tvm, machine, kernels, request
        self._main, self._dtypes = machine["main"], dict[str, str]()

    def run(self, images: Images) -> Outputs:
        """Run one batch."""
        return self._read(self._main(self._tvm.runtime.tensor(images, self._tvm.cpu())))

    def bind(self, images: Images) -> BoundCall:
        """Hold the batch as a tensor."""
        main, batch = self._main, self._tvm.runtime.tensor(images, self._tvm.cpu())
        return BoundCall(compute=lambda: main(batch), outputs=lambda: self._read(main(batch)))

    def layers(self, images: Images, n_runs: int) -> tuple[Layer, ...]:
        """Return the kernels that the machine called, with the types that they were given and their times."""
        order: list[str] = []
        runs: list[dict[str, float]] = []
        for _ in range(n_runs):
            order, times = self._traced(images)
            runs.append(times)
        times = median_times(runs)
        products = [name for name in order if is_multiplying(name)]
        theirs = [node for node, kind in self._request.nodes.kinds.items() if is_multiplying(kind)]
        nodes = dict(zip(products, theirs, strict=True)) if len(products) == len(theirs) else {}
        return tuple(
            Layer(
                name=name,
                kind=name.partition("#")[0],
                precision=PRECISION_OF_DTYPE.get(self._dtypes[name], self._dtypes[name]),
                is_compute=not name.startswith(MOVING),
                onnx_nodes=(nodes[name],) if name in nodes else (),
                time_ns=times[name],
            )
            for name in order
        )

    def close(self) -> None:
        """Free the machine."""
        self._machine = self._main = None

    def _traced(self, images: Images) -> tuple[list[str], dict[str, float]]:
        """Return the kernels of one run in order, a later call of the same one as `name#2`, and their times [ns]."""
        order: list[str] = []
        times: dict[str, float] = {}
        started = [0]

        def instrument(*call: Any) -> int:
            _function, name, is_before, _result, *arguments = call
            if is_before:
                started[0] = time.perf_counter_ns()
            elif name in self._kernels:  # the others are the machine's own
                count = sum(known.partition("#")[0] == name for known in order)
                order.append(f"{name}#{count + 1}" if count else name)
                times[order[-1]] = float(time.perf_counter_ns() - started[0])
                self._dtypes[order[-1]] = str(getattr(arguments[0], "dtype", "")) if arguments else ""
            return 0

        self._machine.set_instrument(instrument)
        try:
            self.run(images)
        finally:
            self._machine.set_instrument(lambda *_: 0)
        return order, times

    def _read(self, made: Any) -> Outputs:
        return np.array((made if hasattr(made, "numpy") else made[0]).numpy(), np.float32)


class TvmBackend(HostBackend):
    """Compiles ONNX files by TVM's default schedules."""

    name = "tvm"
    required_modules = ("tvm", "onnx", "onnxruntime")
    distributions = ("apache-tvm",)
    is_light = False
    traits = Traits(
        runtime="TVM (Relax), untuned",
        extra="tvm",
        batch="free",
        layers="kernels, types, times",
        abilities={
            **takes_files(
                {
                    Precision.FP32: "FP32",
                    Precision.FP16: "FP16 of the file",
                    Precision.INT8: "Q/DQ as float emulation",
                }
            ),
            Precision.BF16: takes_casts("BF16 of the file"),
        },
    )

    def open(self, request: OpenRequest) -> Opened:
        """Compile the file for this CPU. Raises: BuildError, BackendUnavailable."""
        os.environ.setdefault(THREADS, str(request.options.num_threads))
        tvm = import_runtime("tvm", self.install_hint)
        relax, frontend = import_runtime("tvm.relax"), import_runtime("tvm.relax.frontend.onnx")
        cpu = tvm.target.codegen.llvm_get_system_cpu()
        target = tvm.target.Target({"kind": "llvm", "mcpu": cpu, "num-cores": int(os.environ[THREADS])})
        passes = [
            relax.transform.DecomposeOpsForInference(),
            relax.transform.CanonicalizeBindings(),
            relax.get_pipeline(PIPELINE),
        ]
        try:
            module = frontend.from_onnx(request.model, keep_params_in_input=False)
            with target:
                module = tvm.ir.transform.Sequential(passes)(module)
            compiled = tvm.compile(module, target=target)
        except Exception as error:  # TVM raises classes of its own, of no common base
            raise BuildError(f"{request.subject}: TVM cannot compile it: {_last_line(error)}") from error
        machine = relax.VirtualMachine(compiled, tvm.cpu())
        kernels = frozenset(
            var.name_hint for var, made in module.functions.items() if not isinstance(made, relax.Function)
        )
        return Opened(
            runner=TvmRunner(tvm, machine, kernels, request),
            engine_bytes=_library_bytes(compiled),
            options={"target": str(target), "pipeline": PIPELINE, "threads": os.environ[THREADS], "tuning": "untuned"},
            notes=("untuned: TVM's default schedules",),
        )


def _library_bytes(compiled: Any) -> int:
    with tempfile.TemporaryDirectory(prefix="harness-tvm-") as folder:
        path = Path(folder) / "m.so"
        compiled.export_library(str(path))
        return path.stat().st_size


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


BACKEND = TvmBackend()

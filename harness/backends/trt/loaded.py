"""A plan deserialized by TensorRT: the engine itself, its copies, and what they say of themselves."""

from __future__ import annotations

import time
from typing import Any

from harness.backends.trt.api import LogLines, TrtApi, make_logger
from harness.backends.trt.build import Plan
from harness.backends.trt.context import Lane
from harness.backends.trt.layers import layers_from_inspector
from harness.errors import BuildError
from harness.precision.effective import median_times
from harness.records import Layer

N_PROFILED_RUNS = 20


class PlanRefused(BuildError):
    """TensorRT did not take a plan: damaged, or of another version or GPU."""


class LoadedPlan:
    """One plan with its runtime and engine. `drop` frees them in TensorRT's order: engine, then runtime."""

    def __init__(self, api: TrtApi, plan: Plan, *, label: str) -> None:
        self.api, self.plan, self._label = api, plan, label
        self.lines = LogLines()
        self.logger = make_logger(api.trt, self.lines)
        self.load_ns = 0
        self._runtime: Any = None
        self.engine: Any = None

    def load(self) -> None:
        """Deserialize the plan. Raises: PlanRefused."""
        started = time.perf_counter_ns()
        self._runtime = self.api.trt.Runtime(self.logger)
        self.engine = self.deserialized()
        self.load_ns = time.perf_counter_ns() - started

    def deserialized(self) -> Any:
        """Return a fresh engine of the plan. Raises: PlanRefused."""
        seen = len(self.lines.errors)
        engine = self._runtime.deserialize_cuda_engine(self.plan.data)
        if engine is None:
            raise PlanRefused(f"{self._label}: TensorRT {self.api.version} refused the plan: {self.lines.reason(seen)}")
        return engine

    def new_context(self) -> Any:
        """Return an execution context. A lane makes it through this, and so holds no reference to the engine."""
        return self.engine.create_execution_context()

    @property
    def device_memory_bytes(self) -> int:
        """Device memory that one execution context takes [bytes]."""
        engine = self.engine
        # 10.0 has only the first, 11 only the second.
        size = engine.device_memory_size_v2 if hasattr(engine, "device_memory_size_v2") else engine.device_memory_size
        return int(size)

    def layers(self, lane: Lane, stream: Any) -> tuple[Layer, ...]:
        """Return the layers of the batch that a lane has just run, with the median time of each.

        The lane's context is dropped: with a profiler it waits at every enqueue.
        """
        inspector = self.engine.create_engine_inspector()
        inspector.execution_context = lane.context  # with its shapes set, formats of dynamic tensors are known
        text = str(inspector.get_engine_information(self.api.trt.LayerInformationFormat.JSON))
        return layers_from_inspector(text, times_ns=self._profiled(lane, stream), profile=lane.index)

    def _profiled(self, lane: Lane, stream: Any) -> dict[str, float]:
        """Return the median time of each layer [ns], and drop the lane's context."""
        base = self.api.trt.IProfiler
        runs: list[dict[str, float]] = []

        class LayerTimes(base):  # type: ignore[misc, valid-type]
            def __init__(self) -> None:
                base.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                runs[-1][layer_name] = runs[-1].get(layer_name, 0.0) + ms * 1e6

        times = LayerTimes()
        lane.context.profiler = times
        for _ in range(N_PROFILED_RUNS):
            runs.append({})
            lane.enqueue(stream)
            stream.synchronize()
        lane.close()  # before the profiler goes away
        del times
        return median_times(runs[1:])

    def drop(self) -> None:
        """Free the engine, then the runtime; contexts must be gone."""
        self.engine = None
        self._runtime = None

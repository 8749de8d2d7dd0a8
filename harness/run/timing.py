"""The latencies of a case: in its own worker, or with each engine in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace

from harness.machine.turns import turn_on
from harness.measure.latency import measure_latencies
from harness.protocols import Progress, no_progress
from harness.records import Latency
from harness.run.arms import Arm, RemoteArm, loading, open_arm
from harness.run.case_worker import CaseWorker, WorkerSettings
from harness.worker.interrupts import INTERRUPTS
from harness.worker.requests import CaseRequest, LayerReport, Prepared


def time_case(worker: CaseWorker, progress: Progress) -> tuple[Latency, ...]:
    """Time a prepared case at every batch size, in turn with its FP32 reference unless it is FP32 itself.

    Where what a process did before changes its times, the engine and FP32 are each loaded and timed in a fresh process,
    which take turns round by round; the case's worker has built both, and is idle meanwhile.
    Raises: the HarnessError of an arm, which names it; WorkerDied.
    """
    prepared = worker.prepared()
    if not prepared.is_timed_afresh:
        return worker.call("time", tuple[Latency, ...], progress)
    request = worker.request
    reference = request.case.source_on(request.case.backend, request.case.device)
    arms = [_arm(worker, loading(request, prepared), "timed")]
    if request.case != reference:
        built = worker.call("build_reference", Prepared, progress)
        beside = replace(loading(request, built), case=reference, outputs_path="")
        arms.append(_arm(worker, beside, "fp32"))
    with ExitStack() as stack:
        processes = [stack.enter_context(open_arm(arm)) for arm in arms]

        def arms_of(batch_size: int) -> list[RemoteArm]:
            return [arm for process in processes for arm in process.timed((batch_size,))]

        def turn(waiting: Callable[[], None]) -> AbstractContextManager[None]:
            def wait() -> None:
                INTERRUPTS.check()
                waiting()

            return turn_on(request.case.device, waiting=wait)

        found = measure_latencies(arms_of, request.timing, reference_case=reference.id, turn=turn, progress=progress)
        worker.add_facts(processes[0].engine_facts())
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """What is known of a case of which no more than its time was asked."""

    latencies: tuple[Latency, ...]
    layers: LayerReport | None = None


def time_alone(request: CaseRequest, settings: WorkerSettings, *, with_layers: bool = False) -> Alone:
    """Time a case that is neither scored nor judged; `with_layers`: then read back what ran.

    Raises: Unsupported; as `time_case`.
    """
    worker = CaseWorker(request, name=request.case.id, settings=settings)
    try:
        worker.prepare()
        latencies = time_case(worker, no_progress)
        return Alone(
            latencies=latencies, layers=worker.call("layers", LayerReport, no_progress) if with_layers else None
        )
    finally:
        worker.close()


def _arm(worker: CaseWorker, request: CaseRequest, name: str) -> Arm:
    return Arm(request=request, settings=worker.settings, name=f"{worker.name}-{name}")

"""What a worker answers, and the loop in which it does; the parent's side is `process.Worker`."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import numpy as np

from harness.errors import ConfigError, HarnessError
from harness.protocols import Progress
from harness.records import Availability, EngineFacts, OperatorOutcome
from harness.worker.measuring import MEASUREMENTS, exported
from harness.worker.opening import OpenCase
from harness.worker.operators import operator_names, outcomes
from harness.worker.probing import facts_of, inspected, needs_of, origin_of, probed
from harness.worker.requests import (
    BackendNeeds,
    CaseRequest,
    Exported,
    ExportRequest,
    ModuleOrigin,
    OnnxQuestion,
    OperatorsRequest,
    Prepared,
    StepRequest,
    TimersRequest,
)
from harness.worker.swallowed import SWALLOWED
from harness.worker.timers import OpenArms

PROGRESS_INTERVAL_NS = 200_000_000
TOLD_AT_ONCE = ("probe", "run_operators")
UNTOLD = ("time_step",)  # so many and so short that the log would hold nothing else


class Service:
    """The calls a worker answers."""

    def __init__(self, stage: Callable[[str], None]) -> None:
        """Answer none yet. `stage`: tells the parent what is done from now on, one of STAGE_LIMITS_S."""
        self._open: OpenCase | None = None
        self._arms: OpenArms | None = None
        self._stage = stage

    def probe(self, names: tuple[str, ...], progress: Progress) -> tuple[Availability, ...]:
        """Probe backends, one after the other; the parent sees how far it came if one of them crashes."""
        found = []
        for index, name in enumerate(names):
            progress(index, len(names))
            found.append(probed(name, self._stage))
        return tuple(found)

    def describe(self, names: tuple[str, ...], progress: Progress) -> tuple[BackendNeeds, ...]:
        """Say what backends need and which options they take, without probing them."""
        return tuple(map(needs_of, names))

    def origins(self, modules: tuple[str, ...], progress: Progress) -> tuple[ModuleOrigin, ...]:
        """Import modules and say where they lie."""
        return tuple(map(origin_of, modules))

    def operator_names(self, request: OperatorsRequest, progress: Progress) -> tuple[str, ...]:
        """Return the names of the nets of one operator each that a precision has."""
        return operator_names(request.precision)

    def run_operators(self, request: OperatorsRequest, progress: Progress) -> tuple[OperatorOutcome, ...]:
        """Run nets of one operator each; the parent sees how far it came if one of them crashes."""
        self._stage("build")
        return tuple(outcomes(request, progress))

    def inspect_model(self, question: OnnxQuestion, progress: Progress) -> object:
        """Read what an ONNX file says of itself: a ModelSpec."""
        return inspected(question)

    def prepare(self, request: CaseRequest, progress: Progress) -> Prepared:
        """Open a case in this worker."""
        self._arms = None
        self._open = OpenCase(request, stage=self._stage, progress=progress)
        return self._open.prepare()

    def measure(self, name: str, request: CaseRequest, progress: Progress) -> object:
        """Make one of MEASUREMENTS of the open case."""
        case = self._opened(request)
        if name == "time" and case.is_timed_afresh:
            case.cold.leave()  # before its times nothing runs
        else:
            case = self._running(request)
        return MEASUREMENTS[name](case, progress)

    def build_reference(self, request: CaseRequest, progress: Progress) -> Prepared:
        """Leave FP32 of the open case in the cache."""
        self._opened(request).stage("time")
        return self._running(request).build_reference()

    def open_timers(self, request: TimersRequest, progress: Progress) -> object:
        """Make timers of the open case, which the parent lets run step by step; say how each times."""
        if self._arms is None:
            self._arms = OpenArms(self._opened(request.case))
        return self._arms.open(request)

    def time_step(self, request: StepRequest, progress: Progress) -> object:
        """Take one step of timing one batch size."""
        if self._arms is None:
            raise ConfigError(f"{request.case.case.id} has no timers in this worker")
        return self._arms.step(request)

    def export(self, request: ExportRequest, progress: Progress) -> Exported:
        """Write the engine of the open case to a file."""
        return exported(self._opened(request.case), request.path)

    def facts(self, request: CaseRequest, progress: Progress) -> EngineFacts:
        """Say what the open case's engine has noted by now."""
        return facts_of(self._opened(request))

    def close(self, request: CaseRequest, progress: Progress) -> None:
        """Free the open case."""
        if self._open:
            self._open.close()
        self._open = self._arms = None

    def _opened(self, request: CaseRequest) -> OpenCase:
        if self._open is None or self._open.request.case != request.case:
            raise ConfigError(f"{request.case.id} is not open in this worker")
        return self._open

    def _running(self, request: CaseRequest) -> OpenCase:
        """Return the open case after the first inference of this process."""
        case = self._opened(request)
        case.cold.run_once(case.engine, case.batch_sizes[0], case.request.model.tensors)
        return case


ARGUMENTS: dict[str, Any] = {  # all others take a CaseRequest
    "probe": tuple[str, ...],
    "describe": tuple[str, ...],
    "origins": tuple[str, ...],
    "inspect_model": OnnxQuestion,
    "operator_names": OperatorsRequest,
    "run_operators": OperatorsRequest,
    "open_timers": TimersRequest,
    "export": ExportRequest,
    "time_step": StepRequest,
}


def serve(channel: Any) -> None:
    """Answer calls until the channel closes. `channel` is execnet's: send and iterate."""
    SWALLOWED.listen()
    service = Service(lambda name: _send(channel, {"stage": name}))
    for message in channel:
        call = msgspec.json.decode(message, type=dict[str, msgspec.Raw])
        name = msgspec.json.decode(call["call"], type=str)
        # Some report every step: the parent must know what was being done when a worker dies.
        interval_ns = 0 if name in TOLD_AT_ONCE else PROGRESS_INTERVAL_NS
        _send(channel, _answer(service, name, call["value"], _reporter(channel, interval_ns)))


def _answer(service: Service, name: str, value: msgspec.Raw, progress: Progress) -> dict[str, object]:
    started = time.perf_counter()
    try:
        argument = msgspec.json.decode(value, type=ARGUMENTS.get(name, CaseRequest))
        called = partial(service.measure, name) if name in MEASUREMENTS else getattr(service, name)
        result = msgspec.Raw(msgspec.json.encode(called(argument, progress), enc_hook=_plain))
        SWALLOWED.refuse()
    except HarnessError as error:
        SWALLOWED.forget()
        return {"error": {"kind": type(error).__name__, "message": str(error)}}
    except BaseException as error:  # also SystemExit: a library that leaves costs one case, with its reason
        SWALLOWED.forget()
        print(traceback.format_exc(), flush=True)
        return {"error": {"kind": "HarnessError", "message": f"{name}: {_sentence(error)}"}}
    if name not in UNTOLD:
        print(f"{name}: {time.perf_counter() - started:.3f} s", flush=True)
    return {"result": result}


def _plain(value: Any) -> str | int | float:
    """Return what a backend told in a type of PyTorch or NumPy as one of Python. Raises: TypeError."""
    if isinstance(value, np.longdouble):  # its item is itself
        return float(value)
    if isinstance(value, np.generic):
        plain: str | int | float = value.item()
        return plain
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(f"a backend's answer holds a {type(value).__name__}, which cannot be sent")


def _sentence(error: BaseException) -> str:
    """Return an error that is none of ours in one line, with its place."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return f"{type(error).__name__} at {os.path.basename(where.filename)}:{where.lineno}" + (
        f": {text}" if text else ""
    )


def _send(channel: Any, message: dict[str, object]) -> None:
    channel.send(msgspec.json.encode(message).decode())


def _reporter(channel: Any, interval_ns: int) -> Progress:
    """Return a progress function that sends at most one message an interval."""
    last = [0]

    def report(done: int, total: int) -> None:
        now = time.monotonic_ns()
        if done in (0, total) or now - last[0] >= interval_ns:
            last[0] = now
            _send(channel, {"progress": (done, total)})

    return report

"""A run of two cases, one of which fails at one stage in one way; what became of both, and what was left behind."""

import contextlib
import os
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from graph_nets import write_net

from harness.errors import HarnessError
from harness.models import load_card
from harness.options.values import HarnessOptions
from harness.protocols import no_progress
from harness.run.case_worker import WorkerSettings
from harness.run.pairing import Arm, time_pair
from harness.run.plan import plan_run
from harness.run.probing import probe_backends
from harness.run.session import RunSession
from harness.specs import BuildOptions, Case, DatasetRequest, Precision, TimingPlan
from harness.worker.requests import CaseRequest

ROOT = Path(__file__).parents[1]
FAKES = str(ROOT / "tests" / "fakes")
VARIABLE = "NN_FAKE_FAULT"
PROBING = ("import", "probe")
CONVERTING = ("convert", "calibrate")
GRAPHS = ("samples", "metric")  # a model of named tensors; a task of a user's own that scores them
APART = ("arm", "confirm")  # engines timed in processes of their own: one beside FP32's, and a pair
ENDINGS = ("layers", "invariance", "close")
STAGES = (*PROBING, "supports", *CONVERTING, "build", "load", "score", *GRAPHS, "time", *APART, *ENDINGS)
LIMIT_S = 2.0  # of the faulty stage: `supports` is told as import, `load` as build
PATIENT_LIMIT_S = 12.0  # where a sound neighbour has the same limit, on a machine that others use too
TOLD_AS = {
    "supports": "import",
    "load": "build",
    "samples": "score",
    "metric": "score",
    "arm": "time",
    "confirm": "time",
}
CRASHES = {
    "segfault": "crashed (SIGSEGV)",
    "abort": "crashed (SIGABRT)",
    "kill": "crashed (SIGKILL",
    "hard_exit": "exited with code 0",
    "slow_death": "exited with code 3",
    "child": "crashed (SIGABRT)",
}
RAISED = {
    "exit": "SystemExit",
    "exception": "RuntimeError",
    "base_exception": "KeyboardInterrupt",
    "out_of_memory": "MemoryError",
    "callback": "ValueError in a callback",
    "thread": "ValueError in a thread",
}
SILENT = ("hang", "hang_with_the_gil", "garbage_on_the_channel", "child_and_hang")
FAULTS = (*CRASHES, *RAISED, *SILENT, "garbage_on_stdout")
WRONG = {  # (stage, fault of an engine's answers) -> (what is told of it, how the case ends)
    ("score", "wrong_dtype"): ("outputs are float64; expected float32", "error"),
    ("score", "wrong_shape"): ("outputs of shape (100, 9)", "error"),
    ("score", "nan"): ("gives nan as an output", "error"),
    ("score", "stale"): ("", "failed"),
    ("score", "permuted"): ("", "failed"),
    ("samples", "wrong_dtype"): ("output scores is float64; the engine declares float32", "error"),
    ("samples", "wrong_shape"): ("another shape", "failed"),
    ("samples", "fewer_samples"): ("output scores has shape [3, 3] for 4 samples", "error"),
    ("samples", "wrong_name"): ("gives scores_; expected scores", "error"),
    ("samples", "nan"): ("values of them NaN or infinite", "error"),
    ("samples", "stale"): ("", "failed"),
    ("samples", "permuted"): ("", "failed"),
    ("time", "constant_timer"): ("it stands still, or its timer returns a constant", "error"),
    ("time", "negative_timer"): ("expected as many positive times", "error"),
    ("arm", "constant_timer"): ("it stands still, or its timer returns a constant", "error"),
    ("arm", "negative_timer"): ("expected as many positive times", "error"),
    ("confirm", "constant_timer"): ("it stands still, or its timer returns a constant", "error"),
    ("confirm", "negative_timer"): ("expected as many positive times", "error"),
}


@dataclass(frozen=True, kw_only=True)
class Fate:
    """What became of the faulty case, of its neighbour, and of the machine."""

    status: str
    reason: str
    neighbour: str
    processes: tuple[str, ...]
    files: tuple[str, ...]


def told_of(stage, fault):
    """Return what the reason of a fault has to say, with its stage; ("",) where the case passes."""
    at = TOLD_AS.get(stage, stage)
    if fault in CRASHES:
        return (CRASHES[fault], f"during {at}", "last log line: about to fail")
    if fault in RAISED:
        return (RAISED[fault],)
    return (f"during {at}", "last log line: about to fail") if fault in SILENT else ("",)


def fate_of(stage, fault, folder, *, backends=("fake-fault", "fake-honest")):
    """Run the cases of both backends, or of the faulty one alone, in a folder of their own."""
    with _environment(f"{'time' if stage in APART else stage}:{fault}", folder / "tmp"):
        run = _probe if stage in PROBING else _confirm if stage == "confirm" else _run
        status, reason, neighbour = run(stage, folder, backends)
    return Fate(
        status=status,
        reason=reason,
        neighbour=neighbour,
        processes=tuple(workers_below(folder / "tmp")),
        files=tuple(path.name for path in (folder / "tmp").iterdir()),
    )


def workers_below(temporary):
    """Yield the command line of every living process that is a worker, or of one, with its scratch in a folder."""
    mark = f"TMPDIR={temporary}/nn-harness-".encode()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (place / "environ").read_bytes():
                yield (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
        except OSError:
            continue


@contextmanager
def _environment(fault, temporary):
    temporary.mkdir(parents=True)
    before, directory = dict(os.environ), tempfile.tempdir
    os.environ[VARIABLE] = fault
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        tempfile.tempdir = directory


def _options(stage, folder, backends):
    limit_s = LIMIT_S if len(backends) == 1 else PATIENT_LIMIT_S
    is_silent = os.environ[VARIABLE].partition(":")[2] in SILENT
    is_int8 = stage in CONVERTING
    if stage == "arm":
        backends = ("fake-fault-afresh", *backends[1:])
    return HarnessOptions(
        backends=backends,
        precisions=(Precision.INT8,) if is_int8 else (Precision.FP32,),
        recipes=("faulty",) if is_int8 else (),
        models=(str(_graph_in(folder, stage)),) if stage in GRAPHS else ("mlp",),
        extension_dirs=(FAKES,),
        data=DatasetRequest(name=str(folder / "rows.npz"), score_images=12)
        if stage == "metric"
        else DatasetRequest(score_images=200, calibration_images=100),
        named=frozenset({"timing.batch_sizes", *(("data.name",) if stage == "metric" else ())}),
        timing=TimingPlan(batch_sizes=(4,), n_rounds=6, round_ns=500_000, warmup_ns=0),
        floor=0.9,
        report_dir=str(folder / "reports"),
        engine_cache=str(folder / "cache"),
        root=str(folder),
        stage_timeouts=((TOLD_AS.get(stage, stage), limit_s),) if is_silent else (),
    )


def _graph_in(folder, stage):
    """Write a model of named tensors with its card, and samples where a task scores them; return the model's path."""
    path = write_net(folder, "text")
    asked = '[model]\nfile = "text.onnx"\n[graph]\nshapes = ["ids:1x7", "mask:1x7"]\n'
    if stage == "metric":
        rows = {"ids": np.zeros((12, 7), np.int64), "mask": np.ones((12, 7), np.int64)}
        np.savez(folder / "rows.npz", **rows, labels=np.zeros(12, np.int64))
        asked += '[output]\ntask = "faulty"\n'
    path.with_suffix(".toml").write_text(asked)
    return path


def _probe(stage, folder, backends):
    found = probe_backends(backends, _options(stage, folder, backends))
    status = ["passed" if availability.usable else "error" for availability in found]
    return status[0], found[0].reason, status[-1]


def _confirm(stage, folder, backends):
    """Time the faulty engine in a pair with the honest one, as a suspected time is confirmed."""
    options = _options(stage, folder, backends)
    settings = WorkerSettings(
        log_dir=folder / "logs",
        python=sys.executable,
        extension_dirs=(FAKES,),
        limits=options.limits,
        progress=lambda label: no_progress,
    )

    def arm(backend):
        case = Case(model="mlp", backend=backend, precision=Precision.FP32, recipe="none")
        model = load_card(ROOT / "models" / "mlp.toml")
        build = BuildOptions(cache_dir=str(folder / "cache"))
        request = CaseRequest(case=case, model=model, data=options.data, build=build, timing=options.timing)
        return Arm(request=request, settings=settings, name=f"mlp-{backend}")

    try:
        time_pair(arm("fake-fault"), arm("fake-honest"), n_rounds=8)  # enough samples to tell a clock that stands still
    except HarnessError as error:
        return "error", str(error), "passed"
    return "passed", "", "passed"


def _run(stage, folder, backends):
    options = _options(stage, folder, backends)
    plan = plan_run(options, models_dir=ROOT / "models", probe=False)
    gates = {"drift", "invariance"} if stage in GRAPHS else {"floor", "invariance"}
    session = RunSession(options, plan, command="", gates=gates)
    for case in plan.cases:
        run = session.open_case(case)
        # A recipe or a task is shared by both backends: its fault is for the first alone.
        if stage in (*CONVERTING, "metric") and case.backend == "fake-honest":
            os.environ[VARIABLE] = ""
        scored = run.samples if stage in GRAPHS else run.accuracy
        for ask in (scored, run.latencies, run.layers, run.invariance):
            try:
                ask()
            except HarnessError:
                break
        session.close_case(run)
    if stage in GRAPHS:
        with contextlib.suppress(HarnessError):
            session.answer(plan.cases[0], "drift")
    records = session.records
    session.abandon()
    return str(records[0].status), records[0].reason, str(records[-1].status)

"""A run of two cases, one of which fails at one stage in one way; what became of both, and what was left behind."""

import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.options.values import HarnessOptions
from harness.run.plan import plan_run
from harness.run.probing import probe_backends
from harness.run.session import RunSession
from harness.specs import DatasetRequest, Precision, TimingPlan

ROOT = Path(__file__).parents[1]
FAKES = str(ROOT / "tests" / "fakes")
VARIABLE = "NN_FAKE_FAULT"
PROBING = ("import", "probe")
CONVERTING = ("convert", "calibrate")
STAGES = (*PROBING, "supports", *CONVERTING, "build", "load", "score", "time", "layers", "invariance", "close")
LIMIT_S = 2.0  # of the faulty stage: `supports` is told as import, `load` as build
PATIENT_LIMIT_S = 12.0  # where a sound neighbour has the same limit, on a machine that others use too
TOLD_AS = {"supports": "import", "load": "build"}
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
WRONG = {  # fault of an engine's answers -> (its stage, what is told of it, how the case ends)
    "wrong_dtype": ("score", "outputs are float64; expected float32", "error"),
    "wrong_shape": ("score", "outputs of shape (100, 9)", "error"),
    "nan": ("score", "gives nan as an output", "error"),
    "stale": ("score", "", "failed"),
    "permuted": ("score", "", "failed"),
    "constant_timer": ("time", "it stands still, or its timer returns a constant", "error"),
    "negative_timer": ("time", "expected as many positive times", "error"),
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
    with _environment(f"{stage}:{fault}", folder / "tmp"):
        status, reason, neighbour = (_probe if stage in PROBING else _run)(stage, folder, backends)
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
    return HarnessOptions(
        backends=backends,
        precisions=(Precision.INT8,) if is_int8 else (Precision.FP32,),
        recipes=("faulty",) if is_int8 else (),
        models=("mlp",),
        extension_dirs=(FAKES,),
        data=DatasetRequest(score_images=200, calibration_images=100),
        timing=TimingPlan(batch_sizes=(4,), n_rounds=6, round_ns=500_000, warmup_ns=0),
        floor=0.9,
        report_dir=str(folder / "reports"),
        engine_cache=str(folder / "cache"),
        root=str(folder),
        stage_timeouts=((TOLD_AS.get(stage, stage), limit_s),) if is_silent else (),
    )


def _probe(stage, folder, backends):
    found = probe_backends(backends, _options(stage, folder, backends))
    status = ["passed" if availability.usable else "error" for availability in found]
    return status[0], found[0].reason, status[-1]


def _run(stage, folder, backends):
    options = _options(stage, folder, backends)
    plan = plan_run(options, models_dir=ROOT / "models", probe=False)
    session = RunSession(options, plan, command="", gates={"floor", "invariance"})
    for case in plan.cases:
        run = session.open_case(case)
        # A recipe is shared by both backends: its fault is for the first alone.
        if stage in CONVERTING and case.backend == "fake-honest":
            os.environ[VARIABLE] = ""
        for ask in (run.accuracy, run.latencies, run.layers, run.invariance):
            try:
                ask()
            except HarnessError:
                break
        session.close_case(run)
    records = session.records
    return str(records[0].status), records[0].reason, str(records[-1].status)

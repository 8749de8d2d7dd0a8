"""A run that is killed goes on: nothing is measured twice, and it ends as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from harness.errors import BaselineError, ConfigError
from harness.options.values import HarnessOptions
from harness.records import Status
from harness.run.plan import plan_run
from harness.run.session import RunSession
from harness.run.stored import refuse_unfinished
from harness.specs import DatasetRequest, Precision, TimingPlan
from harness.store.runs import load_run

ROOT = Path(__file__).parents[2]
FAKES = str(ROOT / "tests" / "fakes")
IN_TIME_S = 5
FEWER = ("fake-honest", "fake-nan")  # backends, where two do
GATES = ("chance", "fp32", "invariance")


@pytest.fixture
def begin(tmp_path):
    """Return a function that begins a run, or goes on with one."""
    plans = {}  # by backends: making one asks a worker, and nothing that a test changes bears on it

    def start(backends=("fake-honest", "fake-loses", "fake-nan"), **changes):
        options = HarnessOptions(
            backends=backends,
            precisions=(Precision.FP32, Precision.FP16),
            models=("mlp",),
            extension_dirs=(FAKES,),
            data=DatasetRequest(score_images=200, calibration_images=100),
            timing=TimingPlan(batch_sizes=(4,), n_rounds=6, round_ns=500_000, warmup_ns=0),
            report_dir=str(tmp_path / "reports"),
            engine_cache=str(tmp_path / "cache"),
            root=str(tmp_path),
            **changes,
        )
        if backends not in plans:
            plans[backends] = plan_run(options, models_dir=ROOT / "models", probe=False)
        return RunSession(options, plans[backends], command="pytest suites/", gates=GATES)

    return start


def measure(session, cases):
    for case in cases:
        run = session.open_case(case)
        run.accuracy() if case.backend == "fake-honest" else _try(run.accuracy)
        session.close_case(run)


def _try(ask):
    try:
        ask()
    except Exception as error:
        print(error)


def ledger(session):
    """What a run says of its cases, without times."""
    found = []
    for record in session.records:
        verdicts = [(v.gate, v.outcome, v.code, v.n_lost, v.n_gained) for v in record.verdicts]
        digest = record.accuracy.outputs_sha256 if record.accuracy else ""
        found.append((record.case.id, record.status, record.reason, record.error, digest, verdicts))
    return found


def finish(session):
    for case in session.plan.cases:
        _try(lambda case=case: session.answer(case, "fp32"))
        _try(lambda case=case: session.answer(case, "chance"))
    found = ledger(session)
    session.finish(clean=False)
    return found


def test_a_killed_run_goes_on_and_measures_nothing_twice(begin, tmp_path):
    whole = begin()
    measure(whole, whole.plan.cases)
    expected = finish(whole)

    killed = begin()
    measure(killed, killed.plan.cases[:4])
    del killed  # as kill -9 leaves it
    folder = max((tmp_path / "reports").glob("2*"))
    with (folder / "records.jsonl").open("ab") as file:
        file.write(b'{"case": {"model": "ml')
    logs = {path.name: path.stat().st_size for path in (folder / "logs").iterdir()}
    assert all(record.status is Status.NOT_JUDGED for record in load_run(folder)[1])

    resumed = begin(resume=folder.name)
    assert "records.jsonl:5: the line was torn" in resumed.run.notes[0]
    measure(resumed, resumed.plan.cases)
    assert {name: (folder / "logs" / name).stat().st_size for name in logs} == logs
    assert finish(resumed) == expected
    run, records = load_run(folder)
    assert run.finished_at
    assert len({record.case.id for record in records if not record.is_reference}) == len(resumed.plan.cases)


def test_outputs_that_are_gone_or_others_are_made_again(begin, tmp_path):
    killed = begin()
    measure(killed, killed.plan.cases[:1])
    (folder,) = (tmp_path / "reports").glob("2*")
    (outputs,) = (folder / "outputs").iterdir()
    outputs.write_bytes(outputs.read_bytes()[:-4] + b"\0\0\0\0")
    del killed
    resumed = begin(resume=folder.name)
    assert not resumed.open_case(resumed.plan.cases[0]).was_scored


REFUSED = [
    ({"resume": "nowhere"}, "--resume=nowhere: .*nowhere holds no run"),
    ({"resume": "latest", "num_threads": 2}, "was started with other options; repeat those of: pytest suites/"),
    ({"resume": "latest", "strict": True}, "was started with other options"),
]


def test_what_cannot_be_resumed_is_refused_in_one_line(begin):
    killed = begin()
    measure(killed, killed.plan.cases[:1])
    killed._store.release()
    for changes, words in REFUSED:
        with pytest.raises(ConfigError, match=words):
            begin(**changes)


def test_a_run_that_is_still_written_or_has_finished_is_not_resumed(begin):
    session = begin()
    measure(session, session.plan.cases[:1])
    with pytest.raises(ConfigError, match="is being written by another process"):
        begin(resume=session.run.id)
    session.finish(clean=False)
    with pytest.raises(ConfigError, match="has finished; there is nothing to resume"):
        begin(resume=session.run.id)
    with pytest.raises(ConfigError, match=r"every run in .* has finished"):
        begin(resume="latest")


def test_an_interrupted_run_is_not_judged_cannot_be_accepted_and_goes_on(begin, tmp_path):
    session = begin(FEWER)
    measure(session, session.plan.cases[:2])
    session.interrupt("SIGTERM")
    folder = tmp_path / "reports" / session.run.id
    run, records = load_run(folder)
    assert not run.finished_at
    assert [record.status for record in records] == [Status.NOT_JUDGED] * 2
    page = (folder / "index.html").read_text()
    assert "the run was interrupted (SIGTERM) when 2 of 4 cases had begun; none is judged." in page
    assert f"--resume={run.id}" in "\n".join(session.lines(color=False))
    with pytest.raises(BaselineError, match=f"run {run.id} did not finish, so nothing of it is judged"):
        refuse_unfinished(run)
    refuse_unfinished(replace(run, finished_at="2026-01-01T00:00:00+00:00"))
    resumed = begin(FEWER, resume="latest")
    measure(resumed, resumed.plan.cases)
    assert len(finish(resumed)) == 4


def test_a_case_that_was_interrupted_while_it_was_prepared_is_measured_by_resume(begin, tmp_path):
    session = begin(FEWER)
    measure(session, session.plan.cases[:1])
    session.close_case(session.open_case(session.plan.cases[1]))  # as a signal leaves it: nothing was asked yet
    session.interrupt("SIGINT")
    folder = tmp_path / "reports" / session.run.id
    assert [record.case for record in load_run(folder)[1]] == [*session.plan.cases[:1]]
    assert "when 1 of 4 cases had begun" in (folder / "index.html").read_text()
    resumed = begin(FEWER, resume="latest")
    measure(resumed, resumed.plan.cases[:2])
    assert [record.error for record in resumed.records] == ["", ""]
    resumed.abandon()


def test_a_case_in_error_says_so_in_a_partial_report(begin, tmp_path):
    session = begin(FEWER)
    measure(session, session.plan.cases)
    session.interrupt("SIGINT")
    reasons = {record.case.id: record.reason for record in load_run(tmp_path / "reports" / session.run.id)[1]}
    assert "nan as an output" in reasons["mlp-fake-nan-fp32"]
    assert reasons["mlp-fake-honest-fp32"] == "the run was interrupted before it was judged"


SUITE = """
pytest_plugins = ("harness.plugin",)
"""
SIGNALLED = """
import os, signal
from harness.run import ending
pytest_plugins = ("harness.plugin",)
write = ending.write_reports


def signalled(*given, **named):
    for _ in range({n}):
        os.kill(os.getpid(), signal.SIGTERM)
    return write(*given, **named)


ending.write_reports = signalled
"""


def start_suite(folder, out, *options):
    """Start the suites in a folder with a conftest file."""
    for name in ("suites", "models"):
        (folder / name).symlink_to(ROOT / name, target_is_directory=True)
    command = [sys.executable, "-m", "pytest", "suites/", "-p", "no:cacheprovider", "--import-mode=importlib", "-s"]
    command += ["--precision=fp32", "--model=mlp", "--score-images=300", *options]
    command += ["--batch-size=1", "--timing-rounds=6", f"--extension-dir={FAKES}", "--baseline-dir=b"]
    command += ["--engine-cache=cache", "--floor=0", "-c", "/dev/null", f"--rootdir={folder}"]
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=out,
        stderr=out,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - a shell's background
    )  # jobs ignore it


@pytest.mark.parametrize("n", [1, 2])
def test_a_signal_while_the_report_is_written_lets_it_be_written_and_a_second_one_does_not(tmp_path, n):
    (tmp_path / "conftest.py").write_text(SIGNALLED.format(n=n))
    with open(tmp_path / "out", "w") as out:
        status = start_suite(tmp_path, out, "--backend=fake-honest", "-m", "accuracy").wait()
    told = (tmp_path / "out").read_text()
    (folder,) = (tmp_path / "reports").glob("2*")
    assert (status == pytest.ExitCode.INTERRUPTED) == (n == 2), told
    assert (folder / "index.html").exists() == (n == 1), told
    assert ("SIGTERM stopped the writing of the report" in told) == (n == 2)
    assert "Traceback" not in told
    assert load_run(folder)[1]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_in_time_with_a_partial_report(tmp_path, signum):
    (tmp_path / "conftest.py").write_text(SUITE)
    with open(tmp_path / "out", "w") as out:
        process = start_suite(tmp_path, out, "--backend=fake-honest,fake-hang")
        reports, ends = tmp_path / "reports", time.monotonic() + 60
        hung = "*/logs/mlp-fake-hang-fp32.log"
        while not any("prepare" in log.read_text() for log in reports.glob(hung)) and time.monotonic() < ends:
            time.sleep(0.05)
        suite = psutil.Process(process.pid)
        used_s = sum(sum(one.cpu_times()[:4]) for one in (suite, *suite.children(recursive=True)))
        process.send_signal(signum)
        _, status, usage = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) == pytest.ExitCode.INTERRUPTED, (tmp_path / "out").read_text()
    # Of a processor, with what its workers took: others may be busy on this machine.
    assert usage.ru_utime + usage.ru_stime - used_s < IN_TIME_S
    (folder,) = reports.glob("2*")
    assert (folder / "index.html").exists()
    assert f"interrupted ({signum.name})" in (tmp_path / "out").read_text()

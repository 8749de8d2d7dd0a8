"""A run that is killed at random moments and resumed, and one that is interrupted: what is left of both.

    python benchmarks/kills.py --kills 50 --interrupts 65          # prints; about half a minute each
    python benchmarks/kills.py --kills 50 --interrupts 65 --write  # also writes the result into docs/reliability.md

After kill -9 the run goes on with --resume; it holds when it ends with the ledger of an uninterrupted run (cases, their
status, verdicts, digests of all outputs), no case but the one in work was prepared again, and no process is left. An
interrupt (SIGINT and SIGTERM in turn) holds when pytest ends with a report that says "not judged", which `harness
baseline accept` refuses, and when --resume ends with that same ledger. Needs a checkout.
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parent)]

from fault_runs import FAKES, ROOT, workers_below  # noqa: E402
from reliability import versions, write_section  # noqa: E402

from harness.errors import BaselineError  # noqa: E402
from harness.run.stored import refuse_unfinished  # noqa: E402
from harness.store.runs import load_run  # noqa: E402

IN_TIME_S = 5.0
STUCK_S = 30.0
WATCHDOG_S = 5.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)
OPTIONS = (
    "suites/",
    "-pno:cacheprovider",
    "-pno:hypothesispytest",  # imports all of Hypothesis when a run ends, ours or not
    "--import-mode=importlib",
    "-c/dev/null",
    "--backend=fake-honest,fake-nan,ort",
    "--precision=fp32,int8",
    "--model=mlp",
    "--score-images=300",
    "--calibration-images=100",
    "--batch-size=1",
    "--timing-rounds=6",
    f"--extension-dir={FAKES}",
    "--baseline=ignore",
    "--engine-cache=cache",
)


def make_checkout(folder):
    """Let a folder look like a checkout whose runs lie in it."""
    (folder / "conftest.py").write_text('pytest_plugins = ("harness.plugin",)\n')
    for name in ("suites", "models"):
        (folder / name).symlink_to(ROOT / name, target_is_directory=True)
    (folder / "tmp").mkdir()


def start(folder, *more):
    """Start the suites in a folder."""
    out = (folder / "out").open("a")
    environment = {**os.environ, "TMPDIR": str(folder / "tmp")}
    command = [sys.executable, "-m", "pytest", *OPTIONS, f"--rootdir={folder}", *more]
    return subprocess.Popen(command, cwd=folder, stdout=out, stderr=out, env=environment, preexec_fn=take_interrupts)  # noqa: PLW1509


def take_interrupts():
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it


def ledger(folder):
    """Return what a run says of its cases, without times."""
    _, records = load_run(folder)
    return {
        record.case.id: (
            str(record.status),
            record.error,
            record.accuracy.outputs_sha256 if record.accuracy else "",
            sorted((v.gate, str(v.outcome), v.n_lost, v.n_gained) for v in record.verdicts if v.gate != "latency"),
        )
        for record in records
        if not record.is_reference
    }


def prepared(folder):
    """Return how often each case was prepared, by its worker's log."""
    return {log.stem: log.read_text(errors="replace").count("prepare: ") for log in (folder / "logs").glob("*.log")}


def newest(folder):
    """Return the newest run's folder, None before there is one."""
    return max((folder / "reports").glob("2*"), default=None)


def processes_left(folder):
    """Return "processes left" where some are; the watchdog of a pytest that is gone needs a moment to end them."""
    until = time.monotonic() + WATCHDOG_S
    while list(workers_below(folder / "tmp")):
        if time.monotonic() > until:
            return "processes left"
        time.sleep(0.1)
    return ""


def kill_and_resume(folder, whole, moment, calm):
    """Kill a run after some seconds and resume it; return what does not hold, "" when all does."""
    before = newest(folder)
    process = start(folder)
    time.sleep(moment)
    process.kill()
    process.wait()
    run = newest(folder)
    if run == before or run is None or not (run / "run.json").exists():  # it had not begun
        return processes_left(folder)
    if load_run(run)[0].finished_at:
        return ""
    again = start(folder, f"--resume={run.name}")
    again.wait()
    wrong = []
    if ledger(run) != whole:
        wrong.append("another ledger")
    more = sum(max(0, n - calm.get(name, n)) for name, n in prepared(run).items())
    if more > 1:
        wrong.append(f"{more} cases prepared again")
    return ", ".join(filter(None, (*wrong, processes_left(folder))))


def interrupt(folder, whole, moment, number):
    """Interrupt a run and resume it; return (seconds to its end, what does not hold)."""
    before = newest(folder)
    process = start(folder)
    time.sleep(moment)
    process.send_signal(number)
    began = time.monotonic()
    try:
        process.wait(timeout=STUCK_S)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # pytest's faulthandler writes all stacks
        process.wait()
        return STUCK_S, f"did not end in {STUCK_S:.0f} s"
    took, run = time.monotonic() - began, newest(folder)
    left = processes_left(folder)
    if run == before or run is None:  # it had not begun
        return took, left
    return took, left or what_is_left(folder, run, whole)


def what_is_left(folder, run, whole):
    """Return what does not hold of an interrupted run and of the rest of it."""
    found, records = load_run(run)
    if not (run / "index.html").exists():
        return "no report"
    if not found.finished_at:
        if any(str(record.status) != "not judged" for record in records):
            return "judged though interrupted"
        try:
            refuse_unfinished(found)
        except BaselineError:
            pass
        else:
            return "would be accepted as a baseline"
        start(folder, f"--resume={run.name}").wait()
    return "" if ledger(run) == whole else "another ledger"


def measure(n_kills, n_interrupts, seed, show):
    """Do both as often as asked, or until Ctrl-C; return (cases of a run, kills, interrupts): what did not hold."""
    generator = random.Random(seed)
    kills, interrupts = [], []
    with tempfile.TemporaryDirectory() as name, contextlib.suppress(KeyboardInterrupt):
        folder = Path(name)
        make_checkout(folder)
        start(folder).wait()
        began = time.monotonic()
        start(folder).wait()
        length, whole, calm = time.monotonic() - began, ledger(newest(folder)), prepared(newest(folder))
        show(f"a whole run takes {length:.1f} s: {len(whole)} cases")
        for number in range(n_kills):
            kills.append(kill_and_resume(folder, whole, generator.uniform(0, length), calm))
            show(f"kill {number}: {kills[-1] or 'holds'}")
        for number in range(n_interrupts):
            moment = generator.uniform(0.5, length)
            interrupts.append(interrupt(folder, whole, moment, SIGNALS[number % len(SIGNALS)]))
            show(f"interrupt {number}: {interrupts[-1][0]:.1f} s {interrupts[-1][1] or 'holds'}")
    return len(whole), kills, interrupts


def as_markdown(n_cases, kills, interrupts, seed):
    """Return the result as a page shows it."""
    slowest = max((took for took, _ in interrupts), default=0.0)
    late = sum(took > IN_TIME_S for took, _ in interrupts)
    return (
        f"{len(kills)} times kill -9 at random moments of a run of {n_cases} cases and `--resume`: "
        f"{sum(not text for text in kills)} ended with the ledger of an uninterrupted run. {len(interrupts)} times "
        f"SIGINT or SIGTERM and `--resume`: {sum(not text for _, text in interrupts)} left a partial report, no "
        f"process, and ended with that ledger; the slowest end took {slowest:.1f} s, {late} took more than "
        f"{IN_TIME_S:.0f} s, at a load of {os.getloadavg()[2]:.1f} on {os.cpu_count()} CPUs (seed {seed}). "
        f"{versions('pytest')}"
    )


def main():
    """Kill and interrupt; exit with 1 when something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--interrupts", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="write the result into docs/reliability.md")
    given = parser.parse_args()
    found = measure(given.kills, given.interrupts, given.seed, lambda line: print(line, flush=True))
    text = as_markdown(*found, given.seed)
    print(text)
    if given.write:
        write_section("kills", text)
    _, kills, interrupts = found
    sys.exit(any(kills) or any(wrong for _, wrong in interrupts))


if __name__ == "__main__":
    main()

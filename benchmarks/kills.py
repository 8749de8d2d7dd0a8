"""A run that is killed at random moments and resumed, and one that is interrupted: what is left of both.

    python benchmarks/kills.py --kills 50 --interrupts 65          # prints; about half a minute each
    python benchmarks/kills.py --kills 50 --interrupts 65 --write  # also writes the result into docs/reliability.md

After kill -9 the run goes on with --resume; it holds when it ends with the ledger of an uninterrupted run (cases, their
status, verdicts, digests of all outputs), no case but the one in work was prepared again, and no process is left. An
interrupt (SIGINT and SIGTERM in turn) holds when pytest ends with a report that says "not judged". Needs a checkout.
"""

import argparse
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

from harness.store.runs import load_run  # noqa: E402

IN_TIME_S = 5.0
STUCK_S = 30.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)
OPTIONS = (
    "suites/",
    "-pno:cacheprovider",
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


def kill_and_resume(folder, whole, moment, calm):
    """Kill a run after some seconds and resume it; return what does not hold, "" when all does."""
    before = newest(folder)
    process = start(folder)
    time.sleep(moment)
    process.kill()
    process.wait()
    run = newest(folder)
    if run == before or run is None or not (run / "run.json").exists():  # it had not begun
        time.sleep(1)  # for the watchdog
        return "" if not list(workers_below(folder / "tmp")) else "processes left"
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
    if list(workers_below(folder / "tmp")):
        wrong.append("processes left")
    return ", ".join(wrong)


def interrupt(folder, moment, number):
    """Interrupt a run; return (seconds to its end, what does not hold)."""
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
    left = "processes left" if list(workers_below(folder / "tmp")) else ""
    if run == before or run is None:  # it had not begun
        return took, left
    found, records = load_run(run)
    if not found.finished_at and any(str(record.status) != "not judged" for record in records):
        return took, "judged though interrupted"
    return took, left or ("" if (run / "index.html").exists() else "no report")


def measure(n_kills, n_interrupts, seed, show):
    """Do both as often as asked; return the lines of the page and whether all holds."""
    generator = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_checkout(folder)
        start(folder).wait()
        began = time.monotonic()
        start(folder).wait()
        length, whole, calm = time.monotonic() - began, ledger(newest(folder)), prepared(newest(folder))
        show(f"a whole run takes {length:.1f} s: {len(whole)} cases")
        kills = []
        for number in range(n_kills):
            kills.append(kill_and_resume(folder, whole, generator.uniform(0, length), calm))
            show(f"kill {number}: {kills[-1] or 'holds'}")
        interrupts = []
        for number in range(n_interrupts):
            interrupts.append(interrupt(folder, generator.uniform(0.5, length), SIGNALS[number % len(SIGNALS)]))
            show(f"interrupt {number}: {interrupts[-1][0]:.1f} s {interrupts[-1][1] or 'holds'}")
    slowest = max((took for took, _ in interrupts), default=0.0)
    late = sum(took > IN_TIME_S for took, _ in interrupts)
    bad = [text for text in (*kills, *(text for _, text in interrupts)) if text]
    text = (
        f"{n_kills} times kill -9 at random moments of a run of {len(whole)} cases and `--resume`: "
        f"{sum(not text for text in kills)} ended with the ledger of an uninterrupted run. {n_interrupts} times SIGINT "
        f"or SIGTERM: {sum(not text for _, text in interrupts)} left a partial report and no process; the slowest end "
        f"took {slowest:.1f} s, {late} took more than {IN_TIME_S:.0f} s (seed {seed}). {versions('pytest')}"
    )
    return text, not bad


def main():
    """Kill and interrupt; exit with 1 when something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--interrupts", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="write the result into docs/reliability.md")
    given = parser.parse_args()
    text, holds = measure(given.kills, given.interrupts, given.seed, lambda line: print(line, flush=True))
    print(text)
    if given.write:
        write_section("kills", text)
    sys.exit(not holds)


if __name__ == "__main__":
    main()

"""Many cases in a row, every tenth of which crashes: memory, handles, threads and processes of the parent stay flat.

    python benchmarks/soak.py --cases 500                     # prints; about two seconds a case
    python benchmarks/soak.py --cases 500 --write             # also writes the result into docs/reliability.md

Each case is prepared, scored and closed in a worker of its own, as in a run. Needs a checkout: the engines are those of
tests/fakes.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import psutil

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parent)]

from fault_runs import FAKES, ROOT, workers_below  # noqa: E402
from reliability import versions, write_section  # noqa: E402

from harness.errors import WorkerDied  # noqa: E402
from harness.models import load_card  # noqa: E402
from harness.protocols import no_progress  # noqa: E402
from harness.run.case import CaseRun  # noqa: E402
from harness.run.case_worker import WorkerSettings  # noqa: E402
from harness.specs import (  # noqa: E402
    BuildOptions,
    Case,
    DatasetRequest,
    Precision,
    StageLimits,
    TimingPlan,
    Tolerance,
)
from harness.worker.requests import CaseRequest  # noqa: E402

CRASHING = 10  # every so many-th case
WARM_UP = 10  # cases before the first reading: what is loaded once is loaded by then
MIB = 1 << 20
GROWTH_MIB_PER_CASE = 0.05  # of resident memory, that would be a leak


def one_case(number, folder):
    """Run a case to its end; tell whether it crashed."""
    crashes = number % CRASHING == CRASHING - 1
    request = CaseRequest(
        case=Case(
            model="mlp",
            backend="fake-segfault" if crashes else "fake-honest",
            precision=Precision.FP32,
            recipe="none",
        ),
        model=load_card(ROOT / "models" / "mlp.toml"),
        data=DatasetRequest(score_images=200),
        build=BuildOptions(cache_dir=str(folder / "cache")),
        timing=TimingPlan(batch_sizes=(1,)),
        outputs_path=str(folder / "outputs.f32"),
    )
    settings = WorkerSettings(
        log_dir=folder,
        python=sys.executable,
        extension_dirs=(FAKES,),
        limits=StageLimits(),
        progress=lambda label: no_progress,
    )
    run = CaseRun(request, name="case", tolerance=Tolerance(), settings=settings)
    try:
        run.accuracy()
    except WorkerDied:
        return True
    finally:
        run.close()
    return False


def reading(process):
    """Return what this process holds: resident memory [MiB], file handles, threads, children."""
    return (
        process.memory_info().rss / MIB,
        process.num_fds(),
        process.num_threads(),
        len(process.children(recursive=True)),
    )


def soak(n_cases, folder, show):
    """Run the cases; return the readings after each, and how many crashed."""
    process, readings, n_crashed = psutil.Process(os.getpid()), [], 0
    for number in range(n_cases):
        n_crashed += one_case(number, folder)
        readings.append(reading(process))
        if number % 25 == 0:
            show(f"{number:>5}  {readings[-1][0]:7.1f} MiB, {readings[-1][1:]} handles, threads, children")
    return np.array(readings), n_crashed


def as_markdown(readings, n_crashed):
    """Return the result as a page shows it, and whether all is flat."""
    steady = readings[WARM_UP:]
    slope = np.polyfit(np.arange(len(steady)), steady[:, 0], 1)[0]
    spans = [(int(column.min()), int(column.max())) for column in steady[:, 1:].T]
    flat = bool(slope < GROWTH_MIB_PER_CASE) and all(low == high for low, high in spans)
    lines = [
        f"{len(readings)} cases, {n_crashed} of which crashed. {versions('execnet')}",
        "",
        f"| after {WARM_UP} cases | lowest | highest |",
        "| --- | --- | --- |",
        f"| resident memory [MiB] | {steady[:, 0].min():.1f} | {steady[:, 0].max():.1f} |",
        *(
            f"| {name} | {low} | {high} |"
            for name, (low, high) in zip(("file handles", "threads", "child processes"), spans, strict=True)
        ),
        "",
        f"Memory grows by {1024 * slope:.1f} KiB a case (least squares).",
    ]
    return "\n".join(lines), flat


def main():
    """Soak; exit with 1 when something grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--write", action="store_true", help="write the result into docs/reliability.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = folder  # of our workers: others may run on this machine
        readings, n_crashed = soak(given.cases, Path(folder), lambda line: print(line, flush=True))
        left = list(workers_below(folder))
    text, flat = as_markdown(readings, n_crashed)
    print(text)
    if left:
        print(f"processes left: {left}", file=sys.stderr)
    if given.write:
        write_section("soak", text)
    sys.exit(not flat or bool(left))


if __name__ == "__main__":
    main()

"""How long a user waits: --collect-only, the whole main job cold, and again with warm caches.

    python benchmarks/main_job.py [more options of pytest suites/]
    python benchmarks/main_job.py --against DIR [--runs N] [more options of pytest suites/]

Targets on 2 cores: 1.5 s, 6 min, 2 min. Times are whole processes, from start to exit.

`--against DIR` compares this checkout (A) with another one (B) and prints A/B. The two run in turn, B A B A ..., so a
machine that slows down slows both: in each of N rounds, collect-only, then the job on an empty cache, then again on the
cache it left. Printed are the median of the N ratios and the smallest and largest of them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
COLLECT_RUNS = 5
COLLECT, COLD, WARM = STATES = ("collect-only", "cold", "warm")


def environment_of(root: Path) -> dict[str, str]:
    """Return the environment in which a checkout's own harness is imported, in the workers too."""
    paths = (str(root), os.environ.get("PYTHONPATH", ""))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def seconds(root: Path, *arguments: str) -> float:
    """Return how long `pytest suites/` of a checkout takes [s]. Raises: SystemExit when it fails."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "suites/", *arguments]
    started = time.perf_counter()
    result = subprocess.run(command, cwd=root, env=environment_of(root), capture_output=True, text=True, check=False)
    took = time.perf_counter() - started
    if result.returncode:
        sys.exit(f"{' '.join(command)} failed in {root}:\n{result.stdout[-3000:]}{result.stderr[-1000:]}")
    return took


def check_checkout(root: Path) -> None:
    """Make sure that a checkout's own harness is what runs in it. Raises: SystemExit."""
    command = [sys.executable, "-c", "import harness; print(harness.__file__)"]
    result = subprocess.run(command, cwd=root, env=environment_of(root), capture_output=True, text=True, check=False)
    if not (root / "suites").is_dir() or not Path(result.stdout.strip()).is_relative_to(root / "harness"):
        sys.exit(f"--against={root}: expected a checkout with harness/ and suites/")


def alone(more: Sequence[str]) -> None:
    """Print the three times of this checkout."""
    collect = sorted(seconds(ROOT, "--collect-only", *more) for _ in range(COLLECT_RUNS))
    print(f"collect-only: {collect[COLLECT_RUNS // 2]:.2f} s ({collect[0]:.2f} to {collect[-1]:.2f}; target 1.5 s)")
    with tempfile.TemporaryDirectory() as folder:
        places = (f"--report-dir={folder}/reports", f"--engine-cache={folder}/cache")
        print(f"main job, cold: {seconds(ROOT, *places, *more):.0f} s (target 360 s)", flush=True)
        print(f"main job, warm: {seconds(ROOT, *places, *more):.0f} s (target 120 s)")


def against(other: Path, n_rounds: int, more: Sequence[str]) -> None:
    """Print A/B of each state: this checkout's time over the other's, in turn."""
    check_checkout(other)
    times: dict[str, list[tuple[float, float]]] = {state: [] for state in STATES}
    for number in range(1, n_rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            for state in STATES:
                theirs, ours = (_one(root, state, Path(folder), more) for root in (other, ROOT))
                times[state].append((ours, theirs))
                print(f"round {number}, {state}: A {ours:.2f} s, B {theirs:.2f} s, A/B {ours / theirs:.3f}", flush=True)
    print(f"A = {ROOT}, B = {other}; median A/B of {n_rounds} rounds (smallest to largest)")
    for state, pairs in times.items():
        print(ratio_line(state, pairs))


def _one(root: Path, state: str, folder: Path, more: Sequence[str]) -> float:
    if state == COLLECT:
        return seconds(root, "--collect-only", *more)
    own = folder / ("a" if root == ROOT else "b")  # cold fills the cache that warm finds
    return seconds(root, f"--report-dir={own}/reports", f"--engine-cache={own}/cache", *more)


def ratio_line(state: str, pairs: Sequence[tuple[float, float]]) -> str:
    """Return one line for (our, their) seconds of every round."""
    ratios = sorted(ours / theirs for ours, theirs in pairs)
    median = [statistics.median(side) for side in zip(*pairs, strict=True)]
    return (
        f"{state}: A/B {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}); "
        f"medians {median[0]:.2f} s and {median[1]:.2f} s"
    )


def main() -> None:
    """Print the times of this checkout, or the ratios to another one's."""
    parser = argparse.ArgumentParser(
        description="How long a user waits; other options go to pytest suites/.", allow_abbrev=False
    )
    parser.add_argument("--against", type=Path, metavar="DIR", help="another checkout; run in turn with this one")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="rounds with --against (default: 3)")
    given, more = parser.parse_known_args()
    if given.runs < 1:
        parser.error(f"--runs={given.runs}: expected at least 1")
    if given.against:
        against(given.against.resolve(), given.runs, more)
    else:
        alone(more)


if __name__ == "__main__":
    main()

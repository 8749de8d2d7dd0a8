"""How long a user waits: --collect-only, the whole main job cold, and again with warm caches.

    python benchmarks/main_job.py [more options of pytest suites/]

Targets on 2 cores: 1.5 s, 6 min, 2 min. Times are whole processes, from start to exit.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
COLLECT_RUNS = 5


def seconds(*arguments: str) -> float:
    started = time.perf_counter()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "suites/", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    took = time.perf_counter() - started
    if result.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{result.stdout[-3000:]}{result.stderr[-1000:]}")
    return took


def main() -> None:
    more = sys.argv[1:]
    collect = sorted(seconds("--collect-only", *more) for _ in range(COLLECT_RUNS))
    print(f"collect-only: {collect[COLLECT_RUNS // 2]:.2f} s ({collect[0]:.2f} to {collect[-1]:.2f}; target 1.5 s)")
    with tempfile.TemporaryDirectory() as folder:
        places = (f"--report-dir={folder}/reports", f"--engine-cache={folder}/cache")
        print(f"main job, cold: {seconds(*places, *more):.0f} s (target 360 s)", flush=True)
        print(f"main job, warm: {seconds(*places, *more):.0f} s (target 120 s)")


if __name__ == "__main__":
    main()

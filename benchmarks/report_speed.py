"""How long a report takes to write, how large it is, how soon a browser can use it, and how fast history loads.

    python benchmarks/report_speed.py [--cases 27 1000] [--nights 365] [--repeats 3]

Runs are synthetic (tests/render_records.py): every outcome, two batch sizes, flipped digits, layers, a baseline. Each
figure is the median of fresh processes or fresh browser pages; imports and matplotlib's fonts are part of the writing
time. "Interactive" is when the page's script has finished and two frames have been drawn, from the start of navigation.
"""

from __future__ import annotations

import argparse
import os
import pickle
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WRITE = """
import pickle, sys, time
from pathlib import Path
began = time.perf_counter()
from harness.report.model import build_report
from harness.report.html import render_html
imported = time.perf_counter()
with open(sys.argv[1], "rb") as file:
    (run, records), baseline = pickle.load(file)
loaded = time.perf_counter()
page = render_html(build_report(run, records, previous=baseline))
Path(sys.argv[2]).write_text(page, encoding="utf-8")
print(time.perf_counter() - loaded, imported - began)
"""
HISTORY = """
import sys, time
from pathlib import Path
from harness.store.history import load_history
began = time.perf_counter()
history = load_history(Path(sys.argv[1]))
print(time.perf_counter() - began, len(history.steps))
"""
READY = """() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {
    const nodes = document.getElementsByTagName("*").length;
    done([Number(document.documentElement.dataset.ready), performance.now(), nodes]);
})))"""
SORT = """() => {
    const began = performance.now();
    document.querySelectorAll(".matrix thead button")[4].click();
    document.body.getBoundingClientRect();
    return performance.now() - began;
}"""
FILTER = """() => {
    const began = performance.now();
    document.querySelector("#find").value = "int8 mlp";
    document.querySelector("#find").dispatchEvent(new Event("input", { bubbles: true }));
    document.body.getBoundingClientRect();
    return performance.now() - began;
}"""


def in_process(script: str, *arguments: str) -> list[float]:
    """Run a script in a fresh interpreter and return the numbers it prints."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], env=environment, capture_output=True, text=True, check=True
    )
    return [float(word) for word in done.stdout.split()]


def measure_writing(n_cases: int, folder: Path, repeats: int) -> tuple[float, Path]:
    """Return the median time to write a page of n cases [s], imports included, and the page."""
    from render_records import make_baseline, make_run

    data, page = folder / f"{n_cases}.pickle", folder / f"{n_cases}.html"
    night = make_run(n_cases, n_images=10_000), make_baseline(n_cases, n_images=10_000)
    data.write_bytes(pickle.dumps(night))
    return statistics.median(sum(in_process(WRITE, str(data), str(page))) for _ in range(repeats)), page


def measure_browser(page_file: Path, repeats: int) -> dict[str, float] | None:
    """Return medians of what a browser needs for a page [ms], None without a browser."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        return None
    if path is None:
        return None
    found: dict[str, list[float]] = {"script done": [], "interactive": [], "nodes": [], "sort": [], "filter": []}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for _ in range(repeats + 1):
            page = browser.new_page(viewport={"width": 1360, "height": 900})
            page.goto(page_file.as_uri())
            numbers = [*page.evaluate(READY), page.evaluate(SORT), page.evaluate(FILTER)]
            for name, number in zip(found, numbers, strict=True):
                found[name].append(number)
            page.close()
        browser.close()
    return {name: statistics.median(numbers[1:]) for name, numbers in found.items()}  # the first warms the browser


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, nargs="+", default=[27, 1000], help="cases of a run")
    parser.add_argument("--nights", type=int, default=365, help="stored runs of 100 cases")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    from render_records import write_history

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for n_cases in options.cases:
            seconds, page = measure_writing(n_cases, folder, options.repeats)
            print(f"{n_cases:5} cases: written in {seconds:.2f} s, {page.stat().st_size / 1e6:.2f} MB", flush=True)
            browser = measure_browser(page, options.repeats)
            if browser is None:
                print("             no browser: playwright or chromium is missing")
                continue
            times = ", ".join(f"{key} {value:.0f} ms" for key, value in browser.items() if key != "nodes")
            print(f"             {times}, {browser['nodes']:.0f} nodes", flush=True)
        nights = folder / "nights"
        nights.mkdir()
        write_history(nights, n_runs=options.nights, n_cases=100)
        seconds = statistics.median(in_process(HISTORY, str(nights))[0] for _ in range(options.repeats))
        print(f"{options.nights} nights x 100 cases: read and searched for changes in {seconds:.2f} s")


if __name__ == "__main__":
    main()

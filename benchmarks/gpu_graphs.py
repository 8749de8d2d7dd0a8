"""Run models of any graph on a GPU backend through the suite, and print what each case came to.

    PYTHONPATH=. python benchmarks/gpu_graphs.py --out=OUT a.onnx b.onnx@ids:1x128,mask:1x128 c.onnx@x:1x64@fp32,fp16

A model is FILE[@SHAPES[@PRECISIONS]]: shapes as `--shapes` takes them, precisions in place of `--precision`. Each has a
run of its own, so that a crash costs one model, and its report folder below OUT. The table is printed last: model,
precision, status, p50 of batch 1 (or of the one batch that its shapes hold), speed-up over FP32, and the worst output's
median drift against FP32. It ends with exit code 1 when a run gave no results or a case ended in an error. It runs on
CPU backends too (`--backend=ort`).
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from harness.records import TensorDrift

ROOT = Path(__file__).resolve().parents[1]
HEADINGS = ("model", "precision", "status", "batch", "p50 [us]", "speed-up", "drift", "output", "cache", "why")
TIMEOUT_S = 900


def asked_model(text):
    """Return file, shapes and precisions of FILE[@SHAPES[@PRECISIONS]]."""
    file, _, rest = text.partition("@")
    shapes, _, precisions = rest.partition("@")
    return Path(file), shapes, precisions


def run_model(asked, text):
    """Run the suite on one model and return its rows, or a row that says why there are none."""
    file, shapes, precisions = asked_model(text)
    folder = asked.out / file.stem
    command = [sys.executable, "-m", "pytest", str(ROOT / "suites"), "-q", f"--backend={asked.backend}"]
    command += [f"--model={file}", f"--precision={precisions or asked.precision}", f"--report-dir={folder}"]
    command += [f"--engine-cache={asked.cache}", "--baseline=ignore", *asked.suite_option]
    command += [f"--shapes={shapes}"] if shapes else []
    started = time.perf_counter()
    try:
        child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
        said = child.stdout + child.stderr
    except subprocess.TimeoutExpired:
        said = f"no end in {TIMEOUT_S} s"
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / f"{file.stem}.log").write_text(" ".join(command) + "\n" + said)
    print(f"{file.stem}: {time.perf_counter() - started:.0f} s", flush=True)
    found = sorted(folder.glob("*/summary.json"))
    if not found:
        last = (said.strip().splitlines() or ["no message"])[-1]
        return [dict.fromkeys(HEADINGS, "") | {"model": file.stem, "status": "no results", "why": last[:200]}]
    cases = json.loads(found[-1].read_text())["cases"]
    lines = found[-1].with_name("records.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [row_of(case, next(record for record in records if is_of(record, case))) for case in cases]


def is_of(record, case):
    return all(record["case"][key] == case[key] for key in ("model", "backend", "precision", "recipe"))


def row_of(case, record):
    """Return one row of the table."""
    latency = case.get("latency") or {}
    batch = "1" if "1" in latency else next(iter(latency), "")
    timed = latency.get(batch) or {}
    drift, output = worst_drift(record)
    speedup = timed.get("speedup")
    return {
        "model": case["model"],
        "precision": f"{case['precision']} {case['recipe']}".removesuffix(" none"),
        "status": case["status"],
        "batch": batch,
        "p50 [us]": f"{timed['p50_ns'] / 1e3:.1f}" if timed.get("p50_ns") else "",
        "speed-up": f"{speedup:.2f}" if speedup else "",
        "drift": drift,
        "output": output,
        "cache": (record.get("engine") or {}).get("cache", ""),
        "why": " ".join((case.get("reason") or "").split())[:160],
    }


def worst_drift(record):
    """Return the largest median drift against FP32 of the same backend, and its output."""
    own = f"-{record['case']['backend']}-fp32"
    found = [one for one in record.get("tensor_drifts") or () if own in one["against"]]
    if not found:
        return "", ""
    worst = max(found, key=median_of)
    return f"{median_of(worst):.2g}", worst["output"]


def median_of(drift):
    return msgspec.convert(drift, TensorDrift, strict=False).median


def table(rows):
    """Return rows as a table in Markdown."""
    lines = [f"| {' | '.join(HEADINGS)} |", f"|{'---|' * len(HEADINGS)}"]
    lines += [f"| {' | '.join(str(row[name]).replace('|', '/') for name in HEADINGS)} |" for row in rows]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="FILE[@SHAPES[@PRECISIONS]]")
    parser.add_argument("--backend", default="trt")
    parser.add_argument("--precision", default="fp32,fp16")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("/tmp/harness-gpu-cache"))
    parser.add_argument("--suite-option", action="append", default=[], help="passed on to every run")
    asked = parser.parse_args()
    asked.out = asked.out.resolve()
    rows = [row for text in asked.models for row in run_model(asked, text)]
    (asked.out / "gpu_graphs.md").write_text(table(rows) + "\n")
    (asked.out / "gpu_graphs.json").write_text(json.dumps(rows, indent=1))
    print(table(rows))
    return 1 if any(row["status"] in ("no results", "error") for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())

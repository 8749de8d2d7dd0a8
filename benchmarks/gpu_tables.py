"""Tables for docs/results from what gpu_check.py and `pytest suites/` wrote, as Markdown.

    python benchmarks/gpu_tables.py GPU_CHECK_FOLDER [GPU_CHECK_FOLDER ...] [--run REPORT_FOLDER]

A folder of gpu_check.py holds gpu_check.json and the report folders of its stages; later folders complete earlier ones.
`--run` adds the table of another run, by the folder that holds its summary.json.
"""

import argparse
import json
from pathlib import Path

BATCHES = ("1", "100")


def summary_of(folder):
    """Return the newest summary.json below a folder, None without one."""
    found = sorted(Path(folder).glob("**/summary.json"))
    return json.loads(found[-1].read_text()) if found else None


def number(value, scale=1.0, form="{:.2f}"):
    return "–" if value is None else form.format(value * scale)


def spans(case, batches):
    """Return `p50 / p99` of each batch [us]."""
    for batch in batches:
        found = case["latency"].get(batch, {})
        yield f"{number(found.get('p50_ns'), 1e-3)} / {number(found.get('p99_ns'), 1e-3)}"


def speedups(case, batches):
    return " / ".join(number(case["latency"].get(batch, {}).get("speedup")) for batch in batches)


def enqueues(case, batches):
    """Return the plain enqueue of each batch [us], starred where it bounds the engine."""
    found = [case["latency"].get(batch, {}) for batch in batches]
    stars = ["*" if "enqueue_bound" in one.get("flags", ()) else "" for one in found]
    return " / ".join(number(one.get("enqueue_ns"), 1e-3) + star for one, star in zip(found, stars, strict=True))


def lost_and_won(case):
    found = [v for v in case["verdicts"] if v["gate"] == "fp32" and v["n_lost"] is not None]
    return f"{found[0]['n_lost']}/{found[0]['n_gained']}" if found else "–"


def ran_as(case):
    effective = case.get("effective_precision") or {}
    shares = effective.get("by_time") or effective.get("by_layer") or {}
    return ", ".join(f"{kind} {share:.0%}" for kind, share in shares.items()) or "–"


def accuracy(case):
    found = case.get("accuracy") or {}
    return f"{number(found.get('top1'), 100)} / {number(found.get('top5'), 100)}"


def case_table(summary):
    """Yield the table of a run."""
    yield (
        "| case | top-1 / top-5 [%] | lost/won against FP32 | batch 1 p50 / p99 [µs] | batch 100 p50 / p99 [µs] "
        "| plain enqueue b1 / b100 [µs] | speed-up b1 / b100 | engine [KiB] | ran as |"
    )
    yield "| --- " * 9 + "|"
    for case in summary["cases"]:
        cells = [case["id"], accuracy(case), lost_and_won(case)]
        cells += [*spans(case, BATCHES), enqueues(case, BATCHES), speedups(case, BATCHES)]
        cells += [number(case.get("engine_bytes"), 1 / 1024, "{:,.0f}"), ran_as(case)]
        if case["status"] not in ("passed", "failed"):
            cells[1] = f"{case['status']}: {case['reason']}"
        yield f"| {' | '.join(cells)} |"


def resnet_table(summary):
    batches = ("1", "10")
    spans_of = " | ".join(f"batch {batch} p50 / p99 [µs]" for batch in batches)
    yield f"| precision | {spans_of} | speed-up b1 / b10 | engine [MiB] | build [s] | ran as |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for case in summary["cases"]:
        cells = [case["precision"], *spans(case, batches), speedups(case, batches)]
        cells += [number(case["engine_bytes"], 1 / 1048576, "{:.0f}"), number(case["build_ns"], 1e-9, "{:.0f}")]
        yield f"| {' | '.join([*cells, ran_as(case)])} |"


def scoring_table(result):
    names = ("stream", "copied", "score", "graphs", "loop", "pageable_loop")
    headings = " | ".join(name.replace("_", " ") for name in names)
    yield f"| precision | {headings} | of graphs back to back | times the loop |"
    yield "| --- " * (3 + len(names)) + "|"
    for row in result["rows"]:
        cells = [row["precision"], *(number(row["images_per_s"].get(name), 1e-6) for name in names)]
        yield f"| {' | '.join(cells)} | {row['share_of_graphs']:.1%} | {row['times_the_loop']:.2f} |"


def check_table(checks):
    yield "| check | outcome | found |"
    yield "| --- | --- | --- |"
    for name, one in checks.items():
        yield f"| {name} | {one['outcome']} | {' '.join(one['detail'].split())} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--run", type=Path)
    asked = parser.parse_args()
    results, runs = {}, {}
    for folder in asked.folders:
        results |= json.loads((folder / "gpu_check.json").read_text())
        for stage in ("suite", "minmax", "mnist", "resnet"):
            runs[stage] = summary_of(folder / stage) or runs.get(stage)
    blocks = {}
    if runs["suite"]:
        blocks["TensorRT, bundled models, strokes"] = case_table(runs["suite"])
    if runs["mnist"]:
        blocks["TensorRT, bundled models, MNIST"] = case_table(runs["mnist"])
    if runs["minmax"]:
        blocks["mobilenet_digits by TensorRT's min-max calibrator"] = case_table(runs["minmax"])
    if runs["resnet"]:
        blocks["resnet101_112"] = resnet_table(runs["resnet"])
    if "rows" in results.get("scoring", {}):
        blocks["Scoring rate [M images/s]"] = scoring_table(results["scoring"])
    if "direct" in results:
        blocks["Checks"] = check_table(results["direct"])
    if asked.run:
        blocks["Other run"] = case_table(summary_of(asked.run))
    for heading, lines in blocks.items():
        print(f"## {heading}\n")
        print("\n".join(lines), end="\n\n")


if __name__ == "__main__":
    main()

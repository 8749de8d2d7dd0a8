"""Run one fleet on all cards of a host, and check that each timed its shards alone and that the night is whole.

    python benchmarks/gpu_fleet.py --out OUT [--backend trt] [--cards 0,1] [--alone]

No network and no file but the checkout is needed; `PYTHONPATH=.` serves where the package is not installed. The backend
is by default the first of trt and ort-cuda that can run here; `--backend=ort` tries the script itself without a GPU.
`--alone`: then run the same plan from the engine cache on the first card alone and on all, for the ratio of the times.
OUT gets gpu_fleet.json and the merged runs; it ends with exit code 1 and names what is wrong.
"""

import argparse
import json
import subprocess
import sys
import time
from datetime import datetime
from itertools import combinations
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gpu_scoring import tactic_sources  # noqa: E402

from harness.errors import DataError  # noqa: E402
from harness.machine.environment import collect_environment  # noqa: E402
from harness.options.values import HarnessOptions  # noqa: E402
from harness.records import CPU, Status  # noqa: E402
from harness.run.probing import probe_backends  # noqa: E402
from harness.store.runs import load_header, load_run  # noqa: E402

CANDIDATES = ("trt", "ort-cuda")
FLEET = """
[run]
model = ["mlp", "lenet5", "lenet5_hard", "mobilenet_digits"]
precision = ["fp32", "fp16", "int8"]
backend = ["{backend}"]
score_images = 2000
batch_size = [1, 100]
timing_rounds = 10
baseline = "ignore"
engine_cache = "{cache}"
{tactics}
[[device]]
name = "card"
type = "{kind}"
{run}
"""


def backend_here(asked):
    """The backend that runs here and what it says of its devices."""
    for found in probe_backends((asked,) if asked else CANDIDATES, HarnessOptions(root=str(ROOT))):
        if found.usable:
            return found
        print(f"{found.backend}: {found.reason}")
    raise SystemExit("no backend of a GPU can run here")


def harness(out, *words):
    """Run the command line in OUT, which looks like a checkout; return (exit code, seconds)."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "harness", *map(str, words)]
    done = subprocess.run(command, cwd=out, check=False)
    return done.returncode, time.perf_counter() - started


def checkout_in(out):
    out.mkdir(parents=True, exist_ok=True)
    for name in ("suites", "models", "harness"):
        if not (out / name).exists():
            (out / name).symlink_to(ROOT / name, target_is_directory=True)
    (out / "conftest.py").write_text('pytest_plugins = ("harness.plugin",)\n')
    (out / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib -p no:cacheprovider\n")


def night(out, name, cards):
    """Run all shards on some cards, merge them, and return what is known of the night."""
    lost, seconds = harness(
        out, "fleet", "run", "--device=card", f"--gpus={','.join(cards)}", f"--report-dir=shards-{name}"
    )
    merged, _ = harness(out, "merge", f"shards-{name}", "-o", f"reports/{name}")
    return {"seconds": round(seconds, 1), "fleet run": lost, "merge": merged}


def problems_of(out, name, cards, *, has_cards):
    """What is wrong with a night: a case that broke, a card that ran nothing or two shards at a time."""
    try:
        _, records = load_run(out / "reports" / name)
    except DataError as error:
        return [str(error)], {}
    cases = [record for record in records if not record.is_reference]
    red = (Status.FAILED, Status.ERROR, Status.NOT_JUDGED)
    found = [f"{record.case.id}: {record.error or record.reason}" for record in cases if record.status in red]
    found += [f"{record.case.id}: no time" for record in cases if not record.latencies and not record.unsupported]
    found += [f"{record.case.id} has a card in its name" for record in cases if "cuda" in record.case.id.split("-")[-1]]
    spans = {}
    for header in sorted((out / f"shards-{name}").glob("*/run.json")):
        run = load_header(header.parent)
        card = "".join(run.shard.device_uuids.values())
        if not run.finished_at:
            found.append(f"{run.id} did not finish")
            continue
        spans.setdefault(card, []).append(tuple(map(datetime.fromisoformat, (run.started_at, run.finished_at))))
    if has_cards and len(spans) != len(cards):
        found.append(f"{len(cards)} cards were given and {len(spans)} ran shards: {', '.join(spans)}")
    for card, of_card in spans.items():
        for (began, ended), (later, _) in combinations(sorted(of_card), 2):
            if has_cards and later < ended:
                found.append(f"card {card} began a shard at {later} while one ran from {began} to {ended}")
    return found, {card: len(of_card) for card, of_card in spans.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--backend", default="")
    parser.add_argument("--cards", default="", help="indices or UUIDs (default: all that the backend sees)")
    parser.add_argument("--alone", action="store_true", help="also run the plan on the first card alone")
    asked = parser.parse_args()
    found, out = backend_here(asked.backend), asked.out.resolve()
    gpus = [device for device in found.devices if device != CPU]
    cards = asked.cards.split(",") if asked.cards else [device.partition(":")[2] for device in gpus]
    kind = found.device_names[0] if gpus else collect_environment().device_type
    checkout_in(out)
    run = 'run = { device = "cuda:0" }' if gpus else ""
    sources = tactic_sources() if found.backend == "trt" else None
    tactics = f"trt_tactic_sources = {json.dumps(list(sources))}\n" if sources else ""
    (out / "fleet.toml").write_text(
        FLEET.format(backend=found.backend, cache=out / "cache", tactics=tactics, kind=kind, run=run)
    )
    if harness(out, "plan", "--fleet=fleet.toml", "-o", "shards.json")[0]:
        raise SystemExit("the fleet cannot be planned")
    nights = {"all": cards, **({"alone": cards[:1], "again": cards} if asked.alone else {})}
    told = {"backend": found.backend, "versions": found.versions, "device": kind, "cards": list(found.device_uuids)}
    wrong = []
    for name, chosen in nights.items():
        told[name] = night(out, name, chosen)
        problems, told[name]["shards of each card"] = problems_of(out, name, chosen, has_cards=bool(gpus))
        wrong += [f"{name}: {problem}" for problem in problems]
        wrong += [f"{name}: shards were lost"] if told[name]["fleet run"] else []
    if asked.alone:
        told["ratio of times"] = round(told["alone"]["seconds"] / told["again"]["seconds"], 2)
    told["wrong"] = wrong
    (out / "gpu_fleet.json").write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told, indent=1))
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()

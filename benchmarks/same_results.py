"""Tell whether two runs of `pytest suites/` found the same, case by case. Times are not compared.

    python benchmarks/same_results.py RUN_A RUN_B [--renamed OLD=NEW ...] [--without GATE ...] [--times]

Reads `records.jsonl` as plain JSON, so runs of different versions of the harness can be compared. Compared are: status,
images, top-1 and top-5 (counts, and which images), predictions, digests of outputs and artifact, the loss split, shares
of effective precision by layer, layers (name, kind, kernel, precision), and the verdicts of every gate. Cases that were
measured only as a reference are left out.

`--renamed OLD=NEW`: a word of RUN_A (a verdict's outcome or code, a status) that RUN_B spells in another way; also a
whole verdict, as `latency/INCOMPARABLE/incomparable=latency/NO_BASELINE/no_baseline`, or with nothing after "=" when
RUN_B gives no such verdict. Repeatable.
`--without GATE`: leave the verdicts of one gate out, such as one that judges otherwise on purpose. Repeatable.
`--times`: print B/A of every median latency and of the runs' duration as well; they decide nothing.

Exit code: 0 the same, 1 something differs, 2 a run cannot be read.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import json
import sys
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CASE_FIELDS = ("model", "backend", "precision", "recipe", "device")
LAYER_FIELDS = ("name", "kind", "kernel", "precision")
MISSING = "missing"  # in one run only

Facts = dict[str, Any]  # what is compared -> a value, or an array of one number an image
Words = Mapping[str, str]


def read_run(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the records of a run by their case. Raises: SystemExit with one line for a run that cannot be read."""
    path = folder / "records.jsonl"
    records: dict[str, dict[str, Any]] = {}
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            record = json.loads(line)
            name = "/".join(str(record["case"][field]) for field in CASE_FIELDS)
            if record.get("is_reference"):
                continue
            if name in records:
                _refuse(f"{path}:{number}: {name} stands there twice; expected one record a case")
            records[name] = record
    except OSError as error:
        _refuse(f"{path}: {error.strerror}; expected the folder of a run")
    except (ValueError, LookupError, TypeError) as error:
        _refuse(f"{path}:{number}: not a record ({error!r})")
    if not records:
        _refuse(f"{path}: holds no case, so there is nothing to compare")
    return records


def _refuse(line: str) -> None:
    print(line, file=sys.stderr)
    raise SystemExit(2)


def unpack(packed: Mapping[str, Any]) -> NDArray[Any]:
    """Return a packed array: zlib in base64, with its dtype and shape."""
    data = zlib.decompress(base64.b64decode(packed["data"]))
    array: NDArray[Any] = np.frombuffer(data, dtype=np.dtype(packed["dtype"])).reshape(packed["shape"])
    return array


# -- facts of one case


def facts_of(record: Mapping[str, Any], renamed: Words, without: Collection[str] = ()) -> Facts:
    """Return what is compared of a record; `without`: gates whose verdicts are not."""
    verdicts = [verdict for verdict in record.get("verdicts") or () if verdict["gate"] not in without]
    status = record["status"]
    # Sorted: ONNX Runtime numbers the reorder nodes that it inserts in another order in every process.
    layers = sorted(" ".join(layer[field] for field in LAYER_FIELDS) for layer in record.get("layers") or ())
    return {
        "status": renamed.get(status, status),
        "artifact sha256": (record.get("artifact") or {}).get("sha256"),
        **_scores(record.get("accuracy"), ""),
        **_scores(record.get("emulation"), "emulation's "),
        "loss split": record.get("loss_split"),
        "effective precision": (record.get("effective_precision") or {}).get("by_layer"),
        "layers": layers,
        **_verdicts(verdicts, renamed),
    }


def _scores(accuracy: Mapping[str, Any] | None, whose: str) -> Facts:
    if accuracy is None:
        return {}
    images = accuracy["images"]
    n_images = images["stop"] - images["first"]
    top1, top5 = (np.unpackbits(unpack(accuracy[k]).astype(np.uint8))[:n_images] for k in ("top1_hits", "top5_hits"))
    return {
        f"{whose}n_images": n_images,
        f"{whose}images": f"{images['dataset']}/{images['split']} from {images['first']}",
        f"{whose}fingerprint of the images": accuracy["fingerprint"],
        f"{whose}top-1 count": int(top1.sum()),
        f"{whose}top-5 count": int(top5.sum()),
        f"{whose}top-1 hits": top1,
        f"{whose}top-5 hits": top5,
        f"{whose}predictions": unpack(accuracy["predictions"]).astype(np.int64),
        f"{whose}outputs sha256": accuracy["outputs_sha256"],
    }


def _verdicts(verdicts: Sequence[Mapping[str, Any]], renamed: Words) -> Facts:
    said: dict[str, Counter[str]] = {}
    for verdict in verdicts:
        whole = f"{verdict['gate']}/{verdict['outcome']}/{verdict['code']}"
        whole = renamed.get(whole, whole)
        if not whole:
            continue
        gate, outcome, code = whole.split("/")
        answer = f"{renamed.get(outcome, outcome)} {renamed.get(code, code)}"
        said.setdefault(f"verdicts of {gate}", Counter())[answer] += 1
    return {gate: dict(sorted(answers.items())) for gate, answers in said.items()}


# -- comparing


def differences(a: Mapping[str, Facts], b: Mapping[str, Facts]) -> Iterator[str]:
    """Yield one line for everything that differs between two runs' facts."""
    for case in sorted({*a, *b}):
        if case not in a or case not in b:
            yield f"{case}: only in {'RUN_B' if case in b else 'RUN_A'}"
            continue
        for what in dict.fromkeys([*a[case], *b[case]]):
            told = _difference(a[case].get(what, MISSING), b[case].get(what, MISSING))
            if told:
                yield f"{case}: {what}: {told}"


def _difference(a: Any, b: Any) -> str:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        if a.shape != b.shape:
            return f"{a.size} images, {b.size} images"
        changed = np.flatnonzero(a != b)
        return f"{changed.size} of {a.size} images differ, the first is image {changed[0]}" if changed.size else ""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return f"only in {'RUN_A' if isinstance(a, np.ndarray) else 'RUN_B'}"
    if isinstance(a, list) and isinstance(b, list):
        lists = {"RUN_A": Counter(a) - Counter(b), "RUN_B": Counter(b) - Counter(a)}
        return "; ".join(f"{only.total()} only in {run}, first {min(only)}" for run, only in lists.items() if only)
    return "" if a == b else f"{a}, {b}"


# -- times


def time_lines(folders: Sequence[Path], runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield B/A of the median latency of every case and batch size in both runs, and of the runs' duration."""
    before, after = ({case: _medians(record) for case, record in run.items()} for run in runs)
    ratios = []
    for case in sorted(before.keys() & after.keys()):
        for what in before[case].keys() & after[case].keys():
            ours, theirs = before[case][what], after[case][what]
            ratios.append(theirs / ours)
            yield f"{case} {what}: {ours / 1e3:.1f} us, {theirs / 1e3:.1f} us, B/A {theirs / ours:.3f}"
    if ratios:
        yield f"median of {len(ratios)} ratios of latency: B/A {np.median(ratios):.3f}"
    durations = [_duration(folder) for folder in folders]
    if durations[0] and durations[1]:
        yield f"duration: {durations[0]:.0f} s, {durations[1]:.0f} s, B/A {durations[1] / durations[0]:.3f}"


def _medians(record: Mapping[str, Any]) -> dict[str, float]:
    return {
        f"batch {latency['batch_size']} {latency['window']}": float(np.median(unpack(latency["rounds_ns"])))
        for latency in record.get("latencies") or ()
    }


def _duration(folder: Path) -> float | None:
    """Return how long a run took [s]; None where its header does not say."""
    try:
        header = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        started, finished = (datetime.datetime.fromisoformat(header[key]) for key in ("started_at", "finished_at"))
    except (OSError, ValueError, LookupError):
        return None
    return (finished - started).total_seconds()


def _cases(number: int) -> str:
    return f"{number} case{'' if number == 1 else 's'}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what differs and return 1, or one line and return 0."""
    parser = argparse.ArgumentParser(description="Tell whether two runs found the same; times are not compared.")
    parser.add_argument("runs", nargs=2, type=Path, metavar="RUN", help="folder of a run: RUN_A, then RUN_B")
    parser.add_argument("--renamed", action="append", default=[], metavar="OLD=NEW", help="RUN_A's word, and RUN_B's")
    parser.add_argument("--without", action="append", default=[], metavar="GATE", help="leave out a gate's verdicts")
    parser.add_argument("--times", action="store_true", help="print B/A of latencies and durations; decides nothing")
    given = parser.parse_args(arguments)
    bad = next((pair for pair in given.renamed if "=" not in pair), None)
    if bad is not None:
        parser.error(f"--renamed={bad}: expected OLD=NEW")
    renamed = dict(pair.split("=", 1) for pair in given.renamed)
    a, b = (read_run(folder) for folder in given.runs)
    ours = {case: facts_of(record, renamed, given.without) for case, record in a.items()}
    theirs = {case: facts_of(record, {}, given.without) for case, record in b.items()}
    if given.times:
        print("\n".join(time_lines(given.runs, (a, b))))
    differing = list(differences(ours, theirs))
    if differing:
        print("\n".join(differing))
        print(f"{len(differing)} differences in {_cases(len({*a, *b}))}")
        return 1
    unscored = sum("predictions" not in facts for facts in ours.values())
    notes = [f"{_cases(unscored)} not scored"] if unscored else []
    notes += [f"verdicts of {gate} left out" for gate in given.without]
    print(f"{_cases(len(a))}: counts, hits, digests and verdicts are equal", *(f"({note})" for note in notes))
    return 0


if __name__ == "__main__":
    sys.exit(main())

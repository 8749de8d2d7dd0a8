"""Two runs are the same only when every count, hit, digest and verdict is; each difference is named."""

import base64
import copy
import importlib.util
import json
import zlib
from pathlib import Path

import numpy as np
import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "same_results.py"
EQUAL = "2 cases: counts, hits, digests and verdicts are equal\n"
NAME = "mlp/ort/int8/qdq-minmax/cpu"


@pytest.fixture(scope="module")
def same_results():
    spec = importlib.util.spec_from_file_location("same_results", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def packed(array):
    return {
        "dtype": array.dtype.str,
        "shape": list(array.shape),
        "data": base64.b64encode(zlib.compress(array.tobytes())).decode(),
    }


def hits(*missed, n_images=10):
    return packed(np.packbits([image not in missed for image in range(n_images)]))


def accuracy():
    return {
        "images": {"dataset": "strokes", "split": "test", "first": 0, "stop": 10},
        "fingerprint": "f0",
        "predictions": packed(np.arange(10, dtype=np.uint8)),
        "top1_hits": hits(3),
        "top5_hits": hits(),
        "outputs_sha256": "a1",
    }


def record(precision="int8", recipe="qdq-minmax"):
    return {
        "case": {"model": "mlp", "backend": "ort", "precision": precision, "recipe": recipe, "device": "cpu"},
        "status": "passed",
        "recorded_at": "2026-01-01T00:00:00+00:00",
        "artifact": {"sha256": "b2"},
        "effective_precision": {"by_layer": {"int8": 0.75, "fp32": 0.25}, "by_time": {"int8": 1.0}},
        "layers": [
            {"name": "fc1", "kind": "Gemm", "kernel": "k", "precision": "int8", "time_ns": 5.0},
            {"name": "fc2", "kind": "Gemm", "kernel": "k", "precision": "fp32", "time_ns": 6.0},
        ],
        "accuracy": accuracy(),
        "emulation": accuracy(),
        "loss_split": {"n_images": 10, "quantization_lost": 1},
        "latencies": [{"batch_size": 1, "window": "compute", "rounds_ns": packed(np.full((2, 3), 1000.0))}],
        "verdicts": [
            {"gate": "floor", "outcome": "SAME", "code": "above_floor"},
            {"gate": "invariance", "outcome": "SAME", "code": "repeat"},
            {"gate": "invariance", "outcome": "SAME", "code": "slot"},
        ],
    }


def write(folder, records, seconds=10):
    folder.mkdir()
    (folder / "records.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    times = {"started_at": "2026-01-01T00:00:00+00:00", "finished_at": f"2026-01-01T00:00:{seconds}+00:00"}
    (folder / "run.json").write_text(json.dumps(times))
    return str(folder)


@pytest.fixture
def compared(same_results, tmp_path, capsys):
    """Return (exit code, output) of a run of two cases against the same with one changed."""

    def compare(change, *options):
        whole = [record(), record("fp32", "none")]
        other = copy.deepcopy(whole)
        change(other[0])
        folders = write(tmp_path / "a", whole), write(tmp_path / "b", other, seconds=20)
        code = same_results.main([*folders, *options])
        return code, capsys.readouterr().out

    return compare


def setting(*path, value):
    def change(one):
        for key in path[:-1]:
            one = one[key]
        one[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda one: None,
        setting("recorded_at", value="2027-01-01T00:00:00+00:00"),
        setting("effective_precision", "by_time", value={"int8": 0.5, "fp32": 0.5}),
        setting("layers", 0, "time_ns", value=7.0),
        setting("accuracy", "predictions", value=packed(np.arange(10, dtype=np.int64))),
        lambda one: one["layers"].reverse(),
        lambda one: one["verdicts"].reverse(),
        setting("latencies", value=[]),
    ],
    ids=["nothing", "date", "time shares", "layer times", "dtype", "order of layers", "order of verdicts", "latency"],
)
def test_what_is_no_result_may_differ(compared, change):
    assert compared(change) == (0, EQUAL)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (setting("status", value="failed"), "status: passed, failed"),
        (setting("artifact", "sha256", value="b3"), "artifact sha256: b2, b3"),
        (setting("artifact", value=None), "artifact sha256: b2, None"),
        (setting("accuracy", "images", "split", value="train"), "images: strokes/test from 0, strokes/train from 0"),
        (setting("accuracy", "fingerprint", value="f1"), "fingerprint of the images: f0, f1"),
        (setting("accuracy", "top1_hits", value=hits(3, 4)), "top-1 count: 9, 8"),
        (setting("accuracy", "top1_hits", value=hits(4)), "top-1 hits: 2 of 10 images differ, the first is image 3"),
        (setting("accuracy", "top5_hits", value=hits(9)), "top-5 count: 10, 9"),
        (
            setting("accuracy", "predictions", value=packed(np.zeros(10, dtype=np.uint8))),
            "predictions: 9 of 10 images differ, the first is image 1",
        ),
        (setting("accuracy", "outputs_sha256", value="a2"), "outputs sha256: a1, a2"),
        (setting("accuracy", "images", "stop", value=9), "n_images: 10, 9"),
        (setting("accuracy", value=None), "predictions: only in RUN_A"),
        (setting("emulation", "outputs_sha256", value="a2"), "emulation's outputs sha256: a1, a2"),
        (
            setting("loss_split", "quantization_lost", value=2),
            "loss split: {'n_images': 10, 'quantization_lost': 1}, {'n_images': 10, 'quantization_lost': 2}",
        ),
        (
            setting("effective_precision", "by_layer", value={"int8": 1.0}),
            "effective precision: {'int8': 0.75, 'fp32': 0.25}, {'int8': 1.0}",
        ),
        (
            setting("layers", 0, "kernel", value="other"),
            "layers: 1 only in RUN_A, first fc1 Gemm k int8; 1 only in RUN_B, first fc1 Gemm other int8",
        ),
        (
            setting("verdicts", 1, "code", value="slot"),
            "verdicts of invariance: {'SAME repeat': 1, 'SAME slot': 1}, {'SAME slot': 2}",
        ),
        (
            setting("verdicts", 0, "outcome", value="REGRESSED"),
            "verdicts of floor: {'SAME above_floor': 1}, {'REGRESSED above_floor': 1}",
        ),
        (lambda one: one["verdicts"].pop(0), "verdicts of floor: {'SAME above_floor': 1}, missing"),
        (setting("case", "recipe", value="nncf"), "only in RUN_A"),
    ],
)
def test_every_difference_is_named(compared, change, line):
    code, output = compared(change)
    assert code == 1
    assert f"{NAME}: {line}" in output.splitlines()
    assert "are equal" not in output


def test_a_renamed_word_is_the_same(compared):
    def rename(one):
        one["status"] = "ok"
        one["verdicts"][0].update(outcome="holds", code="above")
        one["verdicts"].pop()

    renamed = ("passed=ok", "floor/SAME/above_floor=floor/holds/above", "invariance/SAME/slot=")
    code, output = compared(rename, *(f"--renamed={pair}" for pair in renamed))
    assert code == 1
    assert [line for line in output.splitlines() if line.startswith(NAME)] == []  # the other case kept the old words


def test_a_gate_is_left_out_by_name_and_named(compared):
    output = compared(setting("verdicts", 0, "code", value="x"), "--without=floor")
    assert output == (0, EQUAL.replace("\n", " (verdicts of floor left out)\n"))


def test_times_are_told_and_never_fail(compared):
    slower = packed(np.full((2, 3), 1500.0))
    code, output = compared(setting("latencies", 0, "rounds_ns", value=slower), "--times")
    assert code == 0
    assert f"{NAME} batch 1 compute: 1.0 us, 1.5 us, B/A 1.500" in output
    assert "median of 2 ratios of latency: B/A 1.250" in output
    assert "duration: 10 s, 20 s, B/A 2.000" in output


def test_references_are_left_out_and_unscored_cases_are_named(same_results, tmp_path, capsys):
    old = {**record(), "accuracy": None, "emulation": None}
    new = [{**old, "is_reference": False}, {**record("fp32", "none"), "is_reference": True}]
    assert same_results.main([write(tmp_path / "a", [old]), write(tmp_path / "b", new)]) == 0
    assert capsys.readouterr().out == ("1 case: counts, hits, digests and verdicts are equal (1 case not scored)\n")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (None, "records.jsonl: No such file or directory; expected the folder of a run"),
        ("", "records.jsonl: holds no case, so there is nothing to compare"),
        ("{\n", "records.jsonl:1: not a record"),
        (json.dumps(record()) + "\n" + json.dumps(record()) + "\n", f"records.jsonl:2: {NAME} stands there twice"),
    ],
)
def test_a_run_that_cannot_be_read_is_refused(same_results, tmp_path, capsys, lines, message):
    good = write(tmp_path / "a", [record()])
    (tmp_path / "b").mkdir()
    if lines is not None:
        (tmp_path / "b" / "records.jsonl").write_text(lines)
    with pytest.raises(SystemExit) as stopped:
        same_results.main([good, str(tmp_path / "b")])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err

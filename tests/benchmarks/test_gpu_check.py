"""The GPU check's verdict: whatever is not as it should be is named and ends it with a fault."""

import importlib.util
import re
import sys
import types
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def gpu_check():
    path = list(sys.path)
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("gpu_check", BENCHMARKS / "gpu_check.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path[:] = path


ENTROPY = "mobilenet_digits-trt-int8-trt-entropy2"


def row(case="mlp-trt-fp32", status="passed", cache="hit", reason=""):
    return {"id": case, "status": status, "cache": cache, "reason": reason}


GOOD = {
    "suite": {"exit": 1, "rows": [row(cache="miss"), row(ENTROPY, "failed", "miss", "below the floor")]},
    "again": {"rows": [row(), row("mlp-ort-fp32", cache="none")]},
    "mnist": {"skipped": "--mnist-dir was not given"},
    "direct": {"windows": {"outcome": "left out", "detail": "CUDA only"}, "tf32": {"outcome": "ok", "detail": "off"}},
    "scoring": {"rows": [{"precision": "fp32", "passes": True, "share_of_graphs": 1.0, "times_the_loop": 3.0}]},
}


def test_what_is_as_it_should_be_has_no_fault(gpu_check):
    assert list(gpu_check.faults(GOOD)) == []


def test_the_modes_of_pytorch_are_told_apart(gpu_check, monkeypatch, tmp_path):
    asked = types.SimpleNamespace(backend="torch-cuda", quick=False, out=tmp_path)
    monkeypatch.setattr(
        gpu_check,
        "run_suite",
        lambda asked, name, *more: {"exit": int("aoti" in name), "seconds": 1.0, "rows": [row(reason=more[0])]},
    )
    found = gpu_check.run_stage(asked, "modes")
    assert (found["exit"], found["seconds"]) == (1, 3.0)
    assert [(one["id"], one["reason"]) for one in found["rows"]] == [
        (f"mlp-trt-fp32 ({mode})", f"--torch-mode={mode}") for mode in gpu_check.TORCH_MODES
    ]
    monkeypatch.setattr(gpu_check, "run_suite", lambda asked, name, *more: {"exit": 4, "error": "no summary.json"})
    assert "modes: script: no summary.json" in list(gpu_check.faults({"modes": gpu_check.run_stage(asked, "modes")}))
    asked.backend = "trt"
    assert "skipped" in gpu_check.run_stage(asked, "modes")


@pytest.mark.parametrize(
    ("stage", "result", "named"),
    [
        ("suite", {"rows": [row(status="error", reason="the worker died")]}, "suite mlp-trt-fp32: the worker died"),
        ("suite", {"rows": [row(status="failed", reason="lost too many")]}, "suite mlp-trt-fp32: lost too many"),
        ("suite", {"error": "no summary.json"}, "suite: no summary.json"),
        ("suite", {"exit": 3, "rows": [row()]}, "suite: pytest ended with exit code 3"),
        ("suite", {"exit": 1, "rows": []}, "suite: nothing was measured"),
        ("scoring", {"rows": []}, "scoring: nothing was measured"),
        ("direct", {}, "direct: nothing was measured"),
        ("again", {"rows": [row(cache="miss")]}, r"again: mlp-trt-fp32 \(miss\) was not taken from the cache"),
        ("again", {"rows": [row(cache="rebuilt")]}, r"again: mlp-trt-fp32 \(rebuilt\)"),
        ("again", {"rows": [row(cache=None)]}, r"again: mlp-trt-fp32 \(None\)"),
        ("direct", {"tf32": {"outcome": "FAILED", "detail": "on"}}, "tf32: on"),
        ("scoring", {"error": "no CUDA"}, "scoring: no CUDA"),
        (
            "scoring",
            {"rows": [{"precision": "int8", "passes": False, "share_of_graphs": 0.5, "times_the_loop": 2.0}]},
            "scoring int8: 50.0% of graphs back to back, 2.00 times the loop",
        ),
    ],
)
def test_every_fault_is_named(gpu_check, stage, result, named):
    (found,) = gpu_check.faults({**GOOD, stage: result})
    assert re.search(named, found)

"""The table that holds the suite's times beside the engine alone and beside trtexec: what it says is off, is off."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_agreement.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("gpu_agreement", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(precision, suite, *, fresh=None, after=None, beside=(), batch=1, model="lenet5"):
    fresh = [suite] if fresh is None else fresh
    return {
        "model": model,
        "precision": precision,
        "recipe": "none" if precision == "fp32" else "cast",
        "batch": batch,
        "suite": suite,
        "fresh": fresh,
        "after infer": fresh if after is None else after,
        "as reference": list(beside),
    }


def test_trtexecs_figures_are_scaled_by_fp32_of_the_same_net_and_batch(script):
    fp32, fp16, other = script.with_trtexec([row("fp32", 95.3), row("fp16", 62.6), row("fp16", 40.0, batch=100)])
    assert (fp32["scaled"], fp16["scaled"]) == (pytest.approx(95.3), pytest.approx(62.6))
    assert other["scaled"] is None, "FP32 was not timed at this batch size"
    (unknown,) = script.with_trtexec([row("fp32", 5.0, model="another")])
    assert (unknown["trtexec"], unknown["scaled"]) == (None, None)


def test_what_agrees_is_counted_and_what_does_not_is_named(script):
    lines = script.lines_of(
        [
            row("fp32", 47.65, fresh=[47.6, 47.7, 47.65], beside=[47.7, 48.2]),
            row("fp16", 31.3),
            row("int8", 32.0, fresh=[30.9], after=[31.0]),
        ]
    )
    told = lines[lines.index("") + 1 :]
    assert told == [
        "the same engine, however timed: 1 of 3 within 0.5 %",
        "lenet5 fp32 batch 1 (+1.15 %)",
        "lenet5 int8 cast batch 1 (+3.56 %)",
        "trtexec, scaled: 1 of 2 within 1 %",
        "lenet5 int8 cast batch 1 (+3.56 %)",
    ]
    assert "| lenet5 fp32 | 1 | 47.65 | 47.65 (0.2 %) | +0.00 % | 47.65 (0.2 %) | 47.95 (1.0 %) |" in lines[2]


def test_without_figures_there_is_nothing_to_compare(script):
    lines = script.lines_of([row("fp32", 5.0, model="another")])
    assert lines[-1] == "trtexec, scaled: nothing to compare with"

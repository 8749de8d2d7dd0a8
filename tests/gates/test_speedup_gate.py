"""The gate `speedup`: a speed-up that is none is told, and fails where one was asked."""

import numpy as np
import pytest
from comparison_records import latency_with, record_with

from harness.gates import JudgeOptions, judge_records
from harness.records import TIMED_OTHERWISE, Outcome, PackedArray, Status
from harness.specs import Precision, Tolerance


def verdicts(times_as_fast, min_speedup=None, *, n_rounds=20, precision=Precision.INT8, **changes):
    noise = 1 + 0.01 * np.random.default_rng(2).standard_normal((n_rounds, 3))
    reference = PackedArray.of(100.0 * times_as_fast * noise)
    latency = latency_with((100.0,) * n_rounds, reference_rounds_ns=reference, **changes)
    tolerance = Tolerance(min_speedup=min_speedup)
    record = record_with(
        precision=precision, weight_bits=8, latencies=(latency,), status=Status.NOT_JUDGED, tolerance=tolerance
    )
    (judged,) = judge_records([record], {}, JudgeOptions(gates=frozenset({"speedup"})))
    return judged.verdicts


@pytest.mark.parametrize(
    ("times_as_fast", "asked", "outcome", "code"),
    [
        (0.16, None, Outcome.SAME, "slower_than_fp32"),
        (2.0, None, Outcome.SAME, "no_limit"),
        (1.2, 1.5, Outcome.REGRESSED, "below_min_speedup"),
        (0.16, 1.0, Outcome.REGRESSED, "below_min_speedup"),
        (1.5, 1.5, Outcome.INCONCLUSIVE, "speed_unclear"),
        (2.0, 1.5, Outcome.SAME, "no_limit"),
    ],
)
def test_a_speed_up_is_judged_by_its_interval(times_as_fast, asked, outcome, code):
    (verdict,) = verdicts(times_as_fast, asked)
    assert (verdict.outcome, verdict.code) == (outcome, code)
    assert verdict.is_failure is (outcome is Outcome.REGRESSED)
    assert verdict.message.startswith("batch 1: ")
    assert ("that is slower" in verdict.message) is (times_as_fast < 1)


def test_too_few_rounds_never_pass_what_was_asked():
    (verdict,) = verdicts(2.0, 1.5, n_rounds=2)
    assert (verdict.outcome, verdict.code) == (Outcome.INCONCLUSIVE, "too_few_rounds")


def test_unlike_arms_have_no_speed_up():
    assert verdicts(0.5, 1.5, precision=Precision.FP32) == ()
    (verdict,) = verdicts(0.5, flags=(TIMED_OTHERWISE,))
    assert (verdict.outcome, verdict.code) == (Outcome.SAME, "timed_otherwise")
    (verdict,) = verdicts(0.5, 1.5, flags=(TIMED_OTHERWISE,))
    assert verdict.outcome is Outcome.INCONCLUSIVE

"""The gate `precision`: what ran is what was asked, against the baseline and against what is required."""

from dataclasses import replace

import pytest
from comparison_records import ENVIRONMENT, record_with

from harness.gates import JudgeOptions, judge_records, subject_from_record
from harness.records import EffectivePrecision, Outcome, Status
from harness.specs import Precision


def int8_that_ran(shares, **changes):
    effective = EffectivePrecision(by_layer=shares) if shares is not None else None
    changes = {"status": Status.NOT_JUDGED, "effective_precision": effective, **changes}
    return record_with(precision=Precision.INT8, weight_bits=8, **changes)


def verdicts_of(record, stored=None, **options):
    baselines = {} if stored is None else {record.key: replace(stored, is_baseline=True)}
    (judged,) = judge_records([record], baselines, JudgeOptions(gates=frozenset({"precision"}), **options))
    return judged.verdicts


def verdict_of(now, before=None, **changes):
    stored = subject_from_record(int8_that_ran(before), "the baseline of 2026-11-20") if before else None
    (verdict,) = verdicts_of(int8_that_ran(now, **changes), stored)
    return verdict


@pytest.mark.parametrize(
    ("before", "now", "outcome"),
    [
        ({"int8": 1.0}, {"fp32": 1.0}, Outcome.REGRESSED),
        ({"int8": 1.0}, {"int8": 0.9, "fp16": 0.1}, Outcome.REGRESSED),
        ({"int8": 0.71, "fp16": 0.29}, {"fp16": 1.0}, Outcome.REGRESSED),
        ({"int8": 0.71, "fp16": 0.29}, {"int8": 0.68, "fp16": 0.32}, Outcome.SAME),  # tactics by time
        ({"int8": 1.0}, {"int8": 1.0}, Outcome.SAME),
        ({"fp32": 1.0}, {"fp32": 1.0}, Outcome.SAME),
        ({"fp32": 1.0}, {"int8": 1.0}, Outcome.SAME),
    ],
)
def test_a_smaller_share_than_the_baselines_is_a_regression(before, now, outcome):
    verdict = verdict_of(now, before)
    assert (verdict.outcome, verdict.is_failure) == (outcome, outcome is Outcome.REGRESSED)


def test_the_verdict_says_what_ran_what_ran_before_and_what_the_device_is_fast_at():
    environment = replace(ENVIRONMENT, fast_precisions=("fp32", "fp16", "int8"))
    verdict = verdict_of({"fp16": 0.75, "fp32": 0.25}, {"int8": 1.0}, environment=environment)
    assert verdict.message == (
        "requested int8; of the compute layers ran 75% in fp16, 25% in fp32; this device has fast kernels for fp32, "
        "fp16, int8; in the baseline of 2026-11-20 100% ran in int8"
    )
    assert "harness baseline accept latest --case lenet5-ort-int8" in verdict.advice


@pytest.mark.parametrize(("share", "fails"), [({"int8": 1.0}, False), ({"int8": 0.99, "fp32": 0.01}, True)])
def test_required_precision_fails_whatever_the_baseline_has(share, fails):
    for before in (None, {"int8": 0.9}, {"fp32": 1.0}):
        assert verdict_of(share, before, requires_precision=True).is_failure is fails
        assert not verdict_of(share, before).is_failure


def test_a_requirement_holds_without_baselines_too():
    record = int8_that_ran({"fp32": 1.0}, requires_precision=True)
    assert [verdict.code for verdict in verdicts_of(record, baseline="ignore")] == ["not_as_required"]


def test_a_baseline_of_another_type_of_device_says_nothing():
    stored = subject_from_record(int8_that_ran({"int8": 1.0}, environment=replace(ENVIRONMENT, n_cpus=64)), "b")
    (verdict,) = verdicts_of(int8_that_ran({"fp32": 1.0}), stored)
    assert (verdict.code, verdict.is_failure) == ("not_as_asked", False)


@pytest.mark.parametrize(("shares", "told"), [({}, "no compute layer was told"), ({"unknown": 1.0}, "100% in unknown")])
def test_what_a_runtime_does_not_tell_is_not_as_required(shares, told):
    verdict = verdict_of(shares, requires_precision=True)
    assert (verdict.code, verdict.is_failure) == ("not_as_required", True)
    assert told in verdict.message
    assert verdict.advice == "the runtime does not tell what it ran in; leave out --require-precision"
    assert not verdict_of(shares).is_failure
    assert verdict_of(shares, {"int8": 1.0}).code == "fewer_as_asked"


def test_layers_that_were_not_read_back_give_no_verdict():
    assert verdicts_of(int8_that_ran(None)) == ()

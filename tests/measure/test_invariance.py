"""Invariance: an honest engine passes, and each planted leak is caught by the check made for it."""

from dataclasses import replace

import numpy as np
import pytest
from comparison_records import record_with

from harness.errors import MeasurementError
from harness.gates import Evidence, invariance
from harness.measure.invariance import OUTPUT_TOLERANCE, check_invariance
from harness.records import EngineFacts, Outcome, TensorSpec
from harness.specs import Precision


class FakeEngine:
    """A linear classifier; `fault(outputs, images)` changes its outputs."""

    def __init__(self, fault=None, fixed_batch=None):
        self.input = TensorSpec(name="x", dtype="float32", shape=(fixed_batch, 8))
        self.output = TensorSpec(name="y", dtype="float32", shape=(fixed_batch, 5))
        self.facts = EngineFacts(build_ns=1)
        self._weights = np.random.default_rng(13).normal(size=(8, 5)).astype(np.float32)
        self._fault = fault
        self._fixed_batch = fixed_batch
        self.calls = []

    def infer(self, images):
        if self._fixed_batch not in (None, len(images)):
            raise MeasurementError(f"batch {len(images)} in an engine of fixed batch {self._fixed_batch}")
        self.calls.append(len(images))
        outputs = (images[:, None, :] * self._weights.T[None]).sum(axis=2)
        return self._fault(outputs, images) if self._fault else outputs


def test_every_precision_has_a_tolerance():
    assert set(OUTPUT_TOLERANCE) == set(Precision)
    # BF16's roundings are 2**3 times FP16's; a leak of a neighbour moves outputs by tenths.
    assert OUTPUT_TOLERANCE[Precision.BF16] == pytest.approx(8 * OUTPUT_TOLERANCE[Precision.FP16])
    assert max(OUTPUT_TOLERANCE.values()) < 0.1


def images(n=16):
    return np.random.default_rng(14).uniform(size=(n, 8)).astype(np.float32)


def outcomes(engine, batch_sizes=(1, 2, 16), **options):
    options = {"precision": Precision.FP32, **options}
    checks = check_invariance(engine, images(), batch_sizes=batch_sizes, **options)
    return {v.code: v for v in judged(checks)}


def judged(checks):
    """What the gate says of them."""
    return invariance.judge(Evidence(record=replace(record_with(), invariance=tuple(checks))))


def test_an_honest_engine_keeps_every_result():
    engine = FakeEngine()
    found = outcomes(engine)
    assert list(found) == ["repeat", "batch_size", "slot", "neighbours", "padding"]
    assert all(v.outcome is Outcome.SAME and not v.is_failure and v.gate == "invariance" for v in found.values())
    assert set(engine.calls) == {1, 2, 16}


def slot_leak(outputs, images):
    outputs = outputs.copy()
    if len(outputs) > 8:
        outputs[9] = outputs[8]
    return outputs


def neighbour_leak(outputs, images):
    return outputs + 0.05 * images.mean() if len(images) > 1 else outputs


def last_row_is_lost(outputs, images):
    outputs = outputs.copy()
    if len(outputs) == 16:
        outputs[-1] = 0
    return outputs


def brightest_decides(outputs, images):
    """Ranges taken over the batch, as dynamic quantization does."""
    step = np.abs(images).max() / 20
    return np.round(outputs / step) * step


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (slot_leak, "slot_leak"),
        (neighbour_leak, "neighbours_leak"),
        (neighbour_leak, "padding_leak"),
        (last_row_is_lost, "slot_leak"),
        (last_row_is_lost, "batch_size_leak"),
        (brightest_decides, "neighbours_leak"),
    ],
)
def test_planted_leaks_are_caught(fault, code):
    found = outcomes(FakeEngine(fault))
    verdict = found[code]
    assert verdict.outcome is Outcome.REGRESSED
    assert verdict.is_failure
    assert verdict.advice
    assert verdict.value > 1e-3


def test_a_leak_only_at_the_largest_batch_is_caught():
    def leak(outputs, images):
        return outputs + (0.01 * images[0, 0] if len(images) == 100 else 0)

    assert "batch_size_leak" in outcomes(FakeEngine(leak), batch_sizes=(1, 100))


def test_outputs_that_the_next_call_overwrites_are_caught():
    buffer = {}

    def reuse(outputs, images):
        kept = buffer.setdefault(len(outputs), np.empty_like(outputs))
        kept[:] = outputs
        return kept

    assert "repeat_leak" in outcomes(FakeEngine(reuse))


def test_an_engine_that_rolls_dice_is_caught():
    generator = np.random.default_rng(15)
    assert "repeat_leak" in outcomes(FakeEngine(lambda o, i: o + generator.normal(size=o.shape) * 0.01))


def test_tolerance_is_that_of_the_precision():
    def small(outputs, images):
        return outputs + (3e-3 if len(images) > 1 else 0)

    assert outcomes(FakeEngine(small))["batch_size_leak"].is_failure
    assert not outcomes(FakeEngine(small), precision=Precision.INT8)["batch_size"].is_failure
    assert "accepted 0.0" in outcomes(FakeEngine(small), tolerance=0.01)["batch_size"].message


def test_a_fixed_batch_is_only_tried_at_its_size():
    engine = FakeEngine(fixed_batch=4)
    assert "batch_size" not in outcomes(engine)
    assert set(engine.calls) == {4}
    single = FakeEngine(fixed_batch=1)
    assert list(outcomes(single)) == ["repeat"]
    leaking = FakeEngine(lambda o, i: np.concatenate([o[:1], o[:1], o[2:]]), fixed_batch=4)
    assert any(v.is_failure for v in outcomes(leaking).values())


def test_nothing_to_try_or_nan_is_an_error():
    with pytest.raises(MeasurementError, match="show no invariance"):
        check_invariance(FakeEngine(), images(1), batch_sizes=(1, 2), precision=Precision.FP32)
    with pytest.raises(MeasurementError, match="show no invariance"):
        check_invariance(FakeEngine(), images(), batch_sizes=(), precision=Precision.FP32)
    with pytest.raises(MeasurementError, match="NaN or infinite"):
        outcomes(FakeEngine(lambda o, i: o * np.nan))
    with pytest.raises(MeasurementError, match="rows"):
        outcomes(FakeEngine(lambda o, i: o[:-1]))


def test_classes_that_are_ruled_out_have_no_gap():
    def rule_out(outputs, images):
        return np.where(outputs < np.median(outputs, axis=1, keepdims=True), np.float32(-np.inf), outputs)

    assert all(verdict.ok for verdict in outcomes(FakeEngine(rule_out)).values())


def test_a_leak_beside_ruled_out_classes_is_caught():
    def leak(outputs, images):
        outputs = np.where(np.arange(5) == 4, np.float32(-np.inf), outputs)
        return outputs + np.float32(0.1) * len(images)

    assert not all(verdict.ok for verdict in outcomes(FakeEngine(leak)).values())

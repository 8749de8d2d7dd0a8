"""The joint gate: a loss that is small in every case and the same everywhere is seen; a clean night is not."""

from dataclasses import replace

import numpy as np
import pytest
from comparison_records import accuracy_with, record_with

from harness.errors import MeasurementError
from harness.gates import Gate, JudgeOptions, find_gate, judge_records, list_gates, subject_from_record
from harness.records import Outcome, PackedArray, Status
from harness.specs import Precision, Tolerance
from harness.stats import joint_loss_p, mcnemar_p, smallest_joint_p

N = 10_000
BACKENDS = [f"backend{k}" for k in range(24)]
ASKED = JudgeOptions(gates=frozenset({"baseline", "joint"}))


def case_of(backend, wrong, *, model="lenet5", **changes):
    record = record_with(accuracy_with(n=N, wrong=wrong), backend=backend, status=Status.NOT_JUDGED, **changes)
    return replace(record, case=replace(record.case, model=model))


def night(now, before, **changes):
    """Judge cases {(model, backend): wrong images} against what was wrong before."""
    records = [case_of(backend, wrong, model=model, **changes) for (model, backend), wrong in now.items()]
    stored = {
        (record := case_of(backend, wrong, model=model)).key: replace(
            subject_from_record(record, "the baseline"), is_baseline=True
        )
        for (model, backend), wrong in before.items()
    }
    return judge_records(records, stored, ASKED)


def verdicts(judged, gate="joint"):
    return [verdict for record in judged for verdict in record.verdicts if verdict.gate == gate]


def losing(n_cases, n_lost, *, shared):
    """Cases that each lose as many images: the same ones, or others in each."""
    now = {
        ("lenet5", BACKENDS[k]): range(0 if shared else k * n_lost, (0 if shared else k * n_lost) + n_lost)
        for k in range(n_cases)
    }
    return night(now, dict.fromkeys(now, ()))


def test_p_values_are_those_of_all_sign_flips():
    generator = np.random.default_rng(3)
    for _ in range(20):
        net = generator.integers(-3, 5, 11)
        signs = np.array(np.meshgrid(*[[-1, 1]] * net.size)).reshape(net.size, -1)
        sums = net @ signs
        assert joint_loss_p(net) == pytest.approx(min(1.0, 2 * (sums >= abs(net.sum())).mean()))


def test_one_case_is_mcnemars_test():
    net = np.array([1] * 17 + [-1] * 4 + [0] * 100)
    assert joint_loss_p(net) == pytest.approx(mcnemar_p(17, 4))
    assert joint_loss_p(np.zeros(5, int)) == 1.0
    assert smallest_joint_p(net) == 2.0**-20
    with pytest.raises(MeasurementError, match="one number an image"):
        joint_loss_p(np.zeros((2, 2), int))


def test_many_changes_are_approximated_and_agree_with_the_exact_sum(monkeypatch):
    net = np.repeat([-2, -1, 1, 2], [600, 700, 790, 660])
    exact = joint_loss_p(net)
    monkeypatch.setattr("harness.stats.joint.MAX_EXACT", 100)
    assert 0.0005 < exact < 0.05
    assert joint_loss_p(net) == pytest.approx(exact, rel=0.05)


def test_a_loss_that_is_small_in_every_case_is_seen():
    judged = losing(24, 11, shared=False)
    alone = verdicts(judged, "baseline")
    assert not any(verdict.is_failure for verdict in alone)
    together = verdicts(judged)
    assert all(record.status is Status.FAILED for record in judged)
    assert len({verdict.message for verdict in together}) == 1
    assert "the 24 cases of model lenet5 together: 264 images lost, 0 gained" in together[0].message
    assert together[0].code == "joint_loss"


def test_the_same_few_images_lost_by_all_cases_count_once_each():
    """24 cases that move together are not 24 times the evidence."""
    judged = losing(24, 8, shared=True)
    assert verdicts(judged) == []
    assert all(record.status is Status.PASSED for record in judged)


def test_only_cases_that_lost_bear_it():
    now = {("lenet5", BACKENDS[k]): range(k * 11, k * 11 + 11) for k in range(23)} | {("lenet5", "calm"): ()}
    judged = night(now, dict.fromkeys(now, ()))
    assert [record.case.backend for record in judged if record.status is not Status.FAILED] == ["calm"]


def test_one_image_of_a_joint_loss_is_borne_and_a_gain_is_not():
    now = {("lenet5", BACKENDS[k]): range(k * 11 + 20, k * 11 + 31) for k in range(22)}
    before = dict.fromkeys(now, ())
    now |= {("lenet5", "one"): (19,), ("lenet5", "gains"): ()}
    before |= {("lenet5", "one"): (), ("lenet5", "gains"): (0,)}
    judged = night(now, before)
    bearing = {record.case.backend for record in judged if verdicts([record])}
    assert "one" in bearing
    assert "gains" not in bearing


def test_a_backend_is_a_group_too():
    now = {(f"model{k}", "ort"): range(k * 10, k * 10 + 10) for k in range(12)}
    together = verdicts(night(now, dict.fromkeys(now, ())))
    assert "the 12 cases of backend ort together: 120 images lost" in together[0].message


def test_what_may_change_is_no_part_of_it():
    now = {("lenet5", BACKENDS[k]): range(k * 11, k * 11 + 11) for k in range(24)}
    before = dict.fromkeys(now, ())
    other_model = record_with(accuracy_with(n=N)).artifact
    changed = replace(other_model, source_sha256="c" * 64)
    assert verdicts(night(now, before, artifact=changed)) == []
    assert verdicts(night(now, before, tolerance=Tolerance(max_drop_baseline=0.005))) == []
    int8 = {"precision": Precision.INT8}
    assert verdicts(night(now, before, **int8)) == []  # no baseline of that precision


def test_scores_that_contradict_themselves_cost_their_own_case_alone():
    now = {("lenet5", BACKENDS[k]): () for k in range(3)}
    records = [case_of(backend, wrong) for (_, backend), wrong in now.items()]
    stored = {record.key: subject_from_record(record, "the baseline") for record in records}
    broken = replace(records[0].accuracy, top1_hits=PackedArray.of(np.packbits(np.zeros(N, bool))))
    judged = judge_records([replace(records[0], accuracy=broken), *records[1:]], stored, ASKED)
    assert [record.status for record in judged] == [Status.ERROR, Status.PASSED, Status.PASSED]


def test_a_gate_on_many_cases_that_raises_is_their_error_and_not_the_end(monkeypatch):
    def broken(evidence):
        raise ZeroDivisionError("no cases")

    known = list_gates()
    mine = Gate(name="mine", summary="s", needs=(), applies=lambda c: True, judge=lambda e: (), judge_together=broken)
    monkeypatch.setattr("harness.gates.list_gates", lambda: (*known, mine))
    (judged,) = judge_records([case_of("ort", ())], {}, JudgeOptions(gates=frozenset({"mine"})))
    assert (judged.status, judged.reason) == (Status.ERROR, "mine: ZeroDivisionError: no cases")


def test_clean_nights_raise_no_more_alarms_than_alpha_allows():
    """Cases that share most of their noise, as engines of one model do, at ten times the usual alpha."""
    generator = np.random.default_rng(7)
    n_nights, n_alarms = 60, 0
    for _ in range(n_nights):
        noisy = generator.choice(N, 60, replace=False)
        now, before = {}, {}
        swapped = generator.random(60) < 0.5  # of all cases alike
        for k in range(8):
            own = generator.random(60) < 0.1
            is_now = swapped ^ own
            now["lenet5", BACKENDS[k]] = noisy[is_now].tolist()
            before["lenet5", BACKENDS[k]] = noisy[~is_now].tolist()
        judged = night(now, before, tolerance=Tolerance(alpha=0.01))
        n_alarms += any(verdict.outcome is Outcome.REGRESSED for verdict in verdicts(judged))
    assert n_alarms <= 3
    assert find_gate("joint").family == "baseline"


@pytest.mark.parametrize(("n_lost", "outcome", "code"), [(11, Outcome.REGRESSED, "joint_loss"), (0, None, "")])
def test_a_joint_loss_is_a_regression_in_name_too(n_lost, outcome, code):
    judged = losing(23, n_lost, shared=False)
    assert {(verdict.outcome, verdict.code) for verdict in verdicts(judged)} == (
        {(outcome, code)} if outcome else set()
    )


def test_images_lost_and_gained_by_all_are_counted_apart():
    (verdict, *_) = verdicts(losing(23, 11, shared=False))
    assert f"{23 * 11} images lost, 0 gained" in verdict.message

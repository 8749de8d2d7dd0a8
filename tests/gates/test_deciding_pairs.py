"""What decides inside gates: pairs of hits, subjects, shared images; each line told from its neighbours."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from comparison_records import ENVIRONMENT, accuracy_with, latency_with, pair_with, record_with
from sample_records import class_scores, number_scores, sample_record, source_record

from harness.errors import MeasurementError
from harness.gates import Candidate, Evidence, JudgeOptions, find_gate, judge_records, subject_from_record
from harness.gates._accuracy import _with_ties, accuracy_changes, check_accuracy
from harness.gates._family import smallest_p_of
from harness.gates._growth import Sides
from harness.gates._images import shared_images
from harness.gates._judging import FoundAlone, _adjusted, _loss_split
from harness.gates._paired import (
    Changes,
    changes_between,
    check_tolerance,
    judge_identity,
    judge_margin,
    smallest_loss_beyond,
)
from harness.gates._samples import SamplePair, judge_same_samples, pair_of, sample_differences
from harness.gates._slices import worst_slice
from harness.gates._subjects import RANGES, changes_of_machine, changes_of_preparation, is_other_int8_isa, model_change
from harness.gates._upgrade import _libraries
from harness.gates.chance import judge_chance
from harness.gates.precision import _share
from harness.records import EffectivePrecision, InvarianceCheck, MetricSlices, Outcome, PackedArray, Status, Verdict
from harness.specs import Case, Precision
from harness.stats import loss_interval, smallest_flagged_loss

OK = np.ones(100, bool)


def hits(*lost):
    found = OK.copy()
    found[list(lost)] = False
    return found


@pytest.mark.parametrize(
    ("reference", "ours"), [(OK, OK[:-1]), (OK[:-1], OK), (OK[:0], OK[:0]), (np.bool_(True), np.bool_(True))]
)
def test_hits_that_do_not_pair_up_are_refused(reference, ours):
    with pytest.raises(MeasurementError, match="do not pair up"):
        changes_between(np.asarray(reference), np.asarray(ours))


def test_one_image_is_enough_to_be_counted():
    assert changes_between(OK[:1], OK[:1]).n == 1


@pytest.mark.parametrize("alpha", [-0.1, 0.0, 0.5, 0.9])
def test_a_rate_of_false_alarms_that_is_none_is_refused(alpha):
    with pytest.raises(MeasurementError, match="false-alarm rate"):
        check_tolerance(0.01, alpha)
    check_tolerance(0.01, 0.4)


@pytest.mark.parametrize(
    ("n_lost", "n_gained", "outcome"),
    [(0, 1, Outcome.INCONCLUSIVE), (0, 40, Outcome.IMPROVED), (40, 0, Outcome.REGRESSED), (1, 0, Outcome.INCONCLUSIVE)],
)
def test_identity_is_told_by_what_chance_cannot_do(n_lost, n_gained, outcome):
    changes = changes_between(hits(*range(n_gained)), hits(*range(n_gained, n_gained + n_lost)))
    verdict = judge_identity("baseline", changes, margin=0.0, margin_same=0.001, alpha=0.001, against="it")
    assert verdict.outcome is outcome


@pytest.mark.parametrize(("n_lost", "n_gained", "outcome"), [(0, 40, Outcome.IMPROVED), (40, 0, Outcome.REGRESSED)])
def test_a_margin_of_nothing_is_crossed_by_a_loss_alone(n_lost, n_gained, outcome):
    changes = changes_between(hits(*range(n_gained)), hits(*range(n_gained, n_gained + n_lost)))
    assert judge_margin("fp32", changes, margin=0.0, alpha=0.001, against="it").outcome is outcome


def test_identical_predictions_of_few_images_are_told_without_a_test_that_compares_nothing():
    few = changes_between(hits(1), hits(1))
    message = judge_margin("fp32", few, margin=0.005, alpha=0.001, against="FP32").message
    assert "the predictions identical to those of FP32: so few cannot rule out a loss of up to 8.72 points" in message
    assert "McNemar" not in message


def test_a_growth_tells_its_interval_as_changes():
    sides = SimpleNamespace(margin=0.1, changed=(), accept="", gate="memory")
    found = SimpleNamespace(low=1.05, high=1.25, p_value=0.5, detectable=0.2)
    verdict = Sides.verdict(sides, Outcome.SAME, "kept", "it", numbers=(1.0, 2.0), found=found, advice="")
    assert (verdict.change_low, verdict.change_high) == pytest.approx((0.05, 0.25))


@pytest.mark.parametrize(("ours", "theirs"), [(0, 5), (5, 0), (-1, 5), (5, -1)])
def test_a_size_of_nothing_is_an_error(ours, theirs):
    with pytest.raises(MeasurementError, match="expected more than 0"):
        Sides.plain(SimpleNamespace(margin=0.1), "engine", ours, theirs, codes=("a", "b", "c"), advice="")


@pytest.mark.parametrize("fingerprint", ["e" * 64, "f" * 64])
def test_a_loss_is_split_where_the_emulation_scored_the_same_images(fingerprint):
    fp32, int8 = pair_with(lost=40, gained=0)
    emulation = replace(int8, fingerprint=fingerprint)
    records = [record_with(fp32), record_with(int8, precision=Precision.INT8, emulation=emulation)]
    judged = judge_records(records, {}, JudgeOptions(gates=frozenset({"fp32"})))[1]
    is_same = fingerprint == int8.fingerprint
    assert (judged.loss_split is not None) == is_same
    assert (judged.status is Status.ERROR) != is_same
    assert ("cannot be split over different images" in judged.reason) != is_same


def test_chance_is_refused_unless_it_is_allowed():
    labels = accuracy_with(n=1000)
    guess = replace(labels, predictions=PackedArray.of(np.zeros(1000, np.uint8)))
    hits_of_guess = np.packbits(labels.labels.array() == 0)
    guess = replace(guess, top1_hits=PackedArray.of(hits_of_guess))
    assert judge_chance(guess, alpha=0.001).is_failure
    assert not judge_chance(guess, alpha=0.001, allows=True).is_failure


@pytest.mark.parametrize(("by_layer", "share"), [({"int8": 0.75, "fp32": 0.25}, 0.75), ({"fp32": 1.0}, 0.0)])
def test_a_precision_that_no_layer_ran_in_has_no_share(by_layer, share):
    effective = EffectivePrecision(by_layer=by_layer)
    record = record_with(accuracy_with(n=10), precision=Precision.INT8)
    assert _share(effective, record) == share


def asked_of(*, backend="openvino", precision=Precision.INT8, has_metrics=True, writes="qdq", **more):
    recipe = "none" if precision is Precision.FP32 else "qdq-minmax"
    case = Case(model="m", backend=backend, precision=precision, recipe=recipe)
    given = {"case": case, "writes": writes, "timing_only": False, "has_metrics": has_metrics, "runs_samples": True}
    return find_gate("metric").applies(Candidate(**{**given, **more}))


def test_the_metric_gate_is_asked_where_there_are_metrics_and_something_to_compare_with():
    assert asked_of()
    assert not asked_of(has_metrics=False)
    assert asked_of(precision=Precision.FP32)
    assert not asked_of(backend="ort", precision=Precision.FP32)
    assert not asked_of(backend="ort", precision=Precision.FP32, has_metrics=False)


def check_of(*, is_kept):
    return InvarianceCheck(
        name="slot",
        n_rows=4,
        n_arrangements=2,
        largest_gap=0.0 if is_kept else 1.0,
        accepted_gap=0.1,
        n_changed=0,
        worst="batch 2",
    )


@pytest.mark.parametrize(("is_kept", "code"), [(True, "slot"), (False, "slot_leak")])
def test_a_leak_has_a_code_of_its_own(is_kept, code):
    record = record_with(accuracy_with(n=10), invariance=(check_of(is_kept=is_kept),))
    (verdict,) = find_gate("invariance").judge(Evidence(record=record))
    assert (verdict.code, verdict.is_failure) == (code, not is_kept)


@pytest.mark.parametrize(("before", "after"), [("1.2", "1.10"), ("1.10", "1.2"), ("2", "10")])
def test_a_library_whose_version_differs_is_named_whichever_is_larger(before, after):
    assert _libraries({"numpy": "1", "onnx": before}, {"numpy": "1", "onnx": after}) == ["onnx"]


def slices_of(names=("a", "b"), of="class"):
    return MetricSlices(
        of=of,
        names=names,
        rows=PackedArray.of(np.arange(40)),
        groups=PackedArray.of(np.repeat([0, 1], 20)),
        values=PackedArray.of(np.ones(40)),
    )


def test_classes_are_compared_where_both_sides_have_the_same():
    good, bad = slices_of(), slices_of()
    bad = replace(bad, values=PackedArray.of(np.repeat([1.0, 0.0], 20)))
    assert "b" in worst_slice(bad, good, alpha=0.01)
    for ours, theirs in (
        (None, good),
        (bad, None),
        (None, None),
        (bad, slices_of(("a", "c"))),
        (bad, slices_of(of="x")),
    ):
        assert worst_slice(ours, theirs, alpha=0.01) == ""


def subject(**changes):
    return subject_from_record(record_with(accuracy_with(n=10), **changes), "it")


@pytest.mark.parametrize(
    ("field", "told"),
    [("driver", "driver 1 -> 2"), ("cuda_version", "CUDA 1 -> 2"), ("cpu_isa", "CPU instructions 1 -> 2")],
)
def test_what_any_engine_would_feel_is_named(field, told):
    now, before = (subject(environment=replace(ENVIRONMENT, **{field: value})) for value in ("2", "1"))
    assert changes_of_machine(now, before) == (told,)
    assert changes_of_machine(now, now) == ()


def test_a_subject_has_the_bits_of_its_weights():
    record = record_with(accuracy_with(n=10))
    assert subject_from_record(record, "it").weight_bits == record.artifact.weight_bits
    assert subject_from_record(replace(record, artifact=None), "it").weight_bits == 0


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [("aaaa1", "aaab1", "aaaa -> aaab"), ("aaaa1", "aaaa2", "aaaa1 -> aaaa2"), ("aaaa1", "aaaa1", "")],
)
def test_models_are_told_by_as_many_digits_as_it_takes(before, now, told):
    ours, theirs = (replace(subject(), source_sha256=sha256) for sha256 in (now, before))
    assert model_change(ours, theirs) == told


@pytest.mark.parametrize("side", ["ours", "theirs"])
def test_ranges_without_digests_of_blocks_share_nothing(side):
    scores = {name: subject().scores for name in ("ours", "theirs")}
    scores["theirs"] = replace(scores["theirs"], images=replace(scores["theirs"].images, stop=9))
    scores[side] = replace(scores[side], block_digests=None)
    assert shared_images(scores["ours"], scores["theirs"]).ours.size == 0


def test_ties_of_either_side_are_told():
    plain, tied = accuracy_with(n=100), replace(accuracy_with(n=100), n_ties_top1=90)
    verdict = Verdict(gate="fp32", outcome=Outcome.SAME, code="x", message="m")
    assert tied.has_many_ties
    assert _with_ties(verdict, plain, plain) == verdict
    for ours, theirs in ((plain, tied), (tied, plain), (tied, tied)):
        assert "tie at the top" in _with_ties(verdict, ours, theirs).message


def test_a_speed_up_has_its_interval_in_words():
    record = record_with(accuracy_with(n=10), precision=Precision.INT8, latencies=(latency_with(),))
    (verdict,) = find_gate("speedup").judge(Evidence(record=record))
    assert "2 times as fast as FP32 (2 to 2)" in verdict.message


@pytest.mark.parametrize(
    ("now", "before", "told"),
    [
        ({"device_name": "A"}, {"device_name": "B"}, "device B -> A"),
        ({"device_name": "", "cpu_model": "X"}, {"device_name": "", "cpu_model": "Y"}, "device Y -> X"),
        ({"device_name": "A", "cpu_model": "X"}, {"device_name": "A", "cpu_model": "Y"}, ""),
    ],
)
def test_a_device_goes_by_its_own_name_or_by_that_of_the_cpu(now, before, told):
    ours, theirs = (subject(environment=replace(ENVIRONMENT, **fields)) for fields in (now, before))
    assert changes_of_machine(ours, theirs) == ((told,) if told else ())


def test_a_verdict_without_images_could_have_had_any_p_value():
    verdict = Verdict(gate="fp32", outcome=Outcome.SAME, code="x", message="m")
    assert smallest_p_of(verdict) == 0.0
    assert smallest_p_of(replace(verdict, n_lost=3, n_gained=1)) > 0


@pytest.mark.parametrize("side", ["ours", "theirs"])
def test_a_metric_that_is_no_number_is_refused_on_either_side(side):
    scores = {"ours": class_scores(30), "theirs": class_scores(30)}
    leading = replace(scores[side].metrics[0], value=float("nan"))
    scores[side] = replace(scores[side], metrics=(leading, *scores[side].metrics[1:]))
    with pytest.raises(MeasurementError, match="is not a number"):
        pair_of(scores["ours"], scores["theirs"], against="it")


@pytest.mark.parametrize(("accepted", "outcome"), [(0.0, Outcome.REGRESSED), (0.5, Outcome.INCONCLUSIVE)])
def test_a_real_loss_is_red_where_none_is_accepted_and_not_where_more_is(accepted, outcome):
    found = judge_same_samples(
        "metric_baseline",
        class_scores(200, wrong=range(60)),
        class_scores(200),
        accepted=accepted,
        accepted_same=0.001,
        alpha=0.001,
        against="it",
    )
    assert (found.outcome is Outcome.REGRESSED) == (outcome is Outcome.REGRESSED)


@pytest.mark.parametrize(("n_lost", "n_gained"), [(40, 0), (3, 3), (0, 40)])
def test_a_verdict_on_pairs_carries_the_interval_at_its_own_rate(n_lost, n_gained):
    changes = changes_between(hits(*range(n_gained)), hits(*range(n_gained, n_gained + n_lost)))
    verdict = judge_identity("baseline", changes, margin=0.0, margin_same=0.001, alpha=0.01, against="it")
    low, high = loss_interval(n_lost, n_gained, 100, 0.98)
    assert (verdict.change_low, verdict.change_high) == (-high, -low)


def test_images_wrong_in_another_way_are_told():
    changes = accuracy_changes(accuracy_with(n=100, wrong=(3, 4)), accuracy_with(n=100, other=(3, 4)))
    assert (changes.n_changed, changes.n_lost, changes.n_gained) == (2, 0, 0)
    verdict = judge_identity("baseline", changes, margin=0.0, margin_same=0.001, alpha=0.01, against="it")
    assert "2 wrong in another way" in verdict.message
    both = accuracy_changes(accuracy_with(n=100, wrong=(3, 4, 5)), accuracy_with(n=100, other=(3, 4), wrong=(6,)))
    assert (both.n_changed, both.n_lost, both.n_gained) == (4, 1, 1)
    verdict = judge_identity("baseline", both, margin=0.0, margin_same=0.001, alpha=0.01, against="it")
    assert "1 lost, 1 gained, 2 wrong in another way" in verdict.message


@pytest.mark.parametrize("missing", ["accuracy", "emulation", "fp32", "its accuracy"])
def test_a_loss_is_split_where_all_three_were_scored(missing):
    scores = accuracy_with(n=10)
    record = record_with(
        None if missing == "accuracy" else scores,
        precision=Precision.INT8,
        emulation=None if missing == "emulation" else scores,
    )
    fp32 = None if missing == "fp32" else record_with(None if missing == "its accuracy" else scores)
    assert _loss_split(Evidence(record=record, fp32=fp32)) == (None, "")


@pytest.mark.parametrize("n_gained", [0, 5, 20])
def test_a_loss_that_would_be_flagged_must_fit_beside_what_was_gained(n_gained):
    """Lost are the net loss and as many as were gained, each of another image."""
    least = smallest_flagged_loss(n_gained, 0.001)
    fits = least + 2 * n_gained
    found = [
        smallest_loss_beyond(
            Changes(n=n, n_right=n, n_right_reference=n - n_gained, n_lost=0, n_gained=n_gained, n_changed=n_gained),
            margin=0.0,
            alpha=0.001,
        )
        for n in (fits - 1, fits)
    ]
    assert found == [None, least / fits]


def test_scores_of_one_image_are_whole_and_of_none_are_not():
    check_accuracy(accuracy_with(n=1))
    with pytest.raises(MeasurementError, match="scores of 0 images"):
        check_accuracy(accuracy_with(n=0))


def test_gates_share_a_rate_of_false_alarms_with_their_family_alone():
    """Two gates without a family of their own do not pay for each other."""
    names = ("fp32", "reference", "baseline", "joint")
    gates = [find_gate(name) for name in names]
    slower = [Verdict(gate=name, outcome=Outcome.REGRESSED, code="x", message="m", p_value=0.004) for name in names[:3]]
    found = [FoundAlone(verdicts=tuple(slower))] * 2
    outcomes = [verdict.outcome for _, verdict in _adjusted(found, [], gates, alpha=0.01)]
    assert outcomes == [Outcome.REGRESSED] * 6  # 2 * 0.004 is below 0.01, and 6 * 0.004 is not
    assert {v.outcome for _, v in _adjusted(found * 3, [], gates, alpha=0.01)} == {Outcome.INCONCLUSIVE}


@pytest.mark.parametrize(("n_lost", "n_gained"), [(3, None), (None, 3)])
def test_one_count_alone_has_no_p_value(n_lost, n_gained):
    verdict = Verdict(gate="fp32", outcome=Outcome.SAME, code="x", message="m", n_lost=n_lost, n_gained=n_gained)
    assert smallest_p_of(verdict) == 0.0


def test_a_speed_up_carries_its_interval_as_changes():
    record = record_with(accuracy_with(n=10), precision=Precision.INT8, latencies=(latency_with(),))
    (verdict,) = find_gate("speedup").judge(Evidence(record=record))
    assert (verdict.value, verdict.change_low, verdict.change_high) == (2.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("precision", "ours", "theirs", "is_other"),
    [
        (Precision.INT8, {"cpu_isa": "avx2"}, {"cpu_isa": "avx512"}, True),
        (Precision.INT8, {"weight_bits": 7}, {"weight_bits": 8}, True),
        (Precision.INT8, {}, {}, False),
        (Precision.FP32, {"cpu_isa": "avx2"}, {"cpu_isa": "avx512"}, False),
    ],
)
def test_other_int8_instructions_are_told_by_the_cpu_or_by_the_bits_of_the_weights(precision, ours, theirs, is_other):
    def side(fields):
        known = subject(precision=precision)
        isa = fields.get("cpu_isa", known.environment.cpu_isa)
        environment = replace(known.environment, cpu_isa=isa)
        return replace(known, environment=environment, weight_bits=fields.get("weight_bits", 8))

    assert is_other_int8_isa(side(ours), side(theirs)) is is_other


def test_an_accepted_loss_is_in_the_metrics_own_unit():
    pair = pair_of(number_scores([1.0] * 30), number_scores([4.0] * 30), against="it")
    assert pair.margin(0.1) == pytest.approx(0.1 * pair.theirs.value) != pytest.approx(0.1)
    assert pair_of(class_scores(30), class_scores(30), against="it").margin(0.1) == 0.1


@pytest.mark.parametrize(("low", "high", "is_rate"), [(0.0, 1.0, True), (-0.5, 1.0, False), (0.0, 1.5, False)])
def test_slices_between_0_and_1_are_told_as_rates(low, high, is_rate):
    good, bad = slices_of(), slices_of()
    good = replace(good, values=PackedArray.of(np.full(40, high)))
    bad = replace(bad, values=PackedArray.of(np.repeat([high, low], 20)))
    assert ("%" in worst_slice(bad, good, alpha=0.01).partition("(p =")[0]) is is_rate


def test_settings_of_a_task_that_both_sides_have_are_compared_too():
    ours = class_scores(30)
    theirs = replace(ours, settings={**ours.settings, "threshold": "0.5", "only_there": "1"})
    ours = replace(ours, settings={**ours.settings, "threshold": "0.4"})
    assert sample_differences(ours, theirs) == (
        "[task] only_there default and 1",
        "[task] threshold 0.4 and 0.5",
    )


def test_scores_are_identical_where_resamples_are_missing_on_either_side():
    scored = class_scores(30).metrics[0]
    bare = replace(scored, resamples=None)
    for ours, theirs in ((scored, bare), (bare, scored), (bare, bare), (scored, scored)):
        assert SamplePair(ours=ours, theirs=theirs, against="it").is_identical


@pytest.mark.parametrize("missing", ["ours", "theirs"])
def test_the_metric_gate_says_nothing_where_one_side_has_no_samples(missing):
    ours, fp32 = sample_record(class_scores(30)), source_record(class_scores(30))
    if missing == "ours":
        ours = replace(ours, samples=None)
    else:
        fp32 = replace(fp32, samples=None)
    assert find_gate("metric").judge(Evidence(record=ours, fp32=fp32)) == ()


@pytest.mark.parametrize("n_gained", [0, 3])
@pytest.mark.parametrize("margin", [0.0, 0.005])
def test_the_smallest_loss_that_would_fail_fails_and_one_image_less_does_not(n_gained, margin):
    n, alpha = 1000, 0.001
    changes = changes_between(hits_of(n, range(n_gained)), hits_of(n, ()))
    least = round(smallest_loss_beyond(changes, margin=margin, alpha=alpha) * n)

    def outcome(net):
        lost = range(n_gained, n_gained + net + n_gained)
        found = changes_between(hits_of(n, range(n_gained)), hits_of(n, lost))
        return judge_margin("fp32", found, margin=margin, alpha=alpha, against="it").outcome

    assert outcome(least) is Outcome.REGRESSED
    assert outcome(least - 1) is not Outcome.REGRESSED


def hits_of(n, lost):
    found = np.ones(n, bool)
    found[list(lost)] = False
    return found


def test_of_another_model_the_ranges_are_expected_to_differ_and_nothing_else_is():
    ours, theirs = (
        replace(subject(), preparation={RANGES: text, "dataset": text}, source_sha256=text) for text in ("a1", "b2")
    )
    assert changes_of_preparation(ours, theirs) == ("dataset b2 -> a1",)
    same = replace(ours, source_sha256="b2")
    assert changes_of_preparation(same, theirs) == tuple(sorted((f"{RANGES} b2 -> a1", "dataset b2 -> a1")))


@pytest.mark.parametrize("accepted", [0.0, 0.05])
def test_where_nothing_is_accepted_the_p_value_is_that_of_any_loss(accepted):
    ours, theirs = class_scores(200, wrong=range(3)), class_scores(200)
    verdict = judge_same_samples(
        "metric_baseline", ours, theirs, accepted=accepted, accepted_same=0.001, alpha=0.01, against="it"
    )
    change = pair_of(ours, theirs, against="it").change(margin=accepted, alpha=0.01)
    assert verdict.p_value == pytest.approx(change.p_beyond if accepted else change.p_any)
    assert (change.p_beyond == change.p_any) is (accepted == 0)


@pytest.mark.parametrize("elsewhere", ["ours", "theirs"])
def test_instructions_of_the_cpu_matter_where_both_sides_ran_on_one(elsewhere):
    sides = {name: subject(precision=Precision.INT8) for name in ("ours", "theirs")}
    sides["ours"] = replace(sides["ours"], weight_bits=7)
    assert is_other_int8_isa(sides["ours"], replace(sides["theirs"], weight_bits=8))
    sides[elsewhere] = replace(sides[elsewhere], case=replace(sides[elsewhere].case, device="cuda:0"))
    assert not is_other_int8_isa(sides["ours"], replace(sides["theirs"], weight_bits=8))

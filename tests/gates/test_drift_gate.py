"""The drift of outputs is judged by the median over samples, with what roundings alone do taken into account."""

from dataclasses import replace

import numpy as np
import pytest
from comparison_records import record_with

from harness.gates import JudgeOptions, find_gate, judge_records
from harness.gates._gate import Candidate
from harness.records import Outcome, PackedArray, SampleScores, Status, TensorDrift
from harness.specs import Case, Precision, Tolerance

N = 32
IDS = tuple(map(str, range(N)))


def drifted(relative, *, output="y", against="m-ort-fp32", **changes):
    relative = np.asarray(relative, np.float64)
    known = {
        "output": output,
        "against": against,
        "n_samples": len(relative),
        "max_abs": 1.0,
        "rmse": 0.1,
        "cosine": 0.9,
        "agreement": None,
        "n_reshaped": 0,
        "relative": PackedArray.of(relative),
    }
    return TensorDrift(**{**known, **changes})


def judged(
    *drifts, precision=Precision.INT8, backend="openvino", max_drift=None, n_nan=None, alpha=0.001, kernel_drifts=()
):
    case = Case(
        model="m", backend=backend, precision=precision, recipe="none" if precision is Precision.FP32 else "cast"
    )
    record = replace(
        record_with(None),
        case=case,
        timing_only=True,
        samples=SampleScores(
            task="raw", source="seeded", fingerprint="f", ids=tuple(map(str, range(N))), n_nan=n_nan or {}
        ),
        tensor_drifts=drifts,
        kernel_drifts=kernel_drifts,
        tolerance=Tolerance(max_drift=max_drift, alpha=alpha),
    )
    (found,) = judge_records([record], {}, JudgeOptions(gates=frozenset({"drift"})))
    return found


def verdicts_of(record):
    return [(verdict.code, verdict.outcome) for verdict in record.verdicts]


@pytest.mark.parametrize(
    ("relative", "code", "outcome"),
    [
        ([0.02] * N, "within_limit", Outcome.SAME),
        ([0.2] * N, "drift_beyond_limit", Outcome.REGRESSED),
        ([0.02] * 16 + [0.2] * 16, "too_few_samples", Outcome.INCONCLUSIVE),
        ([0.2] * 4 + [0.02] * 28, "within_limit", Outcome.SAME),  # its median is what is judged
        ([np.inf] * N, "drift_beyond_limit", Outcome.REGRESSED),
        ([0.2] * 3, "too_few_samples", Outcome.INCONCLUSIVE),
    ],
)
def test_the_median_is_judged_by_its_samples(relative, code, outcome):
    record = judged(drifted(relative), max_drift=0.05)
    assert verdicts_of(record) == [(code, outcome)]
    assert (record.status is Status.FAILED) == (outcome is Outcome.REGRESSED)


def test_without_a_limit_a_lower_precision_is_shown_alone():
    record = judged(drifted([0.5] * N))
    assert verdicts_of(record) == [("no_limit", Outcome.SAME)]
    assert "--max-drift sets a limit" in record.verdicts[0].message


@pytest.mark.parametrize(
    ("relative", "more", "code", "outcome"),
    [
        ([1.5] * N, {}, "unlike_reference", Outcome.REGRESSED),
        ([np.inf] * N, {}, "unlike_reference", Outcome.REGRESSED),
        ([1.5] * N, {"spread": 0.0}, "unlike_reference", Outcome.REGRESSED),
        ([1.5] * N, {"rounding": 0.6}, "no_limit", Outcome.SAME),  # roundings of the inputs do as much
        ([1.5] * 3, {}, "too_few_samples", Outcome.INCONCLUSIVE),
        ([1.5] * 18 + [0.5] * 14, {}, "too_few_samples", Outcome.INCONCLUSIVE),
        ([1.5] * 4 + [0.5] * 28, {}, "no_limit", Outcome.SAME),
    ],
)
def test_an_error_larger_than_the_outputs_needs_no_limit_to_be_red(relative, more, code, outcome):
    record = judged(drifted(relative, **more))
    assert verdicts_of(record) == [(code, outcome)]
    assert (record.status is Status.FAILED) == (outcome is Outcome.REGRESSED)
    assert ("larger than the outputs themselves" in record.verdicts[0].message) == (outcome is not Outcome.SAME)
    asked = judged(drifted(relative, **more), max_drift=100.0)
    assert asked.status is not Status.FAILED or np.isinf(relative[0])


@pytest.mark.parametrize(("error", "code"), [(0.5, "drift_beyond_limit"), (0.001, "within_limit")])
def test_fp32_engines_are_held_against_each_other_without_being_asked(error, code):
    assert verdicts_of(judged(drifted([error] * N), precision=Precision.FP32))[0][0] == code


def test_what_roundings_alone_do_is_no_drift():
    calm = judged(drifted([0.08] * N, rounding=0.001), precision=Precision.FP32)
    wild = judged(drifted([0.08] * N, rounding=0.1), precision=Precision.FP32)
    assert verdicts_of(calm)[0][0] == "drift_beyond_limit"
    assert verdicts_of(wild)[0][0] == "within_limit"
    assert "roundings alone move m-ort-fp32 by 10.00 %" in wild.verdicts[0].message
    far = judged(drifted([0.5] * N, rounding=0.1), precision=Precision.FP32)
    assert verdicts_of(far)[0][0] == "drift_beyond_limit"


@pytest.mark.parametrize("spread", [0.0, 1e-7, 0.0015])
@pytest.mark.parametrize("max_drift", [None, 0.01])
def test_a_reference_that_says_nothing_proves_no_engine_right(spread, max_drift):
    record = judged(drifted([0.001] * N, spread=spread), max_drift=max_drift)
    assert verdicts_of(record) == [("constant_outputs", Outcome.INCONCLUSIVE)]


@pytest.mark.parametrize("max_drift", [None, 0.01])
def test_a_reference_that_differs_plainly_is_not_said_to_be_constant(max_drift):
    (verdict,) = judged(drifted([0.5] * N, spread=0.6), max_drift=max_drift).verdicts
    assert verdict.code == ("no_limit" if max_drift is None else "drift_beyond_limit")
    assert "between samples" not in verdict.message


@pytest.mark.parametrize(("max_drift", "code"), [(None, "no_limit"), (0.01, "within_limit")])
def test_an_engine_that_follows_what_little_the_reference_says_is_right(max_drift, code):
    record = judged(drifted([0.0001] * N, spread=0.0015), max_drift=max_drift)
    assert verdicts_of(record) == [(code, Outcome.SAME)]


@pytest.mark.parametrize(
    ("limit", "told"), [(1e-5, "beyond the accepted 0.001 %"), (5e-8, "5e-06 %"), (0.02, "the accepted 2.00 %")]
)
def test_a_small_limit_is_told_with_digits_that_count(limit, told):
    record = judged(drifted([3e-6] * N, rounding=1e-9), max_drift=limit)
    assert told in record.verdicts[0].message
    assert "median error 0.0003 % of y" in record.verdicts[0].message


def test_outputs_of_a_case_share_its_false_alarm_rate():
    # 16 of 19 beyond the limit: p = 0.0022 alone, 0.0044 and more as one of several outputs.
    relative = [0.2] * 16 + [0.02] * 3
    p_alone = 0.0022125244140625
    alone = judged(drifted(relative), max_drift=0.1, alpha=0.003)
    assert verdicts_of(alone) == [("drift_beyond_limit", Outcome.REGRESSED)]
    assert alone.verdicts[0].p_value == pytest.approx(p_alone)
    other = drifted([0.02] * 19, output="z")
    both = judged(drifted(relative), other, max_drift=0.1, alpha=0.003)
    assert verdicts_of(both) == [("too_few_samples", Outcome.INCONCLUSIVE)]
    judged_at_more = judged(drifted(relative), other, max_drift=0.1, alpha=0.005)
    assert verdicts_of(judged_at_more) == [("drift_beyond_limit", Outcome.REGRESSED)]
    assert judged_at_more.verdicts[0].p_value == pytest.approx(2 * p_alone)


def test_a_reference_that_says_nothing_hides_no_engine_that_is_far_off():
    record = judged(drifted([0.9] * N, spread=0.0), max_drift=0.01)
    assert verdicts_of(record) == [("drift_beyond_limit", Outcome.REGRESSED)]
    assert "m-ort-fp32 gives the same for every sample" in record.verdicts[0].message
    assert "are these the trained weights" in record.verdicts[0].advice


def test_the_farthest_output_of_each_comparison_is_named():
    record = judged(
        drifted([0.01] * N, output="a"),
        drifted([0.3] * N, output="b"),
        drifted([0.02] * N, output="a", against="m-openvino-fp32"),
        drifted([0.01] * N, output="b", against="m-openvino-fp32"),
        max_drift=0.1,
    )
    assert verdicts_of(record) == [("drift_beyond_limit", Outcome.REGRESSED), ("within_limit", Outcome.SAME)]
    assert "of b against m-ort-fp32" in record.verdicts[0].message
    assert "of a against m-openvino-fp32" in record.verdicts[1].message


def test_it_is_asked_of_graphs():
    gate = find_gate("drift")

    def asks(backend, precision, *, runs_samples=True):
        case = Case(model="m", backend=backend, precision=precision, recipe="none")
        return gate.applies(Candidate(case=case, writes="nothing", runs_samples=runs_samples))

    assert asks("openvino", Precision.FP32)
    assert asks("ort", Precision.INT8)
    assert asks("ort", Precision.FP32)  # whose outputs are run, kept and looked at
    assert not asks("openvino", Precision.INT8, runs_samples=False)


def test_what_all_are_compared_with_is_looked_at_for_nan():
    assert verdicts_of(judged(precision=Precision.FP32, backend="ort")) == [("nothing_to_compare", Outcome.SAME)]
    broken = judged(precision=Precision.FP32, backend="ort", n_nan={"y": 3})
    assert verdicts_of(broken) == [("nan_outputs", Outcome.INCONCLUSIVE)]
    assert "NaN in y of 3 of 32 samples" in broken.verdicts[0].message


def test_what_excuses_one_output_hides_no_loss_of_another():
    noisy = drifted([0.4] * N, output="noise", rounding=0.5)
    lost = drifted([0.1] * N, output="boxes")
    found = judged(noisy, lost, max_drift=0.01)
    (verdict,) = [v for v in found.verdicts if v.gate == "drift"]
    assert (verdict.code, verdict.outcome) == ("drift_beyond_limit", Outcome.REGRESSED)


@pytest.mark.parametrize(
    ("of_kernels", "told"),
    [
        (0.0001, "its kernels alone 0.01 % off the float emulation of its file: quantization"),
        (0.19, "its kernels alone 19.00 % off the float emulation of its file: its kernels"),
    ],
)
def test_drift_of_a_qdq_file_is_split_between_quantization_and_kernels(of_kernels, told):
    kernels = (drifted([of_kernels] * N, against="m-ort-emulation-int8"),)
    (verdict,) = judged(drifted([0.2] * N), max_drift=0.05, kernel_drifts=kernels).verdicts
    assert told in verdict.message
    (other,) = judged(drifted([0.2] * N, output="z"), max_drift=0.05, kernel_drifts=kernels).verdicts
    assert "kernels" not in other.message, "of this output nothing is known"
    (calm,) = judged(drifted([0.0] * N), max_drift=0.05, kernel_drifts=kernels).verdicts
    assert "emulation" not in calm.message, "there is nothing to split"


@pytest.mark.parametrize(
    ("n", "spread", "message", "outcome"),
    [
        (40, 0.5, "y identical to that of m-ort-fp32 on 40 samples", Outcome.SAME),
        (
            1,
            0.5,
            "y identical to that of m-ort-fp32 on 1 sample; 10 samples within 1.00 % are needed to tell it from chance",
            Outcome.INCONCLUSIVE,
        ),
        (
            40,
            0.0,
            "y identical to that of m-ort-fp32 on 40 samples; m-ort-fp32 gives the same for every sample, as an engine "
            "would that ignored its inputs",
            Outcome.INCONCLUSIVE,
        ),
    ],
)
def test_identical_outputs_are_called_so(n, spread, message, outcome):
    record = judged(drifted([0.0] * n, max_abs=0.0, spread=spread), precision=Precision.FP32)
    assert [(verdict.message, verdict.outcome) for verdict in record.verdicts] == [(message, outcome)]


def test_as_many_samples_as_are_told_to_be_needed_are_enough():
    for n, outcome in ((9, Outcome.INCONCLUSIVE), (10, Outcome.SAME)):
        found = judged(drifted([0.001] * n), precision=Precision.FP32).verdicts[0]
        assert found.outcome is outcome
        assert ("10 samples within 1.00 % are needed" in found.message) == (outcome is Outcome.INCONCLUSIVE)
        assert "0 beyond the accepted 1.00 %" in found.message


def test_several_identical_outputs_are_one_line():
    drifts = [drifted([0.0] * N, output=name, max_abs=0.0) for name in ("y", "z")]
    assert judged(*drifts, precision=Precision.FP32).verdicts[0].message == (
        "outputs identical to those of m-ort-fp32 on 32 samples"
    )
    drifts[1] = drifted([0.001] * N, output="z")
    assert "median error 0.10 % of z against" in judged(*drifts, precision=Precision.FP32).verdicts[0].message

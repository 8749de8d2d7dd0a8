"""One word a case and one sentence a run: nothing missing or unjudged may read like a pass."""

import dataclasses

import pytest
from render_records import make_environment, make_run

from harness.records import Outcome, Record, Run, Status, Verdict
from harness.report.facts import tone_of_run
from harness.report.rows import rows_from_records
from harness.report.standing import Standing, finding, leading_verdict, standing_of, verdict_sentence
from harness.specs import Case, Precision

ENVIRONMENT = make_environment()
RUN = Run(
    id="r",
    started_at="2026-11-20T02:14:00Z",
    finished_at="2026-11-20T02:18:00Z",
    command="pytest suites/",
    environment=ENVIRONMENT,
    backends=(),
    options={},
)


def verdict(outcome, *, gate="fp32", fails=False, code="x", **values):
    return Verdict(gate=gate, outcome=outcome, code=code, message="a message", is_failure=fails, **values)


def record(*verdicts, status=Status.PASSED, reason="", model="lenet5", **values):
    case = Case(model=model, backend="openvino", precision=Precision.INT8, recipe="qdq-minmax")
    return Record(
        case=case,
        status=status,
        environment=ENVIRONMENT,
        recorded_at="",
        reason=reason,
        verdicts=verdicts,
        **values,
    )


@pytest.mark.parametrize(
    ("found", "standing"),
    [
        (record(), Standing.NOT_JUDGED),
        (record(verdict(Outcome.NO_BASELINE)), Standing.NOT_JUDGED),
        (record(verdict(Outcome.INCOMPARABLE)), Standing.NOT_JUDGED),
        (record(verdict(Outcome.SAME), verdict(Outcome.NO_BASELINE)), Standing.PASSED),
        (record(verdict(Outcome.SAME), verdict(Outcome.INCONCLUSIVE)), Standing.INCONCLUSIVE),
        (record(verdict(Outcome.SAME), verdict(Outcome.IMPROVED)), Standing.IMPROVED),
        (record(verdict(Outcome.REGRESSED), verdict(Outcome.SAME)), Standing.EXPECTED_LOSS),
        (record(verdict(Outcome.REGRESSED, fails=True)), Standing.REGRESSED),
        (record(verdict(Outcome.INCONCLUSIVE, fails=True)), Standing.FAILED),  # --strict-verdicts
        (record(verdict(Outcome.SAME), status=Status.FAILED), Standing.FAILED),
        (record(verdict(Outcome.SAME), status=Status.ERROR), Standing.ERROR),
        (record(status=Status.UNSUPPORTED), Standing.UNSUPPORTED),
        # An absolute latency that nobody gates changes no standing, and alone judges nothing.
        (record(verdict(Outcome.INCONCLUSIVE, gate="latency", code="slower_not_gated")), Standing.NOT_JUDGED),
        (record(verdict(Outcome.SAME), verdict(Outcome.IMPROVED, gate="latency", code="faster")), Standing.PASSED),
        (record(verdict(Outcome.INCONCLUSIVE, gate="latency", code="speed_unclear")), Standing.INCONCLUSIVE),
        (record(verdict(Outcome.REGRESSED, gate="latency", code="slower", fails=True)), Standing.REGRESSED),
    ],
)
def test_standing(found, standing):
    assert standing_of(found) is standing


LOSS = verdict(Outcome.REGRESSED, fails=True, n_lost=14, n_gained=0, p_value=0.00012)
CHANGED = verdict(
    Outcome.SAME,
    gate="baseline",
    code="real_loss_within_margin",
    n_lost=44,
    n_gained=17,
    value=0.9888,
    baseline_value=0.9915,
    model_change="6ee4 -> a026",
)
HELD = record(verdict(Outcome.SAME), model="mlp")


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        ([], "No case ran: nothing was checked."),
        ([HELD], "No regression: 1 of 1 case passed."),
        (
            [record(LOSS, status=Status.FAILED), HELD],
            "lenet5-openvino-int8 regressed: 14 lost, 0 gained. Of 2 cases: 1 passed.",
        ),
        (
            [record(LOSS, status=Status.FAILED), record(status=Status.ERROR, reason="BuildError: no kernel"), HELD],
            "lenet5-openvino-int8 regressed: 14 lost, 0 gained. Of 3 cases: 1 ended in an error, 1 passed.",
        ),
        (
            [record(status=Status.ERROR, reason="BuildError: no kernel."), HELD],
            "lenet5-openvino-int8 ended in an error: BuildError: no kernel. Of 2 cases: 1 passed.",
        ),
        ([record()], "No case passed: 1 not judged."),
        (
            [record(dataclasses.replace(CHANGED, outcome=Outcome.INCONCLUSIVE, code="too_few_images"), model="mlp")],
            "No case passed: 1 inconclusive. mlp changed (6ee4 -> a026): top-1 99.15 -> 98.88\u00a0% "
            "(\u22120.27\u00a0points; 44 lost, 17 gained) on openvino, int8.",
        ),
        (
            [record(CHANGED, model="mlp"), HELD],
            "Significant loss in 1 of 2 cases, within what is accepted. mlp changed (6ee4 -> a026): top-1 99.15 -> "
            "98.88\u00a0% (\u22120.27\u00a0points; 44 lost, 17 gained) on openvino, int8. 2 of 2 cases passed.",
        ),
        (
            [record(dataclasses.replace(CHANGED, n_lost=0, n_gained=0, value=0.9915), model="mlp"), HELD],
            "No regression: 2 of 2 cases passed. mlp changed (6ee4 -> a026): top-1 99.15\u00a0% (0 lost, 0 gained) "
            "on openvino, int8.",
        ),
        (
            [record(dataclasses.replace(CHANGED, n_lost=900, is_failure=True), status=Status.FAILED, model="mlp")],
            "mlp-openvino-int8 failed: top-1 99.15 -> 98.88\u00a0% (\u22120.27\u00a0points; 900 lost, 17 gained). "
            "mlp changed (6ee4 -> a026).",
        ),
        (
            [HELD, record(status=Status.UNSUPPORTED), record(verdict(Outcome.IMPROVED))],
            "No regression: 2 of 3 cases passed; 1 of them improved, 1 unsupported.",
        ),
    ],
)
def test_sentence(records, sentence):
    assert verdict_sentence(RUN, records) == sentence


def test_what_did_not_run_is_said():
    assert verdict_sentence(RUN, [HELD], missing=["a-ort-fp32"]).endswith(
        "1 case of the previous run did not run: a-ort-fp32."
    )
    unfinished = dataclasses.replace(RUN, finished_at="")
    assert verdict_sentence(unfinished, [HELD]).startswith("The run did not finish. Of what ran: No regression")


@pytest.mark.parametrize(
    ("run", "records", "missing", "tone"),
    [
        (RUN, [HELD], [], "good"),
        (RUN, [], [], "bad"),
        (RUN, [record(LOSS)], [], "bad"),
        (RUN, [HELD], ["a"], "warn"),
        (RUN, [HELD, record()], [], "warn"),
        (RUN, [HELD, record(CHANGED)], [], "warn"),
        (RUN, [record(status=Status.UNSUPPORTED)], [], "warn"),
        (dataclasses.replace(RUN, finished_at=""), [HELD], [], "warn"),
    ],
)
def test_only_a_finished_run_that_holds_is_green(run, records, missing, tone):
    assert tone_of_run(run, rows_from_records(records), missing) == tone


def test_finding_repeats_the_counts_of_the_gate_that_failed():
    _, records = make_run(9, n_images=500)
    regressed = next(found for found in records if found.status is Status.FAILED)
    assert finding(regressed) == "14 lost, 0 gained of 500; 12 lost by quantization, 2 by kernels"
    assert finding(record(status=Status.ERROR)) == "no gate judged it"


def test_a_case_that_only_a_test_failed_names_no_gate_and_says_what_the_test_said():
    judged = record(verdict(Outcome.SAME, n_lost=0, n_gained=0), status=Status.FAILED, reason="assert 0 > 0")
    (row,) = rows_from_records([judged])
    assert row.word == "failed"
    assert finding(judged) == "assert 0 > 0"


def test_what_was_compared_with_another_engine_explains_a_pass():
    held = verdict(Outcome.SAME, gate="invariance", value=0.0)
    drift = verdict(Outcome.SAME, gate="drift", code="no_limit", value=0.1)
    judged = verdict(Outcome.SAME, gate="metric", value=0.1, p_value=0.2)
    assert leading_verdict(record(held, drift)).gate == "drift"
    assert leading_verdict(record(held, drift, judged)).gate == "metric"
    assert leading_verdict(record(held)).gate == "invariance"

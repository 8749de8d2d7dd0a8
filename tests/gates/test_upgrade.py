"""Two sides' records -> verdicts that name both versions; a case that side B lost fails, one that it won is news."""

from dataclasses import replace

import pytest
from comparison_records import ENVIRONMENT, accuracy_with, record_with

from harness.errors import MeasurementError
from harness.gates import UpgradeSide, judge_upgrade
from harness.records import EffectivePrecision, Outcome, Status
from harness.report.rows import rows_from_records
from harness.report.standing import Standing
from harness.report.upgrade import upgrade_lines, upgrade_text
from harness.specs import Precision

OLD = {"onnxruntime": "1.30.0", "onnx": "1.23.2"}
NEW = {"onnxruntime": "1.32.0", "onnx": "1.23.2"}
UPGRADE = "onnxruntime 1.30.0 -> 1.32.0"


def sides(before=OLD, after=NEW, labels=("", "")):
    return (
        UpgradeSide(letter="a", versions={"ort": before} if before else {}, label=labels[0]),
        UpgradeSide(letter="b", versions={"ort": after} if after else {}, label=labels[1]),
    )


def measured(accuracy=None, **changes):
    return record_with(accuracy or accuracy_with(), status=Status.NOT_JUDGED, **changes)


def judged(before, after, named=None):
    return judge_upgrade(before, after, sides=named or sides())


def plain(text):
    return text.replace("\xa0", " ").replace("−", "-")


def test_identical_predictions_pass_in_words():
    (record,) = judged([measured()], [measured()])
    assert record.status is Status.PASSED
    assert plain(upgrade_text(record)) == f"{UPGRADE}: top-1 100.00 % unchanged, identical predictions"
    assert "of onnxruntime 1.30.0 on 10000 images" in record.verdicts[-1].message


def test_lost_images_regress_by_the_exact_test():
    (record,) = judged([measured()], [measured(accuracy_with(wrong=range(30)))])
    (line,) = upgrade_lines(rows_from_records([record]))
    assert line.standing is Standing.REGRESSED
    assert plain(line.text).startswith(f"{UPGRADE}: top-1 100.00 -> 99.70 % (-0.30 points; 30 lost, 0 gained of 10,000")
    assert {verdict.upgrade for verdict in record.verdicts} == {UPGRADE}


def test_gained_images_improve():
    (record,) = judged([measured(accuracy_with(wrong=range(30)))], [measured()])
    assert (record.status, record.verdicts[-1].outcome) == (Status.PASSED, Outcome.IMPROVED)


def test_a_loss_that_one_case_alone_would_alarm_for_is_judged_among_all():
    """Holm's correction over the cases of an upgrade, as over those of a night."""
    precisions = list(Precision)[:3]
    others = [measured(accuracy_with(wrong=range(11)), precision=p) for p in precisions]
    alone = judged([measured()], [measured(accuracy_with(wrong=range(11)))])
    before = [measured(precision=p) for p in precisions]
    together = judged(before, others)
    p_value = alone[0].verdicts[-1].p_value
    assert alone[0].status is Status.FAILED
    assert p_value * len(precisions) > alone[0].tolerance.alpha  # so none is beyond it among three
    codes = [verdict.code for record in together for verdict in record.verdicts if verdict.gate == "baseline"]
    assert codes == ["not_among_many"] * len(precisions)


def test_the_same_version_twice_is_named_twice():
    (record,) = judged([measured()], [measured()], sides(OLD, OLD))
    assert upgrade_text(record).startswith("onnxruntime 1.30.0 -> 1.30.0: ")


def test_labels_stand_before_the_versions():
    (record,) = judged([measured()], [measured()], sides(labels=("old", "")))
    assert upgrade_text(record).startswith("old (onnxruntime 1.30.0) -> onnxruntime 1.32.0: ")


def unsupported():
    return measured(unsupported="no fp16 kernels", accuracy=None, latencies=(), artifact=None)


@pytest.mark.parametrize(
    ("before", "after", "standing", "told"),
    [
        (measured(), replace(unsupported(), accuracy=None), Standing.FAILED, "side B ended in unsupported (no fp16"),
        (
            replace(unsupported(), accuracy=None),
            measured(),
            Standing.NOT_JUDGED,
            "side A ended in unsupported (no fp16",
        ),
        (measured(), replace(measured(), accuracy=None, error="it broke"), Standing.ERROR, "side B ended in error (it"),
        (
            replace(measured(), accuracy=None, error="it broke"),
            measured(),
            Standing.NOT_JUDGED,
            "side A ended in error",
        ),
    ],
)
def test_a_case_that_one_side_cannot_run_is_told(before, after, standing, told):
    (record,) = judged([before], [after])
    (line,) = upgrade_lines(rows_from_records([record]))
    assert line.standing is standing
    assert line.text.startswith(f"{UPGRADE}: {told}")
    assert any(verdict.is_failure for verdict in record.verdicts) is (standing in (Standing.FAILED, Standing.ERROR))


def test_what_neither_side_can_run_is_no_failure():
    (record,) = judged([replace(unsupported(), accuracy=None)], [replace(unsupported(), accuracy=None)])
    (line,) = upgrade_lines(rows_from_records([record]))
    assert line.standing is Standing.UNSUPPORTED
    assert not any(verdict.is_failure for verdict in record.verdicts)


def test_a_case_that_only_side_a_ran_is_lost_and_one_that_only_side_b_ran_is_news():
    other = measured(precision=Precision.INT8)
    lost, gained = judged([measured(), other], [measured()]), judged([measured()], [measured(), other])
    lines = {line.case_id: line for line in upgrade_lines(rows_from_records(lost))}
    assert lines["lenet5-ort-int8"].standing is Standing.FAILED
    assert lines["lenet5-ort-int8"].text == f"{UPGRADE}: in side A only; side B has no such case"
    lines = {line.case_id: line for line in upgrade_lines(rows_from_records(gained))}
    assert lines["lenet5-ort-int8"].standing is Standing.NOT_JUDGED
    assert lines["lenet5-ort-fp32"].standing is Standing.PASSED


def test_a_backend_that_one_side_lacks_is_named_so():
    ort, other = measured(), measured(backend="openvino")
    records = judged([ort], [ort, other])
    assert upgrade_text(records[1]).startswith("openvino: in side B only; side A has no such case")


def test_sides_without_a_common_case_are_an_error():
    with pytest.raises(MeasurementError, match="share no case"):
        judged([measured()], [measured(precision=Precision.INT8)])


def test_another_precision_than_on_side_a_is_told_without_naming_a_baseline():
    before, after = (
        measured(precision=Precision.INT8, effective_precision=EffectivePrecision(by_layer={ran: 1.0}))
        for ran in ("int8", "fp32")
    )
    (record,) = judged([before], [after])
    (line,) = upgrade_lines(rows_from_records([record]))
    assert line.standing is Standing.REGRESSED
    assert "in onnxruntime 1.30.0 100% ran in int8" in line.text
    assert not any("baseline" in verdict.advice for verdict in record.verdicts)


def test_the_environment_of_a_side_may_be_another_python():
    other = replace(ENVIRONMENT, python="3.13.1", versions={"numpy": "1.26.4", "onnxruntime": "1.32.0"})
    (record,) = judged([measured()], [measured(environment=other)])
    assert record.status is Status.PASSED

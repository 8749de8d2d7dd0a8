"""A waiver takes the failure of its gate until its last day: the case is still judged, shown, and never accepted."""

from dataclasses import replace

import pytest
from comparison_records import latency_with, pair_with, record_with
from render_records import make_run

from harness.errors import BaselineError
from harness.gates import JudgeOptions, judge_records
from harness.options.values import HarnessOptions
from harness.records import Status
from harness.report.html import render_html
from harness.report.markdown import render_markdown
from harness.report.model import build_report
from harness.report.standing import Standing, deciding_gate, finding, standing_of
from harness.report.terminal import summary_lines
from harness.run.accepting import is_complete
from harness.run.waiving import waiver_notes
from harness.specs import Precision, Waiver
from harness.store.baselines import BaselineStore

WAIVER = Waiver(
    case="lenet5-*-int8", gate="fp32", reason="a new kernel", link="https://tracker/12", expires="2026-11-21"
)
GATES = frozenset({"fp32", "floor"})
ID = "lenet5-ort-int8"


def judged(*waivers, lost=200, gates=GATES, strict=False, n=10_000):
    """FP32 and an INT8 record of 2026-11-21 that lost images, judged."""
    fp32, int8 = pair_with(lost=lost, gained=0, n=n)
    records = [
        record_with(fp32, status=Status.NOT_JUDGED),
        record_with(
            int8,
            precision=Precision.INT8,
            status=Status.NOT_JUDGED,
            waivers=waivers,
            latencies=(latency_with(),),
        ),
    ]
    return judge_records(records, {}, JudgeOptions(gates=gates, strict=strict))[1]


def test_a_known_failure_is_waived_until_its_last_day():
    record = judged(WAIVER)
    assert record.status is Status.PASSED
    (verdict,) = [verdict for verdict in record.verdicts if verdict.gate == "fp32"]
    assert verdict.waived == "waived until 2026-11-21: a new kernel (https://tracker/12)"
    assert (verdict.outcome, verdict.code) == ("REGRESSED", "loss_beyond_margin")
    assert standing_of(record) is Standing.WAIVED
    assert deciding_gate(record) == "fp32"
    assert "200 lost" in finding(record)
    assert verdict.waived in finding(record)
    assert not record.times_void, "the project knows of the loss, and times the case all the same"


def test_a_waiver_that_has_lapsed_is_red_and_says_so():
    record = judged(replace(WAIVER, expires="2026-11-20"))
    assert record.status is Status.FAILED
    assert "; its waiver lapsed after 2026-11-20: a new kernel (https://tracker/12)" in record.reason
    assert standing_of(record) is Standing.REGRESSED


def test_the_latest_of_several_waivers_counts():
    assert judged(replace(WAIVER, expires="2026-11-20"), WAIVER).status is Status.PASSED


@pytest.mark.parametrize("gate", ["floor", "kernel", "baseline"])
def test_a_waiver_takes_no_failure_of_another_gate(gate):
    assert judged(replace(WAIVER, gate=gate)).status is Status.FAILED


ERROR = Waiver(
    case="lenet5-*-int8",
    gate="error",
    error="OpenVINO cannot convert",
    reason="fixed in its next release",
    link="https://tracker/13",
    expires="2026-11-21",
)
MESSAGE = f"{ID}: OpenVINO cannot convert lenet5.onnx: no If"


def errored(*waivers, error=MESSAGE, lost=None):
    record = replace(judged(*waivers), error=error, verdicts=())
    kept = judged(*waivers, lost=lost) if lost is not None else record
    fp32 = record_with(pair_with(lost=0, gained=0)[0])
    bare = record if lost is not None else replace(record, accuracy=None, latencies=())
    record = replace(bare, accuracy=kept.accuracy) if lost is not None else bare
    return judge_records([fp32, record], {}, JudgeOptions(gates=GATES))[1]


def test_a_known_error_is_waived_until_its_last_day():
    record = errored(ERROR)
    (verdict,) = record.verdicts
    assert (record.status, verdict.gate, verdict.code) == (Status.PASSED, "error", "known_error")
    assert verdict.waived == "waived until 2026-11-21: fixed in its next release (https://tracker/13)"
    assert (record.known_error, standing_of(record)) == (verdict, Standing.WAIVED)
    assert finding(record) == f"{MESSAGE}; {verdict.waived}"
    assert not verdict.was_compared


def test_a_known_error_that_has_lapsed_is_red_and_says_so():
    record = errored(replace(ERROR, expires="2026-11-20"))
    assert (record.status, standing_of(record)) == (Status.ERROR, Standing.ERROR)
    assert record.reason == (
        f"{MESSAGE}; its waiver lapsed after 2026-11-20: fixed in its next release (https://tracker/13)"
    )
    assert errored(replace(ERROR, expires="2026-11-20"), ERROR).status is Status.PASSED


@pytest.mark.parametrize(
    "error", [f"{ID}: crashed (SIGSEGV) during scoring", f"{ID}: OpenVINO cannot read lenet5.onnx"]
)
def test_an_error_of_another_kind_or_stage_stays_red(error):
    record = errored(ERROR, error=error)
    assert record.status is Status.ERROR
    assert record.reason == f"{error}; not the error that is waived, which says 'OpenVINO cannot convert'"
    assert record.known_error is None


def test_a_case_without_an_error_needs_no_waiver_of_one():
    assert judged(ERROR, lost=0).status is Status.PASSED
    assert judged(ERROR, lost=200).status is Status.FAILED


def test_a_loss_that_was_measured_before_a_known_error_stays_red():
    record = errored(ERROR, lost=200)
    assert record.status is Status.FAILED
    assert standing_of(record) is Standing.REGRESSED


def test_another_error_after_a_known_one_stays_red():
    other = "baseline of lenet5 is damaged"
    record = judge_records([replace(errored(ERROR), verdicts=(), later_error=other)], {}, JudgeOptions(gates=GATES))[0]
    assert (record.status, record.known_error) == (Status.ERROR, None)
    assert record.reason == f"{other}; not the error that is waived, which says 'OpenVINO cannot convert'"
    again = replace(errored(ERROR), verdicts=(), later_error=f"{MESSAGE} again")
    assert judge_records([again], {}, JudgeOptions(gates=GATES))[0].known_error is not None


def test_a_known_error_becomes_no_baseline(tmp_path):
    record = errored(ERROR)
    assert not is_complete(record)
    with pytest.raises(BaselineError, match="passed by a waiver"):
        BaselineStore(tmp_path).queue(record, accepted_by="me", accepted_at="now")


def test_a_waiver_of_a_gate_takes_no_error():
    record = replace(judged(WAIVER), error="the worker died", verdicts=())
    fp32 = record_with(pair_with(lost=0, gained=0)[0])
    assert judge_records([fp32, record], {}, JudgeOptions(gates=GATES))[1].status is Status.ERROR


def test_what_strictness_fails_can_be_waived_too():
    assert judged(lost=2, n=300, strict=True).status is Status.FAILED
    waivers = (WAIVER, replace(WAIVER, gate="floor"))
    assert judged(*waivers, lost=2, n=300, strict=True).status is Status.PASSED


def test_a_waived_case_is_no_baseline(tmp_path):
    record, store = judged(WAIVER), BaselineStore(tmp_path)
    assert not is_complete(record)
    with pytest.raises(BaselineError, match="by a waiver"):
        store.queue(record, accepted_by="x", accepted_at="2026-11-21")
    with pytest.raises(BaselineError, match="a baseline cannot excuse that"):
        store.accept([record], case_ids=[ID], accepted_by="x", accepted_at="2026-11-21")


def test_page_markdown_and_terminal_show_it_as_waived():
    record = judged(WAIVER)
    run, _ = make_run(2)
    report = build_report(run, [record])
    assert "waived until 2026-11-21: a new kernel" in " ".join(summary_lines(report))
    assert "waived until 2026-11-21: a new kernel" in render_html(report)
    assert "◐ 1 waived" in render_markdown(report)
    assert report.tone == "warn"


TOML = """
[[waiver]]
case = "{case}"
gate = "fp32"
reason = "a new kernel"
link = "https://tracker/12"
expires = {day}
"""


def notes(folder, record, *, case="lenet5-*-int8", day="2026-11-21", **options):
    (folder / "harness.toml").write_text(TOML.format(case=case, day=day))
    return waiver_notes(HarnessOptions(root=str(folder), **options), [record])


def test_a_waiver_in_use_says_nothing_more(tmp_path):
    assert notes(tmp_path, judged(WAIVER)) == []


def test_a_waiver_that_lapsed_is_noted(tmp_path):
    lapsed = judged(replace(WAIVER, expires="2026-11-20"))
    (note,) = notes(tmp_path, lapsed, day="2026-11-20")
    assert note.startswith("waiver of lenet5-*-int8, gate fp32: lapsed after 2026-11-20: a new kernel")


def test_a_waiver_of_what_holds_is_no_longer_needed(tmp_path):
    (note,) = notes(tmp_path, judged(WAIVER, lost=0))
    assert "no longer needed, nothing fails there; remove it from harness.toml" in note


def test_a_waiver_of_what_is_unclear_may_still_be_needed(tmp_path):
    assert notes(tmp_path, judged(WAIVER, lost=2, n=300)) == []


def test_a_waiver_that_fits_no_case_is_noted_where_all_cases_were_asked(tmp_path):
    (note,) = notes(tmp_path, judged(), case="lenet6-*")
    assert "fits no case of this run" in note
    assert notes(tmp_path, judged(), case="lenet6-*", models=("lenet5",)) == []


ERROR_TOML = TOML.replace('"fp32"', '"error"\nerror = "OpenVINO cannot convert"')


def test_a_waiver_of_an_error_is_noted_when_it_lapsed_or_nothing_needs_it(tmp_path):
    def noted(record, day="2026-11-21"):
        (tmp_path / "harness.toml").write_text(ERROR_TOML.format(case="lenet5-*-int8", day=day))
        return waiver_notes(HarnessOptions(root=str(tmp_path)), [record])

    assert noted(errored(ERROR)) == []
    (lapsed,) = noted(errored(replace(ERROR, expires="2026-11-20")), day="2026-11-20")
    assert lapsed.startswith("waiver of lenet5-*-int8, gate error: lapsed after 2026-11-20")
    (needless,) = noted(judged(lost=0))
    assert "no longer needed, no error there; remove it from harness.toml" in needless
    assert noted(errored(ERROR, error=f"{ID}: crashed")) == [], "the case is red and says so itself"

"""Metrics of samples in every report: the leading one with its interval, all of them, the samples that changed."""

import html
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from comparison_records import ENVIRONMENT
from sample_records import class_scores, number_scores, sample_record, source_record, text_scores

from harness.gates import JudgeOptions, judge_records, subject_from_record
from harness.records import PackedArray, Run, SamplePicture
from harness.report.html import render_html
from harness.report.junit import junit_properties
from harness.report.markdown import render_markdown
from harness.report.model import build_report
from harness.report.summary import summary_bytes
from harness.report.tables import frame_from_rows
from harness.report.terminal import summary_lines

RUN = Run(
    id="r1",
    started_at="2026-11-21T01:00:00Z",
    finished_at="2026-11-21T01:10:00Z",
    command="pytest suites/",
    environment=ENVIRONMENT,
    backends=(),
    options={},
)


def plain(text):
    return re.sub(r"\s+", " ", html.unescape(text).replace("\u00a0", " ").replace("\u2212", "-"))


def report_of(theirs, ours, *, stored=None):
    records = [source_record(theirs), sample_record(ours)]
    baselines = {}
    if stored is not None:
        subject = subject_from_record(sample_record(stored), "the baseline of 2026-11-20")
        baselines = {records[1].key: replace(subject, is_baseline=True)}
    return build_report(RUN, judge_records(records, baselines, JudgeOptions(baseline="auto")))


@pytest.fixture(scope="module")
def broken():
    """INT8 that breaks one class of ten."""
    return report_of(class_scores(2000), class_scores(2000, wrong=range(3, 1000, 10)), stored=class_scores(2000))


def test_the_leading_metric_stands_where_top1_does(broken):
    row = broken.rows[-1] if broken.rows[-1].record.case.precision.value == "int8" else broken.rows[0]
    leading = row.samples.leading
    assert (leading.name, plain(leading.text)) == ("top-1", "95.00 %")
    assert plain(leading.against_fp32.text) == "-5.00 points"
    assert leading.against_fp32.counts == "100 worse, 0 better"
    assert plain(row.samples.against_baseline.text) == "-5.00 points"
    terminal = plain("\n".join(summary_lines(broken, width=240)))
    assert "top-1 95.00 %" in terminal
    assert "-5.00 points" in terminal
    markdown = plain(render_markdown(broken))
    assert "| metric |" in markdown
    assert "-5.00 points (100 worse, 0 better)" in markdown
    page = plain(render_html(broken))
    assert "top-1, 93.9" in page
    assert "100 worse, 0 better" in page


def test_the_worst_class_is_named_by_all(broken):
    told = "class 3 lost 50.00 points of recall (100.00 -> 50.00 %) on 200 samples"
    assert all(
        told in plain(text) for text in ("\n".join(summary_lines(broken)), render_html(broken), render_markdown(broken))
    )


def test_a_finding_is_short(broken):
    (row,) = [row for row in broken.rows if row.record.case.precision.value == "int8"]
    assert row.finding.startswith("top-1 100.00 % -> 95.00 % on 2,000 samples; class 3 lost")


def test_the_samples_that_changed_most_are_listed_with_both_values():
    errors = np.full(50, 0.1)
    worse = errors.copy()
    worse[7], worse[9] = 3.0, 0.01
    report = report_of(number_scores(errors), number_scores(worse))
    (row,) = [row for row in report.rows if row.record.case.precision.value == "int8"]
    changed = [(one.id, plain(one.before), plain(one.now), one.is_worse) for one in row.samples.changed]
    assert [(one[0], one[3]) for one in changed] == [("s7", True), ("s9", False)]
    assert changed[0][1].startswith("0.1")
    assert changed[0][2].startswith("3.0")
    assert row.samples.n_changed == 2
    page = plain(render_html(report))
    assert "Samples that changed most against FP32 (2 of 2):" in page
    assert [metric.name for metric in row.samples.metrics] == ["MAE", "RMSE", "R2"]
    assert "root of the mean squared error" in page
    assert " cm" in plain(row.samples.leading.text)
    assert row.samples.leading.against_fp32.change < 0, "more error is worse"


def test_programs_get_the_metrics_too():
    report = report_of(text_scores([0] * 40, metric="CER"), text_scores([1] * 40, metric="CER"))
    summary = json.loads(summary_bytes(report.run, report.rows))
    case = next(case for case in summary["cases"] if case["precision"] == "int8")
    assert case["accuracy"] is None
    assert (case["samples"]["task"], case["samples"]["n_samples"]) == ("tokens", 40)
    leading = case["samples"]["metrics"][0]
    assert (leading["name"], leading["value"], leading["higher_is_better"]) == ("CER", pytest.approx(0.1), False)
    frame = frame_from_rows(report.rows)
    row = frame[frame["precision"] == "int8"].iloc[0]
    assert (row["metric"], row["metric_value"], row["metric_change_fp32"]) == (
        "CER",
        pytest.approx(0.1),
        pytest.approx(-0.1),
    )
    assert (row["dataset"], row["split"], row["n_scored_samples"]) == ("mine", "test", 40)
    properties = dict(junit_properties(next(r for r in report.rows if r.record.case.precision.value == "int8")))
    assert float(properties["metric_CER"]) == pytest.approx(0.1)
    assert properties["n_samples"] == "40"


def test_other_samples_are_told_not_compared():
    report = report_of(replace(class_scores(100), fingerprint="e" * 64), class_scores(100))
    (row,) = [row for row in report.rows if row.record.case.precision.value == "int8"]
    assert row.samples.leading.against_fp32.why_not == "scored on other samples"
    assert row.samples.changed == ()
    assert "not comparable" in render_markdown(report)
    assert "scored on other samples" in render_html(report)


def test_one_sample_has_no_interval_and_still_prints():
    report = report_of(number_scores([0.1]), number_scores([0.2]))
    for text in (render_html(report), render_markdown(report), "\n".join(summary_lines(report))):
        assert "MAE" in text


def test_samples_that_changed_stand_with_their_pictures_on_the_page():
    before, now = class_scores(40), class_scores(40, wrong=[3, 7])
    colour = PackedArray.of(np.full((3, 4, 6), 200, np.uint8))
    odd = PackedArray.of(np.zeros((2, 2, 2, 2), np.uint8))
    pictures = (SamplePicture(id="s3", image=colour), SamplePicture(id="s7", image=odd))
    records = [source_record(before), sample_record(now, pictures=pictures)]
    page = render_html(build_report(RUN, judge_records(records, {}, JudgeOptions(baseline="auto"))))
    assert re.search(r'<img class="sample" src="data:image/png;base64,[^"]+" alt="">s3</th>', page)
    assert '<th scope="row">s7</th>' in page, "what is no picture is left out, and the page is made all the same"


def test_a_run_that_scores_nothing_has_no_column_of_scores():
    unscored = replace(source_record(class_scores(40)), samples=None)
    for records, has_column in (([unscored], False), ([unscored, source_record(class_scores(40))], True)):
        page = render_html(build_report(RUN, judge_records(records, {}, JudgeOptions(baseline="auto"))))
        (head,) = re.findall(r'<table class="matrix">.*?</thead>', page, re.DOTALL)
        assert ("Metric" in head or "Top-1" in head) == has_column
        for row in re.findall(r'<tr class="[^"]*" data-standing.*?</tr>', page, re.DOTALL):
            spans = [int(n) for n in re.findall(r'colspan="([0-9]+)"', row)]
            n_cells = len(re.findall("<t[dh][ >]", row)) - len(spans) + sum(spans)
            assert n_cells == len(re.findall("<th ", head)), "every row fills every column"


def test_the_smallest_loss_that_gates_would_catch_is_told_by_metric():
    pairs = [
        (class_scores(900), "top-1"),
        (number_scores(np.linspace(-1, 1, 90)), "MAE"),
        (text_scores([1] * 90), "exact match"),
    ]
    for scores, name in pairs:
        facts = dict(report_of(scores, scores).machine)
        told = plain(next(text for label, text in facts.items() if label.startswith("Smallest loss")))
        assert re.fullmatch(rf"[0-9. to]+ {'cm' if name == 'MAE' else 'points'} of {name}, in one comparison", told), (
            told
        )

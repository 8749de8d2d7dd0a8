"""The table of an upgrade in the terminal: both versions in every row, at any width, and what needs a look below it."""

from dataclasses import replace

import pytest
from render_records import make_run

from harness.records import Outcome, Verdict
from harness.report.html import render_html
from harness.report.model import build_report
from harness.report.upgrade_table import upgrade_table

UPGRADE = "openvino 2026.3.1 -> 2026.4.1"


def verdicts(*, is_slow=False, margin=0.05):
    same = Verdict(
        gate="baseline", outcome=Outcome.SAME, code="identical", message="same", value=0.9, baseline_value=0.9
    )
    times = [
        Verdict(
            gate="latency",
            outcome=Outcome.REGRESSED if is_slow else Outcome.SAME,
            code="slower" if is_slow else "same_speed",
            message=f"batch {size}: 8.0 % slower than openvino 2026.3.1" + ("" if margin else "; not gated: calibrate"),
            batch_size=size,
            is_failure=is_slow,
            change_low=0.071 if is_slow else -0.012,
            change_high=0.089 if is_slow else 0.008,
            detectable=0.061 if margin else None,
        )
        for size in (1, 100)
    ]
    return tuple(replace(verdict, upgrade=UPGRADE) for verdict in (same, *times))


def report_with(*, n_slow=1, margin=0.05):
    run, records = make_run(9, n_images=300)
    told = [replace(one, verdicts=verdicts(is_slow=i < n_slow, margin=margin)) for i, one in enumerate(records)]
    return build_report(run, told)


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_case_has_two_lines_where_one_is_too_short_and_names_both_versions(width):
    report = report_with()
    lines = upgrade_table(report, width=width)
    assert max(map(len, lines)) <= width
    table = lines[: 2 + 2 * len(report.rows)]
    assert [line.split() for line in table[:2]] == [
        ["verdict", "case", "batch", "1", "batch", "100"],
        ["images", "versions"],
    ]
    for row, first, second in zip(report.rows, table[2::2], table[3::2], strict=True):
        assert row.record.case.id in first
        assert UPGRADE in second
        assert second.startswith("identical")
    assert table[2].split(maxsplit=2)[2] == "+7.10 to +8.90 %  +7.10 to +8.90 %"
    assert table[5].endswith("sees 6.10 %       sees 6.10 %")


@pytest.mark.parametrize("width", [160, None])
def test_a_case_is_one_line_where_there_is_room(width):
    report = report_with()
    head, *lines = upgrade_table(report, width=width)
    assert head.split() == ["verdict", "case", "versions", "images", "batch", "1", "batch", "100"]
    for row, line in zip(report.rows, lines[: len(report.rows)], strict=True):
        assert f" {row.record.case.id} " in line
        assert f" {UPGRADE}  identical  " in line
    assert lines[0].rstrip().endswith("+7.10 to +8.90 %")
    assert lines[1].endswith("  −1.20 to +0.80 %, sees 6.10 %")


def test_a_failure_is_told_no_slowdown_that_would_have_been_seen():
    lines = upgrade_table(report_with())
    assert "sees" not in lines[1]


def test_small_changes_do_not_vanish():
    run, records = make_run(9, n_images=300)
    same, first, _ = verdicts()
    small = replace(first, change_low=-0.0004, change_high=0.00003, detectable=0.00002)
    report = build_report(run, [replace(one, verdicts=(same, small)) for one in records])
    assert upgrade_table(report)[1].endswith("  −0.04 to +0.003 %, sees 0.002 %")


def test_what_is_to_look_at_stands_below_in_whole_sentences():
    lines = upgrade_table(report_with())
    (told,) = [line for line in lines if line.startswith("regressed: ")]
    assert f": {UPGRADE}: top-1 90.0\N{NO-BREAK SPACE}% unchanged, identical predictions; batch 1: 8.0 % slower" in told
    assert not [line for line in lines if line.startswith("passed: ")]


def test_times_that_are_not_gated_are_counted():
    n = len(report_with().rows)
    told = f"not gated: times of {n} of {n} cases: set --max-slowdown, or run harness calibrate"
    assert told in upgrade_table(report_with(n_slow=0, margin=None))
    assert told not in upgrade_table(report_with())


def test_the_page_has_a_column_a_batch_size():
    page = render_html(report_with())
    assert "Time at batch 1</th>" in page
    assert "Time at batch 100</th>" in page
    assert page.count("8.0 % slower than openvino 2026.3.1") >= 18
    assert f"<td>{UPGRADE.replace('>', '&gt;')}</td>" in page

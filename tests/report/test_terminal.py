"""The table that ends a run, and what is said below it."""

import dataclasses

import pytest
from render_records import make_baseline, make_run

from harness.records import Status
from harness.report.model import build_report
from harness.report.progress import CaseProgress
from harness.report.terminal import summary_lines, wrapped


def test_what_the_user_should_hear_of_is_said_for_passed_cases_too():
    run, records = make_run(3, n_images=300)
    damaged = dataclasses.replace(records[0].engine, warnings=("the cached plan was damaged and is built anew: x",))
    lines = summary_lines(build_report(run, [dataclasses.replace(records[0], engine=damaged), *records[1:]]))
    assert f"note {records[0].case.id}: the cached plan was damaged and is built anew: x" in lines
    assert not [line for line in summary_lines(build_report(run, records)) if line.startswith("note ")]


@pytest.mark.parametrize("width", [80, 100, 120, 160, 240])
def test_it_fits_the_terminal(width):
    lines = summary_lines(build_report(*make_run(27), previous=make_baseline(27)), width=width)
    assert max(map(len, lines)) <= width
    head = lines[0]
    assert head.startswith("model ")
    for column in ("backend", "precision", "top-1 %", "vs FP32", "verdict"):
        assert column in head
    assert ("p99" in head) is (width >= 240)
    assert ("b1 p50" in head) is (width >= 100)


def test_without_a_width_nothing_is_left_out_or_wrapped():
    lines = summary_lines(build_report(*make_run(27)))
    assert "p99" in lines[0]
    assert "size" in lines[0]


def test_what_changed_against_the_baseline_is_shown():
    from comparison_records import pair_with, record_with

    from harness.gates import JudgeOptions, judge_records, subject_from_record

    before, after = pair_with(lost=3, gained=1)
    record = record_with(after, status=Status.NOT_JUDGED)
    stored = {record.key: subject_from_record(record_with(before), "the baseline")}
    judged = judge_records([record], stored, JudgeOptions(gates=frozenset({"baseline"})))
    lines = summary_lines(build_report(make_run(1)[0], judged), width=100)
    assert "vs baseline" in lines[0]
    assert " 3/1 " in lines[1]


def test_equal_reasons_are_told_once():
    run, records = make_run(12)
    stopped = [
        dataclasses.replace(record, status=Status.ERROR, reason=f"{record.case.id}: no kernel", verdicts=())
        for record in records
    ]
    told = [line for line in summary_lines(build_report(run, stopped)) if line.startswith("error:")]
    assert len(told) == 1
    assert told[0].endswith("no kernel")
    assert "and 8 more" in told[0]


def test_a_speed_up_that_is_none_is_named():
    run, records = make_run(12)
    slow = next(r for r in records if r.latencies and r.latencies[0].reference_rounds_ns)
    swapped = [
        dataclasses.replace(x, rounds_ns=x.reference_rounds_ns, reference_rounds_ns=x.rounds_ns) for x in slow.latencies
    ]
    lines = summary_lines(build_report(run, [dataclasses.replace(slow, latencies=tuple(swapped))]))
    (line,) = [line for line in lines if line.startswith("slower than FP32: ")]
    assert slow.case.id in line
    assert "batch 1: 0." in line


def test_lines_are_wrapped_and_paths_stay_whole():
    assert wrapped("    one two three four", 14) == ["    one two", "      three", "      four"]
    assert wrapped("report: /a/very/long/path/to/index.html", 14) == ["report: /a/very/long/path/to/index.html"]


def test_a_case_is_a_line_with_what_it_took_and_what_is_left():
    now = [0.0]
    progress = CaseProgress(["lenet5-ort-fp32", "mlp-ort-fp32"], clock=lambda: now[0])
    now[0] = 65.0
    assert progress.line("lenet5-ort-fp32") == (
        "case 1 of 2  lenet5-ort-fp32    65.0 s  (1:05 elapsed, about 1:05 left)"
    )
    now[0] = 70.0
    last = progress.line("mlp-ort-fp32", "the worker crashed")
    assert last == "case 2 of 2  mlp-ort-fp32        5.0 s  (1:10 elapsed)  error: the worker crashed"


def test_a_number_stays_beside_its_per_cent():
    for width in range(10, 40):
        told = wrapped("the largest along its last axis agrees in 90.81 % of them", width)
        assert "90.81 %" in "\n".join(told), width

"""Flags of a latency: in words in the terminal and on the page; a speed-up of unlike timings is never shown."""

import dataclasses

import pytest
from render_records import make_run

from harness.gates import subject_from_record
from harness.records import TIMED_OTHERWISE
from harness.report.flags import flag_text, latency_flag_text
from harness.report.html import render_html
from harness.report.junit import junit_properties
from harness.report.model import build_report
from harness.report.rows import rows_from_records
from harness.report.summary import summary_from_rows
from harness.report.tables import frame_from_rows
from harness.report.terminal import summary_lines

CASE = "lenet5-openvino-int8"


@pytest.fixture(scope="module")
def night():
    return make_run(18, n_images=200)


@pytest.fixture
def flagged(night):
    """Return the run with the latencies of one case changed."""

    def change(**changes):
        run, records = night
        (record,) = (record for record in records if record.case.id == CASE)
        latencies = tuple(dataclasses.replace(latency, **changes) for latency in record.latencies)
        return run, [dataclasses.replace(record, latencies=latencies)]

    return change


UNLIKE = {
    "launch": "graph",
    "gated": True,
    "reference_launch": "enqueue",
    "reference_gated": True,
    "flags": (TIMED_OTHERWISE,),
}


def test_a_speed_up_of_unlike_timings_is_not_given(flagged):
    run, records = flagged(**UNLIKE)
    (row,) = rows_from_records(records)
    assert [timing.speed_up for timing in row.timings] == [None, None]
    assert row.timings[0].summary is not None
    found = summary_from_rows(run, rows_from_records(records))["cases"][0]["latency"]["1"]
    assert (found["speedup"], found["speedup_low"], found["flags"]) == (None, None, [TIMED_OTHERWISE])
    assert frame_from_rows(rows_from_records(records)).speed_up.isna().all()
    assert not [name for name, _ in junit_properties(*rows_from_records([records[0]])) if name.startswith("speed_up")]
    assert subject_from_record(records[0], "a").latencies[0].reference_medians_ns == ()


def test_unlike_timings_are_told(flagged):
    run, records = flagged(**UNLIKE)
    words = "timed as a gated graph, FP32 as a gated enqueue: their ratio is no speed-up"
    assert words in render_html(build_report(run, records))
    line = next(line for line in summary_lines(build_report(run, records)) if words in line)
    assert line.startswith("‡ ")
    assert f"{CASE} (batch 1, 100)" in line
    assert "—‡" in next(line for line in summary_lines(build_report(run, records)) if " openvino " in line)


@pytest.mark.parametrize(
    ("launch", "gated", "words"),
    [
        ("enqueue", False, "an enqueue"),
        ("graph", False, "a graph"),
        ("enqueue", True, "a gated enqueue"),
        ("call", False, "a call"),
    ],
)
def test_a_launch_has_its_article(flagged, launch, gated, words):
    _, records = flagged(**{**UNLIKE, "launch": launch, "gated": gated})
    text = latency_flag_text(TIMED_OTHERWISE, records[0].latencies[0])
    assert text.startswith(f"timed as {words}, FP32 as a gated enqueue")


@pytest.mark.parametrize(
    ("launch", "gated", "words"),
    [
        ("graph", True, "this time, of a gated graph, is not affected"),
        ("enqueue", True, "this time, of a gated enqueue, is not affected"),
        ("enqueue", False, "this time is the host's"),
    ],
)
def test_an_enqueue_bound_engine_is_told(flagged, launch, gated, words):
    run, records = flagged(launch=launch, gated=gated, enqueue_ns=12_300.0, flags=("enqueue_bound",))
    text = latency_flag_text("enqueue_bound", records[0].latencies[0])
    assert words in text
    page = render_html(build_report(run, records))
    assert text.replace("'", "&#39;") in page
    assert "plain enqueue 12.3" in page
    assert text in "\n".join(summary_lines(build_report(run, records)))
    assert frame_from_rows(rows_from_records(records)).enqueue_ns.tolist() == [12_300.0, 12_300.0]
    assert set(frame_from_rows(rows_from_records(records)).latency_flags) == {"enqueue_bound"}
    assert summary_from_rows(run, rows_from_records(records))["cases"][0]["latency"]["100"]["enqueue_ns"] == 12_300.0


def test_cases_of_one_flag_share_a_line(night):
    records = [
        dataclasses.replace(
            record,
            latencies=tuple(
                dataclasses.replace(latency, launch="graph", enqueue_ns=9_000.0, flags=("enqueue_bound", "drift"))
                for latency in record.latencies
            ),
        )
        for record in night[1]
    ]
    told = [line for line in summary_lines(build_report(night[0], records)) if line.startswith("‡ ")]
    assert len(told) == 1
    assert all(record.case.id in told[0] for record in records if record.latencies)


def test_a_flag_that_is_not_known_comes_back():
    assert flag_text("moon_phase") == "moon_phase"
    assert "moved" in flag_text("drift")

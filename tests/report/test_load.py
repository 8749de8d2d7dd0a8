"""Throughput as a reader sees it: rate and interval, concurrency, clock and window; void where the times are."""

from dataclasses import replace

import numpy as np
import pytest
from comparison_records import latency_with, record_with
from render_records import make_run
from sample_records import class_scores

from harness.records import PackedArray, Throughput, ThroughputLevel
from harness.report.load import throughput_facts, throughput_line
from harness.report.rows import rows_from_records
from harness.report.summary import summary_from_rows
from harness.report.tables import frame_from_rows

FOUND = Throughput(
    batch_size=8,
    concurrency=2,
    how="threads over one session",
    clock="host",
    window="compute",
    rounds_images_per_s=PackedArray.of(np.linspace(990.0, 1010.0, 12)),
    latencies_ns=PackedArray.of(np.linspace(15e6, 17e6, 1000)),
    n_runs=1000,
    levels=(ThroughputLevel(concurrency=1, images_per_s=600.0), ThroughputLevel(concurrency=2, images_per_s=1000.0)),
)
RECORD = record_with(latencies=(latency_with(), latency_with(batch_size=8)), throughput=(FOUND,))


def test_it_names_all_that_a_rate_depends_on():
    ((batch, text),) = throughput_facts(RECORD)
    assert batch == "batch 8"
    for part in (
        " images/s (99",
        "with 2 inferences at once (threads over one session)",
        "16.0 ms p50, 17.0 ms p99 (16.97 to 16.99 ms)",
        "under that load; host clock, compute window, 12 rounds, 1,000 inferences",
        "tried 1: 600, 2: 1,000",
    ):
        assert part in text.replace("\N{NO-BREAK SPACE}", " "), text
    assert throughput_line(RECORD) == "throughput lenet5-ort-fp32: batch 8 1,000 images/s (2 at once)"


def test_a_model_of_any_graph_has_samples_not_images():
    scores = class_scores()
    record = replace(RECORD, samples=scores)
    assert throughput_line(record) == "throughput lenet5-ort-fp32: batch 8 1,000 samples/s (2 at once)"
    assert " samples/s (99" in throughput_facts(record)[0][1]


def test_too_few_samples_have_no_intervals():
    few = replace(FOUND, rounds_images_per_s=PackedArray.of(np.full(5, 10.0)), latencies_ns=PackedArray.of(np.ones(9)))
    text = throughput_facts(record_with(throughput=(few,)))[0][1]
    assert "p99" not in text
    assert "10.0 images/s with" in text or "10 images/s with" in text


def test_it_stands_in_the_table_beside_its_batch_size():
    frame = frame_from_rows(rows_from_records([RECORD]))
    assert frame.throughput_images_per_s.fillna(0).tolist() == [0, 1000.0]
    assert frame.throughput_concurrency.tolist()[1] == 2
    assert (frame.throughput_clock[1], frame.throughput_window[1]) == ("host", "compute")


def test_it_stands_in_the_summary_by_batch_size():
    run, records = make_run(18, n_images=500)[:2]
    first = replace(records[0], throughput=(FOUND,))
    cases = summary_from_rows(run, rows_from_records([first, *records[1:]]))["cases"]
    assert cases[0]["throughput"]["8"] | {"p99_ns": 0} == {
        "images_per_s": 1000.0,
        "low": pytest.approx(992, abs=3),
        "high": pytest.approx(1008, abs=3),
        "concurrency": 2,
        "how": "threads over one session",
        "p50_ns": 16e6,
        "p99_ns": 0,
        "clock": "host",
        "window": "compute",
        "levels": {"1": 600.0, "2": 1000.0},
    }
    assert cases[1]["throughput"] == {}
    void = replace(first, times_void="what it scored is not right")
    assert summary_from_rows(run, rows_from_records([void]))["cases"][0]["throughput"] == {}


def test_where_the_times_are_void_so_is_the_throughput():
    void = replace(RECORD, times_void="what it scored is not right")
    assert throughput_facts(void) == (("batch 8", "void: what it scored is not right"),)
    assert throughput_line(void) == ""
    assert frame_from_rows(rows_from_records([void])).throughput_images_per_s.isna().all()
    assert throughput_line(record_with()) == ""

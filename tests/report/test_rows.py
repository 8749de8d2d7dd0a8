"""Rows: counts against NumPy, references and previous runs found, anchors unique; small charts and pictures."""

import dataclasses
import io
import re
import struct
import zlib

import numpy as np
import pytest
from render_records import make_baseline, make_latency, make_run

from harness.records import PackedArray
from harness.report.charts import rounds_chart, sparkline
from harness.report.details import details_from_rows
from harness.report.plots import pareto_front
from harness.report.png import data_uri_from_pixels, png_from_pixels
from harness.report.rows import batch_sizes, missing_cases, rows_from_records
from harness.stats import confusion_matrix, ratio_of_rounds, summarize_latency, wilson_interval


@pytest.fixture(scope="module")
def night():
    return make_run(18, n_images=1_000)


def row_of(rows, case_id):
    return next(row for row in rows if row.record.case.id == case_id)


def test_changes_are_counted_on_the_same_images(night):
    rows = rows_from_records(night[1])
    ours, fp32 = row_of(rows, "lenet5-openvino-int8").record, row_of(rows, "lenet5-openvino-fp32").record
    change = row_of(rows, "lenet5-openvino-int8").against_fp32
    mine, theirs = ours.accuracy.hits(1), fp32.accuracy.hits(1)
    assert (change.n_lost, change.n_gained) == ((theirs & ~mine).sum(), (mine & ~theirs).sum()) == (14, 0)
    assert change.change == pytest.approx(mine.mean() - theirs.mean())
    assert row_of(rows, "lenet5-openvino-fp32").against_fp32 is None


def test_numbers_are_those_of_stats(night):
    row = row_of(rows_from_records(night[1]), "lenet5-openvino-int8")
    accuracy, latency = row.record.accuracy, row.record.latencies[0]
    assert (row.top1_low, row.top1_high) == wilson_interval(int(accuracy.hits(1).sum()), 1_000)
    assert row.timings[0].summary == summarize_latency(latency.rounds_ns.array())
    assert row.timings[0].speed_up == ratio_of_rounds(latency.reference_rounds_ns.array(), latency.rounds_ns.array())
    assert batch_sizes([row]) == [1, 100]


def test_other_images_are_not_compared(night):
    records = list(night[1])
    index = next(i for i, record in enumerate(records) if record.case.id == "lenet5-openvino-int8")
    foreign = dataclasses.replace(records[index].accuracy, fingerprint="other")
    records[index] = dataclasses.replace(records[index], accuracy=foreign)
    change = row_of(rows_from_records(records), "lenet5-openvino-int8").against_fp32
    assert (change.n_lost, change.change, change.why_not) == (None, None, "scored on other images")


def test_without_the_reference_the_gates_own_counts_are_shown(night):
    only = [record for record in night[1] if record.case.id == "lenet5-openvino-int8"]
    change = rows_from_records(only)[0].against_fp32
    assert (change.n_lost, change.n_gained, change.p_value) == (14, 0, pytest.approx(2 * 0.5**14))


def test_the_previous_run_and_what_is_missing(night):
    previous = make_baseline(18, n_images=1_000)
    rows = rows_from_records(night[1], previous=previous)
    assert row_of(rows, "lenet5-openvino-int8").against_previous.against == previous[0].id
    assert missing_cases(night[0], night[1][:-3], previous) == [record.case.id for record in previous[1][15:]]
    assert missing_cases(*night, None) == []
    timing = row_of(rows, "lenet5-openvino-int8").timings[0]
    before = next(record for record in previous[1] if record.case.id == "lenet5-openvino-int8")
    assert timing.previous == summarize_latency(before.latencies[0].rounds_ns.array())


@pytest.mark.parametrize(
    ("changes", "n_missing"),
    [
        ({}, 14),
        ({"command": "pytest suites/ --backend=auto -v"}, 14),
        ({"command": "pytest suites/ -k lenet5"}, 0),
        ({"command": "pytest 'suites/test_accuracy.py::test_top1'"}, 0),
        ({"command": "pytest suites/ -m accuracy"}, 0),
        ({"options": {"--model": "lenet5"}}, 0),
        ({"command": "an open 'quote"}, 14),
    ],
)
def test_what_nobody_asked_for_is_not_missing(night, changes, n_missing):
    run = dataclasses.replace(night[0], **changes)
    assert len(missing_cases(run, night[1][:3], make_baseline(18, n_images=100))) == n_missing


def test_latencies_of_another_window_are_not_compared(night):
    previous = make_baseline(18, n_images=1_000)
    other = [
        dataclasses.replace(
            record, latencies=tuple(dataclasses.replace(latency, window="end_to_end") for latency in record.latencies)
        )
        for record in previous[1]
    ]
    rows = rows_from_records(night[1], previous=(previous[0], other))
    assert all(timing.previous is None for row in rows for timing in row.timings)


def test_anchors_are_unique_and_safe(night):
    hostile = dataclasses.replace(night[1][0].case, device='cuda:1"><b>')
    records = [*night[1], night[1][0], dataclasses.replace(night[1][0], case=hostile)]
    anchors = [row.anchor for row in rows_from_records(records)]
    assert len(set(anchors)) == len(anchors)
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", anchor) for anchor in anchors)


def test_a_speed_up_below_one_is_told(night):
    record = row_of(rows_from_records(night[1]), "lenet5-ort-int8").record
    slow = make_latency(np.random.default_rng(0), 1e5, 1, 0.5, "lenet5-ort-fp32")
    (row,) = rows_from_records([dataclasses.replace(record, latencies=(slow,))])
    assert row.timings[0].is_slower
    assert not rows_from_records([record])[0].timings[0].is_slower


def test_details_in_full_go_to_the_worst(night):
    rows = rows_from_records(night[1])
    details = details_from_rows(rows, full_cases=4)
    full = {detail.row.record.case.id for detail in details if detail.is_full}
    assert len(full) == 4
    assert {"lenet5-openvino-int8", "mlp-trt-int8"} <= full
    worst = next(detail for detail in details if detail.row.record.case.id == "lenet5-openvino-int8")
    accuracy = worst.row.record.accuracy
    expected = confusion_matrix(accuracy.labels.array(), accuracy.predictions.array(), 10)
    assert [[cell.n for cell in line] for line in worst.confusion] == expected.tolist()
    assert sum(cell.change for line in worst.confusion for cell in line) == 0
    assert [view.layer.name for view in worst.layers][:2] == ["conv2", "conv1"]
    assert sum(view.share for view in worst.layers) == pytest.approx(1)


def test_the_pareto_front():
    xs, ys = np.array([3.0, 1.0, 2.0, 2.0, 4.0]), np.array([9.0, 5.0, 8.0, 7.0, 9.0])
    assert pareto_front(xs, ys) == [1, 2, 0]


@pytest.mark.parametrize("shape", [(28, 28), (1, 1), (3, 5, 7)])
def test_pictures_decode_to_the_same_pixels(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    stream = io.BytesIO(png_from_pixels(pixels))
    assert stream.read(8) == b"\x89PNG\r\n\x1a\n"
    chunks = {}
    while header := stream.read(8):
        length, kind = struct.unpack(">I4s", header)
        data = stream.read(length)
        assert struct.unpack(">I", stream.read(4))[0] == zlib.crc32(kind + data)
        chunks[kind] = data
    width, height, depth, color = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    channels = {0: 1, 2: 3}[color]
    assert (height, width, depth, channels) == (*shape[-2:], 8, 1 if len(shape) == 2 else 3)
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, 1 + width * channels)
    assert not lines[:, 0].any()
    decoded = lines[:, 1:].reshape(height, width, channels)
    expected = pixels[..., None] if len(shape) == 2 else np.moveaxis(pixels, 0, 2)
    np.testing.assert_array_equal(decoded, expected)


def test_other_arrays_are_no_pictures():
    with pytest.raises(ValueError, match=r"float64\[2, 2\] is no image"):
        data_uri_from_pixels(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="is no image"):
        data_uri_from_pixels(np.zeros((4, 2, 2), np.uint8))


def test_charts_draw_every_round_inside_their_frame():
    latency = make_latency(np.random.default_rng(0), 2e4, 1, 1.7, "fp32")
    chart = rounds_chart(latency, summarize_latency(latency.rounds_ns.array()))
    for kind in ("a", "b"):
        dots = re.search(rf'<path class="dot {kind}" d="([^"]*)"', chart)[1]
        points = [tuple(map(int, pair)) for pair in re.findall(r"M(\d+) (\d+)h0", dots)]
        assert len(points) == 20
        assert all(60 <= x <= 300 and 10 <= y <= 126 for x, y in points)
    single = dataclasses.replace(
        latency, rounds_ns=PackedArray.of(np.full((1, 1), 5.0)), reference_rounds_ns=None, started_ns=None
    )
    assert "<svg" in rounds_chart(single, summarize_latency(single.rounds_ns.array()))


def test_sparklines_take_gaps_and_constants():
    assert "<path" in sparkline(np.array([1.0, np.nan, 3.0, 2.0]), [2])
    assert "tick" in sparkline(np.arange(400.0), [100])
    assert "<svg" in sparkline(np.array([5.0, 5.0]))
    assert "svg" not in sparkline(np.array([np.nan]))
    assert len(sparkline(np.random.default_rng(0).normal(size=365))) < 4_000

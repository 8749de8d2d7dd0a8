"""What bears on a time is told under it and in tables; no digit below the clock's step; quantiles with intervals."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from render_records import make_run

from harness.records import CardConditions, ClockAudit, Conditions, Energy, PackedArray
from harness.report.flags import FLAGS
from harness.report.format import MISSING, NO_BREAK, format_quantile, format_time, format_time_interval
from harness.report.html import render_html
from harness.report.junit import junit_properties
from harness.report.model import build_report
from harness.report.rows import rows_from_records
from harness.report.summary import summary_from_rows
from harness.report.tables import frame_from_rows
from harness.report.terminal import summary_lines
from harness.report.trust import trust_lines

CASE = "lenet5-openvino-int8"
LATENCY_PAGE = Path(__file__).parents[2] / "docs" / "latency.md"
CARD = CardConditions(
    uuid="GPU-1",
    n_readings=20,
    sm_clock_mhz=1_980,
    sm_clock_low_mhz=1_700,
    temperature_c=41,
    power_w=112.5,
    throttle_reasons=("sw_power_cap",),
    n_other_processes=1,
)
SEEN = Conditions(
    n_cpus=4, n_cpus_allowed=2, stolen=0.013, others=0.3, load=1.25, spinning=("OMP_WAIT_POLICY=active",), card=CARD
)
AUDIT = ClockAudit(
    clock="cuda_event", quantum_ns=32.0, empty_ns=1_900.0, drift=-3e-5, against="host", span_ns=100_000_000
)
ENERGY = Energy(source="counter", mj_per_image=(2.0, 2.2, 2.1), reference_mj_per_image=(4.0, 4.4, 4.41), loop_ns=1)
TRUST = {
    "cpu_ns": 21_000.0,
    "wall_ns": 20_000.0,
    "n_discarded_rounds": 2,
    "audit": AUDIT,
    "conditions": SEEN,
    "energy": ENERGY,
}


@pytest.fixture(scope="module")
def night():
    return make_run(18, n_images=200)


@pytest.fixture
def changed(night):
    def change(**changes):
        run, records = night
        (record,) = (record for record in records if record.case.id == CASE)
        latencies = tuple(dataclasses.replace(latency, **changes) for latency in record.latencies)
        return run, [dataclasses.replace(record, latencies=latencies)]

    return change


def test_all_that_is_known_is_told_on_the_page(changed):
    run, records = changed(**TRUST)
    lines = [line.replace(NO_BREAK, " ") for line in trust_lines(records[0].latencies[0])]
    assert lines == [
        "CPU time 21.0 µs a call, 1.05 cores",
        "energy 2.1 mJ an image (2.0 to 2.2 in 3 loops, by the card's counter); "
        "FP32 takes 2.00× as much (2.00 to 2.10×)",
        "host clock: step 32 ns, an empty measurement 1.90 µs, rate against host −30 ppm",
        "2 of 4 CPUs, 30 % of their time taken by other processes, 1.3 % stolen, load 1.2, OMP_WAIT_POLICY=active",
        "GPU-1, SM clock 1,980 MHz (lowest 1,700), 41 °C, 112 W, clocks held down by sw_power_cap, 1 other process",
        "2 rounds on a throttled card left out, of both engines",
    ]
    page = render_html(build_report(run, records))
    for line in trust_lines(records[0].latencies[0]):
        assert line.replace("'", "&#39;") in page


def test_a_latency_with_all_of_it_may_be_looked_up(changed):
    """Baselines and gates remember what they made of a latency."""
    _, records = changed(**TRUST)
    assert len(set(records[0].latencies)) == len(records[0].latencies)


def test_what_is_not_known_is_not_told(changed):
    _, records = changed()
    assert trust_lines(records[0].latencies[0]) == ()
    nothing = Conditions(n_cpus=1, n_cpus_allowed=1, card=CardConditions(uuid="GPU-1"))
    _, records = changed(conditions=nothing, audit=dataclasses.replace(AUDIT, drift=None))
    assert [line.replace(NO_BREAK, " ") for line in trust_lines(records[0].latencies[0])] == [
        "host clock: step 32 ns, an empty measurement 1.90 µs",
        "1 of 1 CPU",
        "GPU-1",
    ]


def test_tables_and_summary_carry_it(changed):
    run, records = changed(**TRUST)
    rows = rows_from_records(records)
    frame = frame_from_rows(rows)
    expected = {
        "cpu_ns": 21_000.0,
        "cores_used": 1.05,
        "clock_quantum_ns": 32.0,
        "clock_empty_ns": 1_900.0,
        "clock_drift": -3e-5,
        "n_discarded_rounds": 2,
        "stolen_cpu": 0.013,
        "others_cpu": 0.3,
        "card_uuid": "GPU-1",
        "sm_clock_mhz": 1_980.0,
        "temperature_c": 41.0,
        "power_w": 112.5,
        "energy_mj_per_image": 2.1,
        "energy_low_mj_per_image": 2.0,
        "energy_high_mj_per_image": 2.2,
        "energy_saving": 2.0,
    }
    for name, value in expected.items():
        assert frame[name].tolist() == [pytest.approx(value)] * 2, name
    assert frame.window.tolist() == ["compute"] * 2
    found = summary_from_rows(run, rows)["cases"][0]["latency"]["1"]
    assert {name: found[name] for name in ("cpu_ns", "cores_used", "n_discarded_rounds", "energy_mj_per_image")} == {
        "cpu_ns": 21_000.0,
        "cores_used": 1.05,
        "n_discarded_rounds": 2,
        "energy_mj_per_image": 2.1,
    }


@pytest.mark.parametrize(
    ("value", "interval", "resolution", "text"),
    [
        (20_312.4, (20_250, 20_380), 0, "20.31 µs"),
        (20_312.4, (20_250, 20_380), 1, "20.31 µs"),
        (20_312.4, (20_250, 20_380), 32, "20.3 µs"),
        (20_312.4, (20_250, 20_380), 500, "20 µs"),
        (20_312.4, (None, None), 1_000, "20 µs"),
        (20_312.4, (20_312, 20_313), 0.5, "20.312 µs"),
        (2_612_000, (2_611_000, 2_613_000), 500, "2.612 ms"),
        (300.0, (290, 310), 500, "below 500 ns"),
    ],
)
def test_no_digit_below_the_clocks_step(value, interval, resolution, text):
    found = format_time(value, low_ns=interval[0], high_ns=interval[1], resolution_ns=resolution)
    assert found.replace(NO_BREAK, " ") == text


def test_an_interval_has_the_digits_of_its_value():
    assert format_time_interval(20_312, 20_250, 20_380, resolution_ns=32) == f"20.2 to 20.4{NO_BREAK}µs"


@pytest.mark.parametrize(
    ("quantile", "text"),
    [
        ((61_200, 58_000, 70_100), "61 µs (58–70)"),
        ((61_200, None, None), MISSING),
        ((None, None, None), MISSING),
        ((61_200.0, 61_100.0, 61_300.0), "61.2 µs (61.1–61.3)"),
    ],
)
def test_a_quantile_stands_with_its_interval_or_not_at_all(quantile, text):
    assert format_quantile(*quantile).replace(NO_BREAK, " ") == text


def test_a_coarse_clock_takes_digits_from_every_printer(changed):
    fine, coarse = (
        dataclasses.replace(AUDIT, clock="host", quantum_ns=step) for step in (1.0, 40_000.0)
    )  # of samples of 4 calls
    rounds = PackedArray.of(np.random.default_rng(1).normal(123_456.0, 20.0, (20, 25)))
    told = {}
    for name, audit in (("fine", fine), ("coarse", coarse)):
        run, records = changed(audit=audit, rounds_ns=rounds, calls_per_sample=4)
        report = build_report(run, records)
        told[name] = "\n".join([*summary_lines(report), render_html(report)])
    digits = {name: set(re.findall(r"12\d(?:\.\d+)?[ \u00a0]µs", text)) for name, text in told.items()}
    assert any("." in number for number in digits["fine"])
    assert {number.replace("\u00a0", " ") for number in digits["coarse"]} == {"120 µs"}  # steps of 10 µs


def test_clock_and_window_are_named_wherever_a_time_stands(changed):
    run, records = changed(window="host", clock="host", launch="graph")
    mode = "host clock, graph launch, host window"
    report = build_report(run, records)
    assert f"times by {mode}" in summary_lines(report)
    assert f'title="{mode}"' in render_html(report)
    assert f"Times by {mode} (1 case)." in render_html(report)
    properties = dict(junit_properties(*rows_from_records(records)))
    assert properties["timed_b1"] == properties["timed_b100"] == mode
    assert set(frame_from_rows(rows_from_records(records)).window) == {"host"}


def test_modes_are_counted_where_there_are_several(night, changed):
    run, _ = night
    records = [*changed()[1], *(dataclasses.replace(r, latencies=()) for r in changed()[1])]
    other = changed(window="end_to_end")[1][0]
    other = dataclasses.replace(other, case=dataclasses.replace(other.case, model="mlp"))
    line = next(line for line in summary_lines(build_report(run, [records[0], other])) if line.startswith("times by"))
    assert "host clock, call launch, compute window (1 case); " in line
    assert "host clock, call launch, end_to_end window (1 case)" in line


@pytest.mark.parametrize("flag", sorted(FLAGS))
def test_every_flag_of_a_latency_is_explained(flag):
    of_records = {"precision_not_as_asked", "scored_on_training_images", "many_ties", "expects_int8_loss"}
    assert flag in of_records or f"| `{flag}` |" in LATENCY_PAGE.read_text()

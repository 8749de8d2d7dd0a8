"""What follows from a calibration: spreads, power, false alarms, and which slowdown a case supports."""

import numpy as np
import pytest

from harness.errors import DataError
from harness.records import INJECTED, CalibrationNight, CaseSamples, Caught, TimingCalibration
from harness.stats.calibrated import (
    case_spreads,
    caught_together,
    look_spread,
    most_false_alarms,
    smallest_slowdown,
    spread_of_pairs,
)

SD = 0.001


def samples(case_id="lenet5-ort-fp32", *, seed=1, n_pairs=16, sd=SD, batch_size=1) -> CaseSamples:
    rng = np.random.default_rng(seed)
    n_processes = 2 * n_pairs
    return CaseSamples(
        case_id=case_id,
        batch_size=batch_size,
        builds=tuple(index % 4 // 2 for index in range(n_processes)),
        medians_ns=tuple((1e5 * np.exp(rng.normal(0, 0.002, n_processes))).tolist()),
        round_cvs=(0.004,) * n_processes,
        log_ratios=tuple(tuple((np.log1p(s) + rng.normal(0, sd, n_pairs)).tolist()) for s in INJECTED),
    )


def calibration(*nights: tuple[CaseSamples, ...], max_slowdown=0.005) -> TimingCalibration:
    return TimingCalibration(
        device_type="a device",
        max_slowdown=max_slowdown,
        alpha=0.001,
        nights=tuple(
            CalibrationNight(measured_at=f"2026-11-{night:02}T01:00:00+00:00", driver="", versions={}, cases=cases)
            for night, cases in enumerate(nights, 1)
        ),
    )


def test_a_case_has_its_spreads_its_power_and_what_it_supports():
    (spread,) = case_spreads(calibration((samples(),)))
    assert (spread.n_processes, spread.n_builds, spread.n_nights, spread.n_pairs) == (32, 2, 1, 16)
    assert spread.round_cv == pytest.approx(0.004)
    assert spread.process_cv == pytest.approx(0.002, rel=0.4)
    assert spread.night_cv is None
    assert spread.paired_cv == pytest.approx(SD, rel=0.5)
    assert 0.001 < spread.smallest_slowdown < 0.004
    unchanged, one, two, five = spread.caught
    assert (unchanged.slowdown, unchanged.n_tried, unchanged.n_called) == (0.0, 1, 0)
    assert (unchanged.n_resampled, unchanged.n_resampled_called) == (1_000, 0)
    assert [caught.n_called for caught in (one, two, five)] == [1, 1, 1]
    assert one.n_resampled_called > 950


def test_the_same_file_gives_the_same_numbers():
    assert case_spreads(calibration((samples(),))) == case_spreads(calibration((samples(),)))


def test_nights_accrue():
    both = calibration((samples(),), (samples(seed=2),))
    (spread,) = case_spreads(both)
    assert (spread.n_nights, spread.n_pairs, spread.n_builds) == (2, 32, 4)
    assert spread.night_cv is not None
    assert spread.caught[0].n_tried == 2


def test_cases_and_batch_sizes_are_told_apart():
    one_night = calibration((samples(sd=0.01), samples(batch_size=100), samples("mlp-ort-fp32")))
    assert [(s.case_id, s.batch_size) for s in case_spreads(one_night)] == [
        ("lenet5-ort-fp32", 1),
        ("lenet5-ort-fp32", 100),
        ("mlp-ort-fp32", 1),
    ]
    loud, calm = (spread_of_pairs(one_night, "lenet5-ort-fp32", size).sd for size in (1, 100))
    assert loud > 4 * calm


def test_a_noisy_case_supports_no_small_slowdown_and_catches_none():
    noisy = calibration((samples(sd=0.02),), max_slowdown=0.02)
    assert smallest_slowdown(noisy, "lenet5-ort-fp32", 1) > 0.02
    assert case_spreads(noisy)[0].caught[1].n_resampled_called < 10  # 1 % is within what is accepted


def test_the_look_knows_processes_builds_and_nights():
    quiet = samples()
    shifted = CaseSamples(
        case_id=quiet.case_id,
        batch_size=1,
        builds=quiet.builds,
        medians_ns=tuple(1.03 * time for time in quiet.medians_ns),
        round_cvs=quiet.round_cvs,
        log_ratios=quiet.log_ratios,
    )
    one, two = (look_spread(calibration(*nights), quiet.case_id, 1) for nights in ([(quiet,)], [(quiet,), (shifted,)]))
    assert one.times.sd == pytest.approx(0.002, rel=0.4)
    assert two.times.sd == pytest.approx(0.03 / 2**0.5, rel=0.1)
    assert one.pairs == spread_of_pairs(calibration((quiet,)), quiet.case_id, 1)


def test_what_was_not_calibrated_has_no_spread():
    known = calibration((samples(), samples("few-ort-fp32", n_pairs=7)))
    for case_id, batch_size in (("other-ort-fp32", 1), ("lenet5-ort-fp32", 7), ("few-ort-fp32", 1)):
        assert spread_of_pairs(known, case_id, batch_size) is None
        assert look_spread(known, case_id, batch_size) is None
        assert smallest_slowdown(known, case_id, batch_size) is None
    assert [spread.case_id for spread in case_spreads(known)] == ["lenet5-ort-fp32"]


def test_too_few_pairs_for_a_comparison_count_as_none():
    (spread,) = case_spreads(calibration((samples(n_pairs=15),)))
    assert spread.caught[0].n_tried == spread.caught[0].n_resampled == 0
    assert spread.caught[0].n_called == spread.caught[0].n_resampled_called == 0
    assert most_false_alarms(spread.caught[0]) is None


def test_cases_are_counted_together_and_bounded_exactly():
    spreads = case_spreads(calibration((samples(), samples("mlp-ort-fp32"), samples(batch_size=100))))
    unchanged = caught_together(spreads)[0]
    assert (unchanged.n_tried, unchanged.n_called, unchanged.n_resampled) == (3, 0, 3_000)
    assert most_false_alarms(unchanged) == pytest.approx(1 - 0.05 ** (1 / 3))
    for index, summed in enumerate(caught_together(spreads)):
        assert summed.n_called == sum(spread.caught[index].n_called for spread in spreads)
        assert summed.n_resampled_called == sum(spread.caught[index].n_resampled_called for spread in spreads)
    hundred = Caught(slowdown=0.0, n_tried=100, n_called=0, n_resampled=0, n_resampled_called=0)
    assert most_false_alarms(hundred) == pytest.approx(0.0295, abs=1e-4)  # the rule of three


@pytest.mark.parametrize(
    "wrong",
    [
        {"builds": (0,)},
        {"medians_ns": (1.0, 0.0)},
        {"log_ratios": ((),)},
        {"log_ratios": ((float("nan"),), (), (), ())},
    ],
)
def test_contradicting_samples_are_refused(wrong):
    right = {"builds": (0, 0), "medians_ns": (1.0, 2.0), "round_cvs": (0.1, 0.1), "log_ratios": ((),) * len(INJECTED)}
    CaseSamples(case_id="a", batch_size=1, **right)
    with pytest.raises(DataError):
        CaseSamples(case_id="a", batch_size=1, **{**right, **wrong})

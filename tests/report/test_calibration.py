"""A calibration for a reader: it fits the terminal, and claims no more than was measured."""

import numpy as np
import pytest

from harness.records import INJECTED, CalibrationNight, CaseSamples, TimingCalibration
from harness.report.calibration import calibration_lines, calibration_sentence
from harness.stats.calibrated import case_spreads


def calibration(n_pairs: int = 16, case_ids=("mobilenet_digits-openvino-int8", "mlp-ort-fp32")) -> TimingCalibration:
    rng = np.random.default_rng(1)
    cases = tuple(
        CaseSamples(
            case_id=case_id,
            batch_size=100,
            builds=(0, 1) * n_pairs,
            medians_ns=tuple((1e5 * rng.lognormal(0, 0.02, 2 * n_pairs)).tolist()),
            round_cvs=(0.0123,) * 2 * n_pairs,
            log_ratios=tuple(tuple((np.log1p(s) + rng.normal(0, 0.001, n_pairs)).tolist()) for s in INJECTED),
        )
        for case_id in case_ids
    )
    night = CalibrationNight(measured_at="2026-11-26T01:00:00+00:00", driver="", versions={}, cases=cases)
    return TimingCalibration(device_type="AMD EPYC, 2 CPUs", max_slowdown=0.02, alpha=0.001, nights=(night,))


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_the_terminal(width):
    found = calibration()
    lines = calibration_lines(found, case_spreads(found), width=width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "mobilenet_digits-openvino-int8" in text
    assert ("night" in lines[1]) == (width == 120)
    assert [row.split()[-4:] for row in lines[2:4]] == [["0.0", "0.0", row.split()[-2], "100.0"] for row in lines[2:4]]
    assert "1.23" in lines[2]


def test_the_sentence_says_what_is_bounded_and_what_it_rests_on():
    found = calibration()
    assert calibration_sentence(found, case_spreads(found)) == (
        "False alarms at an accepted slowdown of 2.00 %: 0 of 2 comparisons without a process in common, so at most "
        "77.64 % (95 %); 0 of 2,000 resampled from the same pairs (32 pairs of processes, 1 night)."
    )


def test_too_few_pairs_claim_nothing():
    found = calibration(n_pairs=8)
    text = calibration_sentence(found, case_spreads(found))
    assert text == "False alarms are not measured: fewer than 16 pairs of a case (16 pairs of processes, 1 night)."

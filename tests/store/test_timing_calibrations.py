"""Calibration files: one a type of device, nights accrue, a damaged one is an error that says what to do."""

import json

import pytest

from harness.errors import BaselineError
from harness.records import INJECTED, CalibrationNight, CaseSamples, TimingCalibration
from harness.store.baselines import BaselineStore
from harness.store.timing_calibrations import calibration_path, load_calibration, save_calibration, with_night

DEVICE = "AMD EPYC, avx512_vnni, 2 CPUs"


def samples(case_id="mlp-ort-fp32", time=1e5, batch_size=1) -> CaseSamples:
    return CaseSamples(
        case_id=case_id,
        batch_size=batch_size,
        builds=(0, 1),
        medians_ns=(time, time),
        round_cvs=(0.01, 0.02),
        log_ratios=((0.001, -0.002),) * len(INJECTED),
    )


def night(measured_at: str, *cases: CaseSamples) -> TimingCalibration:
    found = CalibrationNight(measured_at=measured_at, driver="", versions={"onnxruntime": "1.32.0"}, cases=cases)
    return TimingCalibration(device_type=DEVICE, max_slowdown=0.02, alpha=0.001, nights=(found,))


def test_a_calibration_comes_back_as_it_was_written(tmp_path):
    path = save_calibration(tmp_path, night("2026-11-26T01:00:00+00:00", samples()))
    assert path == calibration_path(tmp_path, DEVICE) == tmp_path / "calibrations" / "amd-epyc-avx512_vnni-2-cpus.json"
    assert load_calibration(tmp_path, DEVICE) == night("2026-11-26T01:00:00+00:00", samples())
    assert load_calibration(tmp_path, "another device") is None


def test_a_file_is_small_readable_and_no_baseline(tmp_path):
    text = save_calibration(tmp_path, night("2026-11-26T01:00:00+00:00", samples())).read_text()
    assert '"medians_ns": [100000.0, 100000.0]' in text
    assert list(json.loads(text)["calibration"]) == ["device_type", "max_slowdown", "alpha", "nights"]
    assert BaselineStore(tmp_path).paths() == ()


def test_another_day_adds_a_night():
    first, second = night("2026-11-26T01:00:00+00:00", samples()), night("2026-11-27T01:00:00+00:00", samples(time=2e5))
    both = with_night(second, first)
    assert [found.measured_at[:10] for found in both.nights] == ["2026-11-26", "2026-11-27"]
    assert with_night(first, None) == first


def test_the_same_day_takes_the_place_of_what_it_measured_again():
    first = night("2026-11-26T01:00:00+00:00", samples(), samples("lenet5-ort-fp32"))
    again = with_night(night("2026-11-26T09:00:00+00:00", samples(time=2e5)), first)
    (found,) = again.nights
    assert [(case.case_id, case.medians_ns[0]) for case in found.cases] == [
        ("lenet5-ort-fp32", 1e5),
        ("mlp-ort-fp32", 2e5),
    ]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("100000.0", "100001.0", 1),
        lambda text: text[:-40],
        lambda text: "",
        lambda text: "[]",
        lambda text: text.replace('"schema": 1', '"schema": 9'),
    ],
)
def test_a_damaged_file_is_an_error_with_its_remedy(tmp_path, damage):
    path = save_calibration(tmp_path, night("2026-11-26T01:00:00+00:00", samples()))
    path.write_text(damage(path.read_text()))
    with pytest.raises(BaselineError, match=r"is damaged.*harness calibrate"):
        load_calibration(tmp_path, DEVICE)


def test_a_file_of_another_device_type_is_refused(tmp_path):
    path = save_calibration(tmp_path, night("2026-11-26T01:00:00+00:00", samples()))
    other = DEVICE.replace("avx512_vnni", "avx512-vnni").upper()
    path.rename(calibration_path(tmp_path, other))
    with pytest.raises(BaselineError, match="is of AMD EPYC, avx512_vnni, 2 CPUs, not of"):
        load_calibration(tmp_path, other)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    calibration_path(tmp_path, DEVICE).mkdir(parents=True)
    with pytest.raises(BaselineError, match="cannot be read"):
        load_calibration(tmp_path, DEVICE)

"""How a case was quantized, on its page: ranges of every recipe side by side, and where the signal falls."""

import dataclasses
import re

import pytest
from render_records import HOSTILE, make_run

from harness.records import TensorCalibration, TensorNoise
from harness.report.charts import RangeMark, magnitudes_chart
from harness.report.html import render_html
from harness.report.model import build_report
from harness.report.quantization import (
    FALL_DB,
    MAX_RATIOS,
    calibration_lines,
    fall_text,
    first_fall,
    quantization_view,
    recipes_of_models,
)
from harness.specs import Precision

DRAWN = {"counts": (90, 9, 1, 1), "candidates": (1.0, 2.0, 4.0), "divergences": (0.5, 0.25, 0.75)}


def int8_record(number=0):
    _, records = make_run(3)
    found = [one for one in records if one.artifact and one.case.precision is Precision.INT8 and not one.is_reference]
    return found[number]


def calibrated(record, *, recipe=None, thresholds=(2.0,), ratios=(), drawn=True, fingerprint="f", **changes):
    """Return a record whose artifact tells its ranges and ratios."""
    rows = tuple(
        TensorCalibration(
            tensor=f"t{k}", largest=4.0, threshold=value, saturated_share=0.0125, **(DRAWN if drawn else {})
        )
        for k, value in enumerate(thresholds)
    )
    noise = tuple(TensorNoise(tensor=f"t{k}", snr_db=ratio) for k, ratio in enumerate(ratios))
    calibration = dataclasses.replace(
        record.artifact.calibration, tensors=rows, noise=noise, n_noise_images=100, fingerprint=fingerprint, **changes
    )
    case = record.case if recipe is None else dataclasses.replace(record.case, recipe=recipe)
    return dataclasses.replace(
        record, case=case, artifact=dataclasses.replace(record.artifact, calibration=calibration)
    )


def view_of(*records, previous=None):
    return quantization_view(records[0], previous, recipes_of_models(records).get(records[0].case.model, {}))


def page_of(*records):
    run, _ = make_run(3)
    return render_html(build_report(run, records))


# -- where the signal falls


@pytest.mark.parametrize(
    ("ratios", "place", "says"),
    [
        ((None, 43.5, 42.4, 8.0, 6.6), 3, ", falls below 20 dB first in t3: 8.0 dB, 42.4 dB at least before it."),
        ((None, 3.0, 40.0), 1, "falls below 20 dB first in t1: 3.0 dB, nothing differs before it."),
        ((None, 43.0, 31.2, 38.0), None, "nowhere below 20 dB; lowest in t2, 31.2 dB."),
        ((30.0, FALL_DB), None, "nowhere below 20 dB; lowest in t1, 20.0 dB."),
        ((None, None), None, "no tensor differs."),
    ],
)
def test_the_first_fall_is_named(ratios, place, says):
    calibration = calibrated(int8_record(), ratios=ratios).artifact.calibration
    assert first_fall(calibration) == place
    assert fall_text(calibration).endswith(says)
    assert "on 100 calibration images" in fall_text(calibration)


def test_without_ratios_nothing_is_said_of_a_fall():
    view = view_of(calibrated(int8_record()))
    assert (view.fall, view.is_fallen, view.ratios) == ("", False, ())


def test_of_many_tensors_the_lowest_and_the_first_fall_are_shown_in_the_graphs_order():
    ratios = [19.0, *(float(k % 50) - 60 for k in range(100))]
    view = view_of(calibrated(int8_record(), thresholds=(), ratios=ratios))
    shown = [int(line.tensor[1:]) for line in view.ratios]
    assert shown == sorted(shown)
    assert (len(shown), shown[0], view.n_ratios_left_out) == (MAX_RATIOS, 0, 101 - MAX_RATIOS)
    assert [line.is_fall for line in view.ratios] == [True] + [False] * (MAX_RATIOS - 1)


# -- recipes side by side


def test_recipes_of_a_model_stand_side_by_side_the_cases_own_first():
    record = int8_record()
    entropy = calibrated(record, recipe="qdq-entropy", thresholds=(1.5, 0.5), ratios=(None, 30.0))
    minmax = calibrated(record, recipe="qdq-minmax", thresholds=(4.0,), ratios=(None, 35.0), drawn=False)
    other = calibrated(record, recipe="nncf", thresholds=(9.0,))
    other = dataclasses.replace(other, case=dataclasses.replace(other.case, model="mlp"))
    view = view_of(entropy, minmax, other)
    assert view.recipes == ("qdq-entropy", "qdq-minmax")
    first, second = view.ranges
    assert [cell.threshold for cell in first.cells] == ["1.50", "4.00"]
    assert [cell.divergence for cell in first.cells] == ["0.500", "0.750"], (
        "the same magnitudes, so the same candidates"
    )
    assert (first.largest, first.cells[0].saturated) == ("4.00", "1.250%")
    assert second.cells[1] is None, "qdq-minmax tells nothing of it"
    assert view.ratios[1].ratios == ("30.0 dB", "35.0 dB")
    swapped = view_of(minmax, entropy)
    assert swapped.recipes == ("qdq-minmax", "qdq-entropy")
    assert "svg" in swapped.ranges[0].chart, "drawn from the recipe that looked at a histogram"


def test_a_case_without_calibration_has_no_section():
    record = int8_record()
    assert view_of(record) is None
    fp32 = next(one for one in make_run(3)[1] if one.case.precision is Precision.FP32)
    assert quantization_view(fp32, None, {}) is None


def test_a_chart_shows_magnitudes_divergences_and_every_threshold():
    (row,) = calibrated(int8_record()).artifact.calibration.tensors
    chart = magnitudes_chart(row, [RangeMark(place=0, threshold=2.0), RangeMark(place=1, threshold=9.0)])
    assert chart.count('class="clip') == 2
    assert 'class="clip r0" d="M128.0 0' in chart, "half of the largest is half of the width"
    assert 'class="clip r1" d="M255.0 0' in chart, "what lies beyond stays in sight"
    assert chart.count('class="lost"') == chart.count('class="hist"') == 1
    assert magnitudes_chart(dataclasses.replace(row, largest=0.0, counts=(0, 0)), []) == ""


# -- drift of scales


def test_what_became_of_the_previous_runs_scales_is_a_line():
    record = int8_record()
    before = calibrated(record, thresholds=(2.0, 1.0, 3.0))
    same = view_of(before, previous=before)
    assert same.scales == "Scales against the previous run: unchanged."
    moved = view_of(calibrated(record, thresholds=(2.0, 1.1, 2.97)), previous=before)
    assert moved.scales == "Scales against the previous run: 2 of 3 tensors changed, by +10.00% in t1 at most."
    cut = view_of(calibrated(record, thresholds=(2.0, 1.0), fingerprint="other"), previous=before)
    assert cut.scales == (
        "Scales against the previous run, of other calibration images: unchanged; 1 tensor in one run only."
    )
    assert view_of(before, previous=record).scales == ""
    assert view_of(before).scales == ""


def test_the_versions_in_between_are_named_beside_the_scales():
    before = calibrated(int8_record(), thresholds=(2.0,))
    tools = {"onnxruntime.quantization": "1.99"}
    after = calibrated(int8_record(), thresholds=(2.5,))
    after = dataclasses.replace(after, artifact=dataclasses.replace(after.artifact, tools=tools))
    said = view_of(after, previous=before).scales
    assert "(onnxruntime.quantization 1.23.1 → 1.99): 1 of 1 tensor changed, by +25.00% in t0" in said


def test_an_engine_that_calibrates_itself_tells_its_table():
    record = int8_record()
    table = (TensorCalibration(tensor="in", threshold=1.25),)
    calibration = dataclasses.replace(record.artifact.calibration, tensors=table)
    engine = dataclasses.replace(record.engine, calibration=calibration)
    view = view_of(dataclasses.replace(record, engine=engine))
    (line,) = view.ranges
    assert (line.largest, line.chart, line.cells[0].threshold, line.cells[0].saturated) == ("—", "", "1.25", "—")


# -- printed


def test_the_page_shows_it_in_the_cases_section():
    record = int8_record()
    entropy = calibrated(record, recipe="qdq-entropy", ratios=(None, 12.0))
    minmax = calibrated(record, recipe="qdq-minmax", thresholds=(4.0,), ratios=(None, 11.0), drawn=False)
    page = page_of(entropy, minmax)
    assert page.count("<h4>Quantization</h4>") == 2
    assert page.count('<svg class="magnitudes"') == 2
    assert "qdq-entropy (this case)" in page
    assert page.count("the first fall") == 2
    assert re.search(r'class="warn[^"]*">Signal-to-noise ratio, FP32 against', page)


def test_names_of_tensors_are_text_on_the_page():
    record = calibrated(int8_record(), ratios=(None, 12.0))
    rows = tuple(dataclasses.replace(row, tensor=HOSTILE) for row in record.artifact.calibration.tensors)
    noise = tuple(dataclasses.replace(one, tensor=HOSTILE) for one in record.artifact.calibration.noise)
    calibration = dataclasses.replace(record.artifact.calibration, tensors=rows, noise=noise)
    page = page_of(dataclasses.replace(record, artifact=dataclasses.replace(record.artifact, calibration=calibration)))
    assert "<script>alert(1)" not in page
    assert page.count("&lt;script&gt;alert(1)") >= 3


def test_a_terminal_tells_the_same():
    lines = calibration_lines(calibrated(int8_record(), ratios=(None, 12.0)))
    assert lines[2].split() == ["t0", "4", "2", "1.250%", "0.25", "(0.75)"]
    assert "falls below 20 dB first in t1" in lines[3]
    assert [line.split() for line in lines[4:]] == [["t0", "equal"], ["t1", "12.0", "dB"]]
    assert calibration_lines(int8_record()) == []

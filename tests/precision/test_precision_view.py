"""How ranges were chosen is kept with the record: histogram, candidates, divergences, what saturates."""

import msgspec
import numpy as np
import onnx_nets
import pytest
from onnx_nets import ArraySet, images, spec_of

from harness.models.onnx_graph import activation_scales
from harness.precision import prepare_artifact
from harness.precision.ranges import MagnitudeHistogram, entropy_search, entropy_threshold, percentile_threshold
from harness.precision.view import MAX_DRAWN, MAX_TENSORS, calibration_view
from harness.records import Artifact
from harness.specs import Precision


def histogram_of(values):
    histogram = MagnitudeHistogram(float(np.abs(values).max()))
    histogram.update(np.asarray(values, np.float32))
    return histogram


def heavy_tailed(seed=0):
    return np.concatenate([np.random.default_rng(seed).standard_normal(20_000), [40.0]])


@pytest.mark.parametrize("choose", [entropy_threshold, percentile_threshold, lambda histogram: histogram.largest])
def test_a_view_shows_the_choice_among_its_candidates(choose):
    values = heavy_tailed()
    histogram = histogram_of(values)
    (row,) = calibration_view({"x": choose(histogram)}, {"x": histogram})
    assert row.threshold == pytest.approx(choose(histogram), rel=1e-5)
    assert row.largest == 40
    assert sum(row.counts) == values.size
    assert len(row.counts) == 64
    assert row.saturated_share == pytest.approx((np.abs(values) >= row.threshold).mean() if row.threshold < 40 else 0)
    assert list(row.candidates) == sorted(row.candidates)
    assert len(row.candidates) == len(row.divergences) <= 33
    assert row.candidates[-1] == 40
    # the entropy's own choice is shown, and no candidate loses less
    assert row.candidates[int(np.argmin(row.divergences))] == pytest.approx(entropy_threshold(histogram), rel=1e-5)


def test_the_search_that_is_shown_is_the_one_that_chooses():
    histogram = histogram_of(heavy_tailed(3))
    search = entropy_search(histogram)
    assert search.thresholds[search.chosen] == entropy_threshold(histogram)
    assert search.divergences[search.chosen] == search.divergences.min()
    assert search.thresholds.size == search.divergences.size


def test_a_tensor_of_zeros_has_nothing_to_show():
    histogram = MagnitudeHistogram(0.0)
    (row,) = calibration_view({"x": 0.0}, {"x": histogram})
    assert (row.threshold, row.saturated_share, row.candidates, sum(row.counts)) == (0, 0, (), 0)


def test_of_a_model_of_many_tensors_ranges_are_kept_but_no_histograms():
    histogram = histogram_of(heavy_tailed())
    drawn = {f"t{k}": histogram for k in range(MAX_DRAWN)}
    view = calibration_view(dict.fromkeys(drawn, 1.0), drawn)
    assert all(row.counts and row.candidates for row in view)
    assert len(msgspec.json.encode(view)) < 24_000
    many = {f"t{k}": histogram for k in range(MAX_TENSORS)}
    view = calibration_view(dict.fromkeys(many, 1.0), many)
    assert [row.tensor for row in view] == list(many)
    assert not any(row.counts or row.candidates for row in view)
    assert all(row.saturated_share > 0 for row in view)
    assert len(msgspec.json.encode(view)) < 32_000
    assert calibration_view(dict.fromkeys(map(str, range(MAX_TENSORS + 1)), 1.0)) == ()


@pytest.mark.parametrize("recipe", ["qdq-entropy", "qdq-percentile", "qdq-search"])
def test_an_artifact_tells_how_its_ranges_were_chosen_from_the_cache_too(tmp_path, recipe):
    spec = spec_of(onnx_nets.tiny_net(tmp_path / "tiny.onnx"))
    made, again = (
        prepare_artifact(
            spec, Precision.INT8, recipe, calibration=ArraySet(images(60)), cache_dir=str(tmp_path / "cache")
        )
        for _ in range(2)
    )
    assert again.cache_hit
    tensors = made.calibration.tensors
    assert tensors == again.calibration.tensors
    scales = activation_scales(made.onnx_path)
    assert {row.tensor: pytest.approx(row.threshold / 127, rel=1e-4) for row in tensors} == scales
    kept = msgspec.json.decode(msgspec.json.encode(made), type=Artifact)
    assert kept.calibration.tensors == tensors


def test_a_recipe_that_looks_at_no_histogram_tells_its_ranges_alone(tmp_path):
    spec = spec_of(onnx_nets.tiny_net(tmp_path / "tiny.onnx"))
    calibration, cache = ArraySet(images(60)), str(tmp_path / "cache")
    artifact = prepare_artifact(spec, Precision.INT8, "qdq-minmax", calibration=calibration, cache_dir=cache)
    tensors = artifact.calibration.tensors
    scales = activation_scales(artifact.onnx_path)
    assert {row.tensor: pytest.approx(row.threshold / 127, rel=1e-4) for row in tensors} == scales
    assert all(row.threshold == row.largest and row.saturated_share == 0 and not row.counts for row in tensors)

"""Recipe qdq-search: a grid of clippings, judged on images that measured nothing; the choice and the grid are kept."""

import json

import numpy as np
import onnx
import onnx_nets
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_nets import ArraySet, images, spec_of

from harness.errors import BuildError, DataError
from harness.models.onnx_graph import activation_scales
from harness.precision import prepare_artifact
from harness.precision.calibration import CheckedCalibration
from harness.precision.grid import ImagesWithin
from harness.precision.ranges import MagnitudeHistogram, percentile_threshold
from harness.precision.recipes.qdq_search import GRID, GRID_KEY
from harness.specs import Precision


def searched(tmp_path, spec, array, cache="cache"):
    folder = str(tmp_path / cache)
    return prepare_artifact(spec, Precision.INT8, "qdq-search", calibration=ArraySet(array), cache_dir=folder)


def grid_of(artifact):
    properties = {entry.key: entry.value for entry in onnx.load(artifact.onnx_path).metadata_props}
    grid = json.loads(properties[GRID_KEY])
    return [dict(zip(grid["columns"], row, strict=True)) for row in grid["rows"]]


def outputs(path, array):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, {"image": array})[0]


@given(n=st.integers(1, 40), batch=st.integers(1, 50), data=st.data())
def test_a_part_of_a_set_holds_its_own_images_only(n, batch, data):
    first = data.draw(st.integers(0, n - 1))
    stop = data.draw(st.integers(first + 1, n))
    part = ImagesWithin(ArraySet(np.arange(n)), first, stop)
    pieces = list(part.batches(batch))
    assert np.concatenate(pieces).tolist() == list(range(first, stop))
    assert all(0 < len(piece) <= batch for piece in pieces)
    assert part.n_images == stop - first


def test_the_last_part_finds_a_set_that_ends_early(spec):
    short = ArraySet(images(20))
    short.n_images = 25
    card = onnx_nets.ModelSpec(
        **{f: getattr(spec, f) for f in ("name", "onnx_path", "sha256", "output_name")},
        input_name="image",
        input_shape=(1, 8, 8),
        num_classes=10,
    )
    with pytest.raises(DataError, match="20 of 25 calibration images came"):
        list(ImagesWithin(CheckedCalibration(short, card), 16, 25).batches(4))


def test_the_best_pair_is_written_and_the_whole_grid_is_kept(tmp_path):
    spec, array = spec_of(onnx_nets.tiny_net(tmp_path / "tiny.onnx")), images(100)
    artifact = searched(tmp_path, spec, array)
    grid = grid_of(artifact)
    assert [(row["quantile"], row["cutoff"]) for row in grid] == list(GRID)
    best = min(grid, key=lambda row: row["error"])
    assert artifact.calibration.method == (
        f"search: quantile {best['quantile']:g}, cutoff {best['cutoff']:g}, "
        f"the best of {len(GRID)} pairs on 20 images held out"
    )
    # the file that was written is the one that was judged, on the last fifth
    held_out = array[80:]
    expected, found = outputs(spec.onnx_path, held_out), outputs(artifact.onnx_path, held_out)
    error = np.square(found.astype("f8") - expected).sum() / np.square(expected.astype("f8")).sum()
    assert error == pytest.approx(best["error"], rel=2e-3)
    assert (found.argmax(1) != expected.argmax(1)).sum() == best["changed"]


def test_ranges_are_a_quantile_but_never_less_than_the_cutoff(tmp_path):
    spec, array = spec_of(onnx_nets.identity_net(tmp_path / "eye.onnx"), num_classes=64), images(50)
    artifact = searched(tmp_path, spec, array)
    best = min(grid_of(artifact), key=lambda row: row["error"])
    histogram = MagnitudeHistogram(float(array[:40].max()))
    histogram.update(array[:40])
    wanted = max(percentile_threshold(histogram, best["quantile"] * 100), best["cutoff"] * histogram.largest)
    np.testing.assert_allclose([*activation_scales(artifact.onnx_path).values()], wanted / 127, rtol=1e-6)


def test_images_held_out_measure_nothing(tmp_path):
    """Images that are far brighter than those measured want the widest range, and get no wider one."""
    spec, array = spec_of(onnx_nets.identity_net(tmp_path / "eye.onnx"), num_classes=64), images(50)
    array = np.concatenate([array[:40] / 4, array[40:]])
    artifact = searched(tmp_path, spec, array)
    np.testing.assert_allclose([*activation_scales(artifact.onnx_path).values()], array[:40].max() / 127, rtol=1e-6)


def test_an_outlier_among_the_images_measured_is_clipped(tmp_path):
    spec, array = spec_of(onnx_nets.identity_net(tmp_path / "eye.onnx"), num_classes=64), images(100) / 20
    array[3, 0, 2, 2] = 1.0
    best = min(grid_of(searched(tmp_path, spec, array)), key=lambda row: row["error"])
    assert best["quantile"] < 1
    assert best["cutoff"] < 0.25


def test_the_choice_is_the_same_every_time(tmp_path):
    spec, array = spec_of(onnx_nets.tiny_net(tmp_path / "tiny.onnx")), images(60)
    first, second = (searched(tmp_path, spec, array, cache=name) for name in "ab")
    assert first.sha256 == second.sha256


def test_a_model_of_a_fixed_batch_is_searched(tmp_path):
    path = onnx_nets.tiny_net(tmp_path / "fixed.onnx", batch=7)
    assert len(grid_of(searched(tmp_path, spec_of(path, max_batch=7), images(50)))) == len(GRID)


def test_too_few_images_are_refused(tmp_path):
    spec = spec_of(onnx_nets.tiny_net(tmp_path / "tiny.onnx"))
    with pytest.raises(BuildError, match="qdq-search needs 10 calibration images or more"):
        searched(tmp_path, spec, images(9))

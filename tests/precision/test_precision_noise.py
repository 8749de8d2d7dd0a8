"""Signal-to-noise ratios: FP32 against the float emulation of a Q/DQ file, tensor by tensor."""

from pathlib import Path

import numpy as np
import onnx
import onnx_nets
import pytest
from onnx import helper, numpy_helper
from onnx_nets import ArraySet, images, save_net, spec_of

from harness.errors import BuildError
from harness.models import load_card
from harness.precision import prepare_artifact
from harness.precision.noise import MAX_TENSORS, N_IMAGES, WORST_DB, tensor_noise
from harness.report.quantization import first_fall
from harness.specs import DatasetRequest, Precision
from harness.worker.images import calibration_set


def prepared(tmp_path, path, recipe="qdq-minmax", n_images=60):
    return prepare_artifact(
        spec_of(path), Precision.INT8, recipe, calibration=ArraySet(images(n_images)), cache_dir=str(tmp_path / "cache")
    )


def measured(tmp_path, quantized, n_images=60):
    return tensor_noise(
        tmp_path / "tiny.onnx", Path(quantized), spec_of(tmp_path / "tiny.onnx"), ArraySet(images(n_images)), tmp_path
    )


def run_with(model, names, batch):
    ort = pytest.importorskip("onnxruntime")
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(list(names), {"image": batch}), strict=True))


@pytest.mark.parametrize("recipe", ["qdq-minmax", "qdq-entropy", "qdq-search", "qdq-outputs", "qdq-wide"])
def test_ratios_are_those_of_a_plain_run_of_both_files(tmp_path, recipe):
    artifact = prepared(tmp_path, onnx_nets.tiny_net(tmp_path / "tiny.onnx"), recipe)
    told = {one.tensor: one.snr_db for one in artifact.calibration.noise}
    model = onnx.load(tmp_path / "tiny.onnx")
    order = ["image", *(name for node in model.graph.node for name in node.output)]
    assert list(told) == [name for name in order if name in told]
    assert set(told) == set(order), "every tensor is told"
    outputs = {value.name for value in model.graph.output}
    names = [name for name in order if name not in outputs | {"image"}]
    exact, rounded = (run_with(one, names, images(60)) for one in (model, onnx.load(artifact.onnx_path)))
    for name in names:
        noise = np.square(exact[name].astype(float) - rounded[name]).sum()
        expected = 10 * np.log10(np.square(exact[name].astype(float)).sum() / noise) if noise else None
        assert told[name] == (None if expected is None else pytest.approx(expected, abs=0.01))
    assert artifact.calibration.n_noise_images == 60
    again = prepared(tmp_path, tmp_path / "tiny.onnx", recipe)
    assert again.cache_hit
    assert again.calibration == artifact.calibration


def test_the_first_images_are_enough(tmp_path):
    artifact = prepared(tmp_path, onnx_nets.tiny_net(tmp_path / "tiny.onnx"), n_images=N_IMAGES + 50)
    assert artifact.calibration.n_noise_images == N_IMAGES


def spoilt(tmp_path, factor):
    """Return the Q/DQ file with the first activation's scale multiplied."""
    artifact = prepared(tmp_path, onnx_nets.tiny_net(tmp_path / "tiny.onnx"))
    model = onnx.load(artifact.onnx_path)
    scale = next(node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear")
    tensor = next(one for one in model.graph.initializer if one.name == scale)
    tensor.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(tensor) * factor).astype(np.float32), scale))
    onnx.save(model, tmp_path / "spoilt.onnx")
    return artifact, tmp_path / "spoilt.onnx"


def test_a_wrong_scale_is_seen_where_it_first_matters(tmp_path):
    good, bad = spoilt(tmp_path, 40)
    before = {one.tensor: one.snr_db for one in good.calibration.noise}
    after = {one.tensor: one.snr_db for one in measured(tmp_path, bad).tensors}
    assert after["image"] is None
    fallen = [name for name, value in after.items() if value is not None and value < before[name] - 20]
    assert fallen
    assert fallen[0] == next(name for name, value in before.items() if value is not None)


def test_an_emulation_that_overflows_has_the_worst_ratio(tmp_path):
    _, bad = spoilt(tmp_path, np.inf)
    told = [one.snr_db for one in measured(tmp_path, bad).tensors]
    assert WORST_DB in told


def test_a_file_that_does_not_run_is_an_error_and_in_an_artifact_a_warning(tmp_path, monkeypatch):
    onnx_nets.tiny_net(tmp_path / "tiny.onnx")
    (tmp_path / "other.onnx").write_bytes(b"no model")
    with pytest.raises(Exception, match=r"other\.onnx"):
        measured(tmp_path, tmp_path / "other.onnx")

    def fails(*_args, **_keywords):
        raise BuildError("ONNX Runtime cannot run it")

    monkeypatch.setattr("harness.precision.noise.tensor_noise", fails)
    artifact = prepared(tmp_path, tmp_path / "tiny.onnx")
    assert artifact.calibration.noise == ()
    assert "signal-to-noise ratios were not measured: ONNX Runtime cannot run it" in artifact.warnings


def test_of_a_large_model_products_alone_are_told(tmp_path):
    nodes = [helper.make_node("Flatten", ["image"], ["flat"])]
    nodes += [
        helper.make_node("Relu", [f"r{k - 1}" if k else "flat"], [f"r{k}"], name=f"/relu{k}")
        for k in range(MAX_TENSORS)
    ]
    nodes.append(helper.make_node("Gemm", [f"r{MAX_TENSORS - 1}", "w"], ["probabilities"], name="/fc", transB=1))
    weights = {"w": np.random.default_rng(0).standard_normal((10, onnx_nets.HW**2)).astype(np.float32)}
    path = save_net(tmp_path / "tiny.onnx", nodes, weights, outputs=(("probabilities", ("N", 10)),))
    artifact = prepared(tmp_path, path)
    assert [one.tensor for one in artifact.calibration.noise] == ["probabilities"]


@pytest.mark.parametrize(("model", "fall"), [("lenet5_hard", "/2/Conv_output_0"), ("lenet5", None), ("mlp", None)])
def test_of_bundled_models_only_the_hard_one_falls_and_where(tmp_path, model, fall):
    spec = load_card(Path(__file__).parents[2] / "models" / f"{model}.toml")
    images_of = calibration_set(spec, DatasetRequest(calibration_images=100))
    artifact = prepare_artifact(spec, Precision.INT8, "qdq-minmax", calibration=images_of, cache_dir=str(tmp_path))
    place = first_fall(artifact.calibration)
    assert (None if place is None else artifact.calibration.noise[place].tensor) == fall


def test_float_files_have_no_noise(tmp_path):
    artifact = prepare_artifact(
        spec_of(onnx_nets.tiny_net(tmp_path / "tiny.onnx")),
        Precision.FP16,
        "cast",
        calibration=None,
        cache_dir=str(tmp_path / "cache"),
    )
    assert artifact.calibration is None

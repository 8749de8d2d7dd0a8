"""Artifacts: what the recipes write, what the cache keeps, what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_nets
import onnxruntime
import pytest
from onnx import numpy_helper
from onnx_nets import ArraySet, images, spec_of

from harness.datasets import open_dataset
from harness.errors import BackendUnavailable, BuildError, ConfigError, DataError, Unsupported
from harness.models.onnx_graph import quantized_nodes
from harness.models.preprocess import images_from_pixels
from harness.precision import find_recipe, prepare_artifact, recipe_names
from harness.precision.recipe import NOTHING, QDQ, Conversion, Recipe
from harness.specs import ImageRange, Precision
from harness.store.cache import sha256_of_file

QDQ_RECIPES = ("qdq-minmax", "qdq-entropy", "qdq-percentile", "qdq-outputs", "qdq-search")


@pytest.fixture
def tiny(tmp_path):
    return spec_of(onnx_nets.tiny_net(tmp_path / "tiny.onnx"))


@pytest.fixture
def prepare(tmp_path):
    def run(spec, kind, recipe, *, n=60, calibration=None, **options):
        return prepare_artifact(
            spec,
            kind,
            recipe,
            calibration=calibration or (ArraySet(images(n)) if kind is Precision.INT8 else None),
            cache_dir=str(tmp_path / "cache"),
            **options,
        )

    return run


def scales(artifact):
    graph = onnx.load(artifact.onnx_path).graph
    return {t.name: numpy_helper.to_array(t) for t in graph.initializer if t.name.endswith("_scale")}


def test_recipes_are_found_in_files():
    assert recipe_names(Precision.FP32) == ("none", "given")
    assert recipe_names(Precision.FP16) == ("cast", "given")
    assert set(recipe_names(Precision.INT8)) >= {*QDQ_RECIPES, "nncf"}


def test_an_unknown_recipe_is_refused_with_near_names():
    with pytest.raises(ConfigError, match="did you mean qdq-entropy"):
        find_recipe(Precision.INT8, "qdq-entropie")
    with pytest.raises(ConfigError, match="no fp32 recipe is called 'cast'"):
        find_recipe(Precision.FP32, "cast")


def test_fp32_is_the_file_itself(tiny, prepare):
    artifact = prepare(tiny, Precision.FP32, "none")
    assert artifact.onnx_path == tiny.onnx_path
    assert artifact.sha256 == artifact.source_sha256 == tiny.sha256
    assert (artifact.weight_bits, artifact.is_qdq, artifact.calibration) == (32, False, None)


@pytest.mark.parametrize(("precision", "recipe"), [(Precision.FP32, "none"), (Precision.FP16, "cast")])
def test_the_output_that_the_card_names_is_the_only_one_of_the_file(tmp_path, prepare, precision, recipe):
    path = onnx_nets.two_headed_net(tmp_path / "two_heads.onnx")
    images = onnx_nets.images(5)
    _, expected = onnxruntime.InferenceSession(str(path)).run(None, {"image": images})
    artifact = prepare(onnx_nets.spec_of(path, output_name="probabilities"), precision, recipe)
    (output,) = onnxruntime.InferenceSession(artifact.onnx_path).run(None, {"image": images})
    np.testing.assert_allclose(output, expected, rtol=0.02, atol=0.02)
    assert artifact.source_sha256 == sha256_of_file(path)
    assert artifact.sha256 == sha256_of_file(Path(artifact.onnx_path)) != artifact.source_sha256


@pytest.mark.parametrize("names", [{"output_name": "labels"}, {"input_name": "pixels"}])
def test_a_name_in_the_card_that_the_file_lacks_is_refused_and_those_there_are_listed(tmp_path, prepare, names):
    path = onnx_nets.two_headed_net(tmp_path / "two_heads.onnx")
    ((noun, name),) = ((key.partition("_")[0], value) for key, value in names.items())
    with pytest.raises(DataError, match=f"it has no {noun} '{name}', which its card names; its {noun}s are: "):
        prepare(onnx_nets.spec_of(path, **{"output_name": "probabilities"} | names), Precision.FP32, "none")


def test_fp16_keeps_fp32_inputs_and_outputs(tiny, prepare):
    artifact = prepare(tiny, Precision.FP16, "cast")
    model = onnx.load(artifact.onnx_path)
    kinds = {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    assert kinds == {onnx.TensorProto.FLOAT}
    assert {t.data_type for t in model.graph.initializer if t.name.endswith(".w")} == {onnx.TensorProto.FLOAT16}
    assert (model.ir_version, model.opset_import[0].version) == (onnx_nets.IR, onnx_nets.OPSET)
    assert artifact.warnings == ()
    assert artifact.weight_bits == 16


def in_branches(model):
    """Return the net with all its nodes in both branches of an If; its weights stay outside."""
    (output,) = model.graph.output
    inner = onnx.helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, None)
    branches = {}
    for name in ("then_branch", "else_branch"):
        nodes = [onnx.helper.make_node("Identity", [output.name], ["inner"])]
        branches[name] = onnx.helper.make_graph([*model.graph.node, *nodes], name, [], [inner])
    del model.graph.node[:]
    model.graph.initializer.append(onnx.helper.make_tensor("yes", onnx.TensorProto.BOOL, [], [True]))
    model.graph.node.append(onnx.helper.make_node("If", ["yes"], [output.name], name="/if", **branches))
    return model


@pytest.mark.parametrize("placed", [lambda model: model, in_branches])
def test_types_that_a_file_tells_of_its_weights_do_not_outlive_them(tiny, tmp_path, prepare, placed):
    """PyTorch's exporter lists weights among the types of values; a file of other weights would contradict itself."""
    model = onnx.load(tiny.onnx_path)
    unused = np.ones(3, np.float32)  # such weights stay as they are
    model.graph.initializer.append(numpy_helper.from_array(unused, "unused"))
    told = [onnx.helper.make_tensor_value_info(one.name, one.data_type, one.dims) for one in model.graph.initializer]
    model = placed(model)
    for graph in (model.graph, *(one.g for node in model.graph.node for one in node.attribute if one.HasField("g"))):
        graph.value_info.extend(told)
    path = tmp_path / "told.onnx"
    onnx.save(model, path)
    onnx.checker.check_model(str(path), full_check=True)
    artifact = prepare(spec_of(path), Precision.FP16, "cast")
    onnx.checker.check_model(artifact.onnx_path, full_check=True)
    feeds = {"image": images(4)}
    expected, found = (onnxruntime.InferenceSession(one).run(None, feeds)[0] for one in (path, artifact.onnx_path))
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_fp16_overflow_is_reported(tmp_path, prepare):
    spec = spec_of(onnx_nets.tiny_net(tmp_path / "big.onnx", fc_scale=1e5, softmax=False))
    warnings = prepare(spec, Precision.FP16, "cast").warnings
    assert any("fc.w overflow FP16 and are clipped to 65504" in line for line in warnings)
    assert any(line.startswith("activation probabilities reaches") for line in warnings)
    assert not any("conv.w" in line for line in warnings)
    again = prepare(spec, Precision.FP16, "cast")
    assert again.cache_hit
    assert again.warnings == warnings


def test_fp16_underflow_is_reported(tmp_path, prepare):
    spec = spec_of(onnx_nets.tiny_net(tmp_path / "small.onnx", fc_scale=1e-9))
    assert any(
        "fc.w are below FP16's smallest value" in line for line in prepare(spec, Precision.FP16, "cast").warnings
    )


@pytest.mark.parametrize("recipe", QDQ_RECIPES)
def test_qdq_files_suit_tensorrt(tiny, prepare, recipe):
    """Symmetric, per-channel weights as FP32 + Q/DQ pair, FP32 bias, pairs on inputs only, same operator set."""
    artifact = prepare(tiny, Precision.INT8, recipe)
    model = onnx.load(artifact.onnx_path)
    assert (model.ir_version, model.opset_import[0].version) == (onnx_nets.IR, onnx_nets.OPSET)
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    pairs = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]
    for node in pairs:
        zero_point = constants[node.input[2]]
        assert zero_point.dtype == np.int8
        assert not zero_point.any()
    sources = {node.input[0] for node in pairs}
    assert sources == {"image", "conv.w", "f", "fc.w"} | ({"c", "g"} if recipe == "qdq-outputs" else set())
    assert constants["conv.w_scale"].shape == (4,)
    assert constants["fc.w_scale"].shape == (10,)
    assert constants["conv.b"].dtype == constants["fc.b"].dtype == constants["fc.w"].dtype == np.float32
    convolution = next(n for n in model.graph.node if n.op_type == "Conv")
    assert convolution.input[2] == "conv.b"
    assert artifact.is_qdq


def test_minmax_scales_are_the_largest_magnitude_over_127(tiny, prepare):
    calibration = images(60)
    found = scales(prepare(tiny, Precision.INT8, "qdq-minmax", calibration=ArraySet(calibration)))
    assert found["image_scale"] == pytest.approx(calibration.max() / 127, rel=1e-6)
    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(tiny.onnx_path).graph.initializer}
    np.testing.assert_allclose(found["conv.w_scale"], np.abs(weights["conv.w"]).max(axis=(1, 2, 3)) / 127, rtol=1e-6)


def test_entropy_and_percentile_are_not_minmax(tiny, prepare):
    """ONNX Runtime's default Entropy gives MinMax's scales bit for bit (onnxruntime issue 9597)."""
    batch = images(4_000)
    batch[7, 0, 4, 4] = 1.45  # one outlier, within what a card's range allows
    by_recipe = {r: scales(prepare(tiny, Precision.INT8, r, calibration=ArraySet(batch))) for r in QDQ_RECIPES[:3]}
    minmax, entropy, percentile = by_recipe.values()
    assert entropy["image_scale"] < 0.9 * minmax["image_scale"]
    assert percentile["image_scale"] < 0.9 * minmax["image_scale"]
    assert len({found["f_scale"].item() for found in by_recipe.values()}) > 1
    np.testing.assert_array_equal(entropy["fc.w_scale"], minmax["fc.w_scale"])


def test_entropy_is_real_on_a_bundled_model(bundled, prepare):
    """The same on LeNet and strokes: some activation of every net is clipped, none below a tenth of its range."""
    spec, dataset = bundled("lenet5"), open_dataset("strokes", split="train", data_dir=None)
    pixels, _ = dataset.read(0, 300)
    calibration = ArraySet(images_from_pixels(pixels, spec))
    minmax, entropy = (
        scales(prepare(spec, Precision.INT8, recipe, calibration=calibration)) for recipe in QDQ_RECIPES[:2]
    )
    ratios = {name: float(entropy[name] / minmax[name]) for name in minmax if minmax[name].ndim == 0}
    assert len(ratios) == 4
    assert min(ratios.values()) < 0.99
    assert min(ratios.values()) > 0.1
    assert max(ratios.values()) <= 1.0


@pytest.mark.parametrize("recipe", ["qdq-minmax", "qdq-entropy", "qdq-percentile", "qdq-search"])
def test_the_size_of_batches_does_not_matter(tiny, tmp_path, monkeypatch, recipe):
    """Also with a smaller last batch, on which ONNX Runtime's histogram calibrators fail."""
    found = []
    for folder, batch in (("a", 100), ("b", 7)):
        monkeypatch.setattr("harness.precision.activations.MAX_BATCH", batch)
        artifact = prepare_artifact(
            tiny,
            Precision.INT8,
            recipe,
            calibration=ArraySet(images(60)),
            cache_dir=str(tmp_path / folder),
        )
        assert artifact.calibration.batch_size == batch
        found.append(scales(artifact))
    for name, value in found[0].items():
        np.testing.assert_allclose(value, found[1][name], rtol=1e-5)


def test_reduced_range_has_7_bit_weights(tiny, prepare):
    full, reduced = (prepare(tiny, Precision.INT8, "qdq-minmax", weight_bits=bits) for bits in (8, 7))
    assert (full.weight_bits, reduced.weight_bits) == (8, 7)
    assert full.sha256 != reduced.sha256
    wide, narrow = scales(full), scales(reduced)
    np.testing.assert_allclose(narrow["fc.w_scale"], wide["fc.w_scale"] * 127 / 64, rtol=0.02)
    np.testing.assert_array_equal(narrow["image_scale"], wide["image_scale"])


def test_a_heavy_net_is_calibrated_in_small_batches(tiny, prepare, monkeypatch):
    monkeypatch.setattr("harness.precision.activations.BATCH_BYTES", 3_000)
    calibration = ArraySet(images(60))
    artifact = prepare(tiny, Precision.INT8, "qdq-minmax", calibration=calibration)
    assert artifact.calibration.batch_size == calibration.largest_batch < 60


def test_a_fixed_batch_is_filled_up(tmp_path, prepare):
    spec = spec_of(onnx_nets.tiny_net(tmp_path / "fixed.onnx", batch=8), max_batch=8)
    free = spec_of(onnx_nets.tiny_net(tmp_path / "free.onnx"))
    fixed = prepare(spec, Precision.INT8, "qdq-entropy", n=20)
    assert fixed.calibration.batch_size == 8
    for name, value in scales(prepare(free, Precision.INT8, "qdq-entropy", n=20)).items():
        np.testing.assert_allclose(scales(fixed)[name], value, rtol=1e-5)


def test_batch_norm_is_folded_before_quantizing(tmp_path, prepare):
    spec = spec_of(onnx_nets.tiny_net(tmp_path / "bn.onnx", batch_norm=True))
    model = onnx.load(prepare(spec, Precision.INT8, "qdq-minmax").onnx_path)
    assert not [n for n in model.graph.node if n.op_type == "BatchNormalization"]
    assert (model.ir_version, [(o.domain, o.version) for o in model.opset_import]) == (onnx_nets.IR, [("", 17)])
    assert [n.name for n in model.graph.node if n.op_type == "Conv"] == ["/conv/Conv"]


def test_weights_in_constant_nodes_are_quantized(tmp_path, prepare):
    model = onnx.load(onnx_nets.tiny_net(tmp_path / "tiny.onnx"))
    for tensor in list(model.graph.initializer):
        if tensor.name == "fc.w":
            node = onnx.helper.make_node("Constant", [], ["fc.w"], value=tensor)
            model.graph.initializer.remove(tensor)
            model.graph.node.insert(0, node)
    onnx.save(model, str(tmp_path / "constant.onnx"))
    assert "fc.w_scale" in scales(prepare(spec_of(tmp_path / "constant.onnx"), Precision.INT8, "qdq-minmax"))


def test_an_old_operator_set_is_raised(tmp_path, prepare):
    path = tmp_path / "old.onnx"
    model = onnx.load(onnx_nets.tiny_net(path, softmax=False))
    model.opset_import[0].version = 11
    onnx.save(model, str(path))
    artifact = prepare(spec_of(path), Precision.INT8, "qdq-minmax")
    assert onnx.load(artifact.onnx_path).opset_import[0].version == 13


@pytest.mark.parametrize(("precision", "recipe"), [(Precision.FP32, "none"), (Precision.INT8, "qdq-minmax")])
def test_what_the_source_says_of_its_export_is_noted(tmp_path, prepare, precision, recipe):
    path = tmp_path / "exported.onnx"
    model = onnx.load(onnx_nets.tiny_net(path, softmax=False))
    model.producer_name, model.producer_version, model.ir_version = "pytorch", "2.3.0", 8
    model.opset_import[0].version = 11  # quantizing raises it; the record tells of the user's file
    onnx.save(model, str(path))
    artifact = prepare(spec_of(path), precision, recipe)
    assert artifact.exported == {"exported by": "pytorch 2.3.0", "operator set": "11", "IR version": "8"}


def test_nothing_to_quantize_is_unsupported(tmp_path, prepare):
    nodes = [
        onnx.helper.make_node("Flatten", ["image"], ["f"]),
        onnx.helper.make_node("Softmax", ["f"], ["probabilities"], axis=1),
    ]
    path = onnx_nets.save_net(tmp_path / "flat.onnx", nodes, {}, outputs=(("probabilities", ("N", 64)),))
    with pytest.raises(Unsupported, match="nothing to quantize"):
        prepare(spec_of(path), Precision.INT8, "qdq-minmax")


def test_a_model_that_overflows_itself_is_refused(tmp_path, prepare):
    spec = spec_of(onnx_nets.tiny_net(tmp_path / "huge.onnx"))
    model = onnx.load(spec.onnx_path)
    for tensor in model.graph.initializer:
        if tensor.name == "conv.w":
            tensor.CopyFrom(numpy_helper.from_array(np.full((4, 1, 3, 3), 3e38, np.float32), "conv.w"))
    onnx.save(model, spec.onnx_path)
    with pytest.raises(BuildError, match="activation f becomes inf"):
        prepare(spec_of(Path(spec.onnx_path)), Precision.INT8, "qdq-minmax")


def test_calibration_images_are_checked(tiny, prepare):
    with pytest.raises(DataError, match="wrong scale"):
        prepare(tiny, Precision.INT8, "qdq-minmax", calibration=ArraySet(images(60) * 255))
    with pytest.raises(ConfigError, match="needs calibration images"):
        prepare_artifact(tiny, Precision.INT8, "qdq-minmax", calibration=None, cache_dir="unused")


def test_the_cache_goes_by_content(tiny, prepare, tmp_path):
    where = ImageRange(dataset="strokes", split="train", first=5, stop=65)
    first = prepare(tiny, Precision.INT8, "qdq-minmax", calibration_range=where)
    again = prepare(tiny, Precision.INT8, "qdq-minmax", calibration_range=where)
    assert (first.cache_hit, again.cache_hit) == (False, True)
    assert (again.sha256, again.onnx_path, again.calibration) == (first.sha256, first.onnx_path, first.calibration)
    assert first.calibration.images == where
    assert first.calibration.method == "minmax"
    others = (
        prepare(tiny, Precision.INT8, "qdq-entropy"),
        prepare(tiny, Precision.INT8, "qdq-minmax", weight_bits=7),
        prepare(tiny, Precision.INT8, "qdq-minmax", calibration=ArraySet(images(60, seed=1), "others")),
        prepare(spec_of(onnx_nets.tiny_net(tmp_path / "t.onnx", fc_scale=2.0)), Precision.INT8, "qdq-minmax"),
        prepare(tiny, Precision.INT8, "qdq-minmax", rebuild=True),
    )
    assert not any(artifact.cache_hit for artifact in others)
    assert others[-1].sha256 == first.sha256


def quantized_already(tiny, prepare, tmp_path):
    path = tmp_path / "was_int8.onnx"
    path.write_bytes(Path(prepare(tiny, Precision.INT8, "qdq-minmax").onnx_path).read_bytes())
    return spec_of(path, name="was_int8")


def test_a_file_that_was_quantized_before_runs_as_given(tiny, prepare, tmp_path):
    spec = replace(quantized_already(tiny, prepare, tmp_path), is_quantized=True)
    artifact = prepare(spec, Precision.INT8, "given")
    assert artifact.onnx_path == spec.onnx_path
    assert (artifact.is_qdq, artifact.calibration) == (False, None)
    for precision, recipe in ((Precision.FP32, "none"), (Precision.INT8, "qdq-minmax"), (Precision.FP16, "cast")):
        with pytest.raises(ConfigError, match="is not for a file that is quantized already"):
            prepare(spec, precision, recipe)


def test_what_a_card_says_of_quantization_is_held_against_the_file(tiny, prepare, tmp_path):
    with pytest.raises(DataError, match=r"is quantized already \(\d+ such nodes.*quantized = true under \[model\]"):
        prepare(quantized_already(tiny, prepare, tmp_path), Precision.FP32, "none")
    with pytest.raises(DataError, match="holds no quantized node"):
        prepare(replace(tiny, is_quantized=True), Precision.INT8, "given")
    with pytest.raises(ConfigError, match="is not for a file that is not quantized"):
        prepare(tiny, Precision.INT8, "given")


@pytest.mark.parametrize("operator", ["QLinearConv", "MatMulInteger", "DynamicQuantizeLinear", "DequantizeLinear"])
def test_operators_in_integers_are_known(operator):
    node = onnx.helper.make_node(operator, ["x"], ["y"], name="n")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["a"], ["x"]), node], "g", [], [])
    assert quantized_nodes(onnx.helper.make_model(graph)) == ("n",)


def test_the_ranges_that_calibration_led_to_are_noted(tiny, prepare):
    def ranges(n):
        return prepare(
            tiny, Precision.INT8, "qdq-minmax", calibration=ArraySet(images(60) / n, fingerprint=str(n))
        ).calibration

    one, half, again = ranges(1), ranges(2), ranges(1)
    assert len(one.ranges_sha256) == 64
    assert one.ranges_sha256 == again.ranges_sha256 != half.ranges_sha256


def test_tool_versions_are_part_of_the_key(tiny, prepare, monkeypatch):
    assert prepare(tiny, Precision.INT8, "qdq-minmax").tools["onnxruntime"]
    monkeypatch.setattr("importlib.metadata.version", lambda name: "99.0")
    newer = prepare(tiny, Precision.INT8, "qdq-minmax")
    assert not newer.cache_hit
    assert newer.tools == {"onnx": "99.0", "onnxruntime": "99.0"}


def as_initializers(model):
    return model


def as_constant_nodes(model):
    for tensor in model.graph.initializer:
        model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [tensor.name], value=tensor))
    del model.graph.initializer[:]
    return model


def in_a_subgraph(model):
    """Return the net with its weights coming out of an If."""
    names = [tensor.name for tensor in model.graph.initializer]
    branch = onnx.helper.make_graph(
        [onnx.helper.make_node("Constant", [], [f"{t.name}_b"], value=t) for t in model.graph.initializer],
        "branch",
        [],
        [onnx.helper.make_tensor_value_info(f"{t.name}_b", t.data_type, t.dims) for t in model.graph.initializer],
    )
    chosen = onnx.helper.make_node("If", ["yes"], names, then_branch=branch, else_branch=branch)
    model.graph.node.insert(0, chosen)
    del model.graph.initializer[:]
    model.graph.initializer.append(onnx.helper.make_tensor("yes", onnx.TensorProto.BOOL, [], [True]))
    return model


@pytest.mark.parametrize("placed", [as_initializers, as_constant_nodes, in_a_subgraph])
def test_external_weights_are_part_of_the_digest_wherever_they_hang(tmp_path, prepare, placed):
    path = tmp_path / "external.onnx"
    model = placed(onnx.load(onnx_nets.tiny_net(path)))
    onnx.save(
        model,
        str(path),
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
        convert_attribute=placed is not as_initializers,
    )
    own = sha256_of_file(path)
    weights = tmp_path / "weights.bin"
    spec = spec_of(path)
    before = prepare(spec, Precision.FP32, "none").sha256
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    assert sha256_of_file(path) == own
    with pytest.raises(DataError, match="the sha256 of model and external data is"):
        prepare(spec, Precision.FP32, "none")
    assert prepare(spec_of(path), Precision.FP32, "none").sha256 != before
    weights.unlink()
    with pytest.raises(DataError, match=r"weights\.bin"):
        prepare(spec, Precision.FP32, "none")


def test_bad_files_are_refused(tmp_path, prepare, tiny):
    path = tmp_path / "tiny.onnx"
    for content in (b"", b"not a protobuf at all", path.read_bytes()[:-300]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"tiny\.onnx"):
            prepare(tiny, Precision.FP16, "cast")
    path.unlink()
    with pytest.raises(DataError, match="does not exist"):
        prepare(tiny, Precision.FP32, "none")


def with_recipe(monkeypatch, **fields):
    writes = QDQ if "convert" in fields else NOTHING
    recipe = Recipe(**{"name": "odd", "precision": Precision.INT8, "summary": "", "writes": writes, **fields})
    monkeypatch.setattr("harness.precision.catalog.list_recipes", lambda: (recipe,))


def test_a_recipe_without_conversion_keeps_the_file(tiny, prepare, monkeypatch):
    """Such as a runtime that calibrates while it builds."""
    with_recipe(monkeypatch)
    artifact = prepare(tiny, Precision.INT8, "odd")
    assert (artifact.onnx_path, artifact.is_qdq) == (tiny.onnx_path, False)


def test_a_missing_tool_is_named(tiny, prepare, monkeypatch):
    with_recipe(
        monkeypatch, convert=lambda request: None, required_modules=("no_such_tool",), install_hint="pip install it"
    )
    with pytest.raises(BackendUnavailable, match="needs no_such_tool; pip install it"):
        prepare(tiny, Precision.INT8, "odd")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda request: None, "wrote no file"),
        (lambda request: onnx_nets.qdq_net(request.target, scale=0.0), "has scale 0.0"),
        (lambda request: onnx_nets.qdq_net(request.target, scale=np.nan), "has scale nan"),
        (lambda request: onnx_nets.qdq_net(request.target, scale=np.inf), "has scale inf"),
        (lambda request: onnx_nets.qdq_net(request.target, scale=-0.1), "has scale -0.1"),
        (lambda request: onnx_nets.tiny_net(request.target), "put no Q/DQ node"),
    ],
)
def test_what_a_recipe_wrote_is_checked(tiny, prepare, monkeypatch, tmp_path, write, message):
    def convert(request):
        write(request)
        return Conversion()

    with_recipe(monkeypatch, convert=convert)
    with pytest.raises(BuildError, match=message):
        prepare(tiny, Precision.INT8, "odd")
    assert not list((tmp_path / "cache").rglob("*.onnx"))


def test_nncf_gets_checked_images(tiny, prepare):
    pytest.importorskip("nncf", reason="the optional extra nncf is not installed")
    with pytest.raises(DataError, match="wrong scale"):
        prepare(tiny, Precision.INT8, "nncf", calibration=ArraySet(images(25) * 255))


def test_nncf_writes_a_qdq_file_with_7_bit_weights(tiny, prepare):
    pytest.importorskip("nncf", reason="the optional extra nncf is not installed")
    artifact = prepare(tiny, Precision.INT8, "nncf", n=25)
    assert (artifact.weight_bits, artifact.calibration.method) == (7, "nncf")
    graph = onnx.load(artifact.onnx_path).graph
    quantized = [numpy_helper.to_array(t) for t in graph.initializer if t.data_type == onnx.TensorProto.INT8 and t.dims]
    weights = [array for array in quantized if array.ndim > 1]
    assert weights
    assert max(np.abs(array.astype(int)).max() for array in weights) <= 64


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"writes": "zip"}, "expected one of qdq, cast, nothing"),
        ({"writes": QDQ}, "only one that writes something converts"),
        ({"writes": NOTHING, "convert": lambda request: None}, "only one that writes something converts"),
    ],
)
def test_a_recipe_says_what_it_writes(fields, says):
    with pytest.raises(ConfigError, match=says):
        Recipe(name="odd", precision=Precision.INT8, summary="", **fields)

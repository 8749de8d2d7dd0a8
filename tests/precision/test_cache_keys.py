"""Whatever shapes a converted file or an engine plan is in its key: every change is a miss, none a wrong hit."""

from dataclasses import asdict, fields, replace
from types import SimpleNamespace

import numpy as np
import onnx
import onnx_nets
import pytest
from onnx import helper, numpy_helper
from onnx.external_data_helper import set_external_data

from harness.backends.trt.builder import Builder
from harness.backends.trt.options import TrtOptions
from harness.datasets import fingerprint_range
from harness.models.onnx_graph import model_digest
from harness.models.preprocess import fingerprint_of_inputs
from harness.precision import find_recipe
from harness.precision.artifacts import _cache_key
from harness.precision.source import Source
from harness.specs import ModelInput, ModelOutput, ModelTensors, Precision, Preprocess
from harness.store.cache import ContentCache, key_digest

SPEC = {"layout": "NHWC", "scale": 0.5, "mean": (0.1,), "std": (2.0,), "max_batch": 8}
SIZED = {"resize": (8, 8), "fit": "letterbox"}
PREPROCESSED = (  # each another way to make the same image an input
    *(Preprocess(**{**SIZED, **more}) for more in ({}, {"pad": 0}, {"resize": (9, 8)}, {"fit": "stretch"})),
    *(Preprocess(crop=size) for size in ((4, 4), (4, 5))),
    *(Preprocess(**SIZED, **more) for more in ({"interpolation": "nearest"}, {"color": "bgr"}, {"dtype": "uint8"})),
)
CONVERTING = {
    "source_sha256": "b" * 64,
    "tools": {"onnx": "9"},
    "bits": 7,
    "calibrated_by": "other images",
    "kept_float": ("/fc/Gemm",),
}
OPTIONS = {
    "tf32": True,
    "workspace_bytes": 1 << 20,
    "optimization_level": 1,
    "tactic_sources": ("CUBLAS",),
    "version_compatible": True,
    "int8_only": True,
    "hardware_compatible": True,
    "profiles": ((1, 2, 4),),
    "plugins": ("lib.so",),
    "ranges_file": "ranges.json",
    "quantile": 0.5,
    "cutoff": 0.5,
    "calibration_batch": 50,
}
DEFAULTS = TrtOptions()
ARTIFACT = {
    "sha256": "b" * 64,
    "model": "other",
    "precision": "fp16",
    "recipe": "trt-minmax",
    "kept_float": ("/fc/Gemm",),
}
GPU = {"name": "another GPU", "compute_capability": "10.0", "driver": "600.1", "cuda_version": "13.1"}


def converted_key(spec, recipe, **changes):
    given = {"source_sha256": "a" * 64, "tools": {"onnx": "1"}, "bits": 8, "calibrated_by": "images", **changes}
    source = source_of(spec, given.pop("source_sha256"), given.pop("kept_float", ()))
    return key_digest(_cache_key(recipe, source, **given))


def source_of(spec, sha256, kept_float=()):
    return Source(spec=spec, sha256=sha256, given_sha256=sha256, exported={}, kept_float=kept_float)


INPUT = {  # of a model of any graph: what may be another of an input, its range and its name for readers aside
    "name": "y",
    "dtype": "float16",
    "shape": (1, 9),
    "batch_axis": None,
    "free_axes": (0,),
    "min_shape": (1, 2),
    "max_shape": (1, 99),
    "state": "out",
}
TENSORS = ModelTensors(
    inputs=(ModelInput(name="x", dtype="float32", shape=(1, 8), batch_axis=0, free_axes=(0, 1)),),
    outputs=(ModelOutput(name="out", batch_axis=0),),
)


def tensors_with(**changes):
    return replace(TENSORS, inputs=(replace(TENSORS.inputs[0], **changes),))


def plan_key(
    *, options=DEFAULTS, batch_sizes=(1, 8), version="10.1", module="tensorrt", images="i", tensors=None, **changes
):
    artifact = {"sha256": "a" * 64, "model": "mlp", "precision": "int8", "recipe": "trt-entropy2", "kept_float": ()}
    gpu = {"name": "a GPU", "compute_capability": "9.0", "driver": "580.1", "cuda_version": "13.0"}
    builder = SimpleNamespace(
        artifact=SimpleNamespace(**{**artifact, **{k: v for k, v in changes.items() if k in artifact}}),
        trt=options,
        api=SimpleNamespace(version=version, trt=SimpleNamespace(__name__=module)),
        calibrating=SimpleNamespace(is_asked=True),
        batch_sizes=batch_sizes,
        tensors=tensors,
    )
    device = SimpleNamespace(**{**gpu, **{k: v for k, v in changes.items() if k in gpu}})
    return key_digest(Builder.plan_key(builder, device, SimpleNamespace(fingerprint=images)))


def nets(folder):
    """Digests of a net and of others that are like it but for one thing."""
    plain = folder / "plain.onnx"
    onnx_nets.tiny_net(plain)
    yield model_digest(plain)
    model = onnx.load(plain)
    for index, tensor in enumerate(model.graph.initializer):
        changed = onnx.load(plain)
        values = numpy_helper.to_array(tensor).copy()
        values.flat[0] += 1
        changed.graph.initializer[index].CopyFrom(numpy_helper.from_array(values, tensor.name))
        onnx.save(changed, folder / f"weight{index}.onnx")
        yield model_digest(folder / f"weight{index}.onnx")
    for index, node in enumerate(model.graph.node):
        changed = onnx.load(plain)
        changed.graph.node[index].attribute.append(helper.make_attribute("of_the_test", 1))
        onnx.save(changed, folder / f"node{index}.onnx")
        yield model_digest(folder / f"node{index}.onnx")
        del node
    onnx_nets.tiny_net(folder / "batch.onnx", batch=4)  # the same names, another shape
    yield model_digest(folder / "batch.onnx")
    for byte in (0, 1):  # data of a Constant node, in a file beside the model
        changed = onnx.load(plain)
        tensor = numpy_helper.from_array(np.zeros(4, np.float32), "outside")
        set_external_data(tensor, location=f"data{byte}")
        tensor.ClearField("raw_data")
        changed.graph.node.append(helper.make_node("Constant", [], ["outside"], value=tensor))
        (folder / f"data{byte}").write_bytes(bytes([byte] * 16))
        onnx.save(changed, folder / f"constant{byte}.onnx")
        yield model_digest(folder / f"constant{byte}.onnx")


class Images:
    """A data set of which one pixel or label may be another."""

    def __init__(self, *, pixel=None, label=None):
        self.pixels, self.labels = np.zeros((3, 2, 2), np.uint8), np.zeros(3, np.int64)
        if pixel is not None:
            self.pixels.flat[pixel] = 1
        if label is not None:
            self.labels[label] = 1
        self.name = self.split = "set"
        self.n_images = 3

    def read(self, first, stop):
        return self.pixels[first:stop], self.labels[first:stop]


@pytest.fixture
def keys(tmp_path):
    """Each of the groups whose keys must all differ."""
    spec = onnx_nets.spec_of(onnx_nets.tiny_net(tmp_path / "tiny.onnx"))
    minmax = find_recipe(Precision.INT8, "qdq-minmax")
    converted = [converted_key(spec, minmax)]
    converted += [converted_key(replace(spec, **{name: value}), minmax) for name, value in SPEC.items()]
    converted += [converted_key(spec, minmax, **{name: value}) for name, value in CONVERTING.items()]
    recipes = ("qdq-entropy", "qdq-percentile", "qdq-outputs")
    converted += [converted_key(spec, find_recipe(Precision.INT8, name)) for name in recipes]
    converted += [converted_key(spec, replace(minmax, revision=99))]
    plans = [plan_key()]
    assert set(OPTIONS) == set(asdict(TrtOptions())), "every option of the builder is in the key"
    plans += [plan_key(options=replace(TrtOptions(), **{name: value})) for name, value in OPTIONS.items()]
    plans += [plan_key(**{name: value}) for name, value in {**ARTIFACT, **GPU}.items()]
    plans += [plan_key(batch_sizes=(1,)), plan_key(version="10.2"), plan_key(module="tensorrt_rtx")]
    plans += [plan_key(images="other images"), plan_key(tensors=TENSORS)]
    assert set(INPUT) | {"low", "high"} == {field.name for field in fields(ModelInput)}
    plans += [plan_key(tensors=tensors_with(**{name: value})) for name, value in INPUT.items()]
    plans += [plan_key(tensors=replace(TENSORS, inputs=TENSORS.inputs * 2))]
    sets = [Images(), *(Images(pixel=at) for at in range(12)), *(Images(label=at) for at in range(3))]
    calibration = [fingerprint_range(found, 0, 3) for found in sets] + [fingerprint_range(sets[0], 0, 2)]
    inputs = [fingerprint_of_inputs("stored", spec), fingerprint_of_inputs("other", spec)]
    inputs += [fingerprint_of_inputs("stored", replace(spec, **{n: v})) for n, v in SPEC.items() if n != "max_batch"]
    inputs += [fingerprint_of_inputs("stored", replace(spec, preprocess=one)) for one in PREPROCESSED]
    calibration += inputs
    return {"converted": converted, "plans": plans, "models": list(nets(tmp_path)), "calibration": calibration}


def test_sixty_changes_are_sixty_misses(keys):
    for name, group in keys.items():
        assert len(set(group)) == len(group), name
    assert sum(len(group) - 1 for group in keys.values()) >= 60


def test_what_is_unchanged_is_a_hit(tmp_path):
    spec = onnx_nets.spec_of(onnx_nets.tiny_net(tmp_path / "tiny.onnx"))
    minmax = find_recipe(Precision.INT8, "qdq-minmax")
    assert converted_key(spec, minmax) == converted_key(spec, minmax)
    assert plan_key() == plan_key()
    key = _cache_key(minmax, source_of(spec, "a"), tools={}, bits=8, calibrated_by="")
    ContentCache(tmp_path, "artifacts").put(key, b"model", name="m", meta={})
    assert ContentCache(tmp_path, "artifacts").lookup(dict(key)).state == "hit"

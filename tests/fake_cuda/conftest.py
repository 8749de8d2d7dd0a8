"""What the checks on the fake driver share. They run in a process of their own: see tests/backends/test_trt_run.py."""

import ctypes
import importlib.util
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness.backends.trt.adapter import TrtBackend
from harness.records import Artifact
from harness.specs import BuildOptions, ModelInput, ModelOutput, ModelTensors, Precision

SHAPE, CLASSES = (-1, 1, 28, 28), 5


def pytest_configure(config):
    config.addinivalue_line("markers", "loses_the_device: ends with a broken context, so nothing can be freed")


@pytest.fixture(scope="session")
def driver():
    return ctypes.CDLL("libcuda.so.1")


@pytest.fixture
def no_leak(driver, request):
    """Everything allocated in a test is freed in it, and the context stack is empty again."""
    # PyCUDA frees streams and events with their last reference, which a failed call's frames may hold past the end of
    # the context: then they go with it.
    kinds = (0, 1, 4, 5) if importlib.util.find_spec("pycuda") else range(6)
    before = [driver.fake_live(kind) for kind in kinds]
    yield
    if request.node.get_closest_marker("loses_the_device"):
        return
    assert driver.fake_depth() == 0
    assert [driver.fake_live(kind) for kind in kinds] == before


@pytest.fixture
def backend():
    return TrtBackend("trt", "fake_tensorrt", "pip install nothing")


@pytest.fixture
def write_model(tmp_path):
    def write(name="net", **changes):
        path = tmp_path / f"{name}.onnx"
        path.write_text(json.dumps({"shape": SHAPE, "classes": CLASSES, **changes}))
        return path

    return write


@pytest.fixture
def make_artifact(write_model):
    def make(precision="fp32", recipe="none", sha256="a" * 64, path=None, kept_float=(), **changes):
        path = path or write_model(**changes)
        return Artifact(
            model="net",
            precision=Precision(precision),
            recipe=recipe,
            onnx_path=str(path),
            sha256=sha256,
            source_sha256="a" * 64,
            kept_float=kept_float,
        )

    return make


@pytest.fixture
def build(backend, make_artifact, tmp_path):
    """Build an engine; keyword arguments are options of TensorRT besides those named."""

    def make(artifact=None, *, batch_sizes=(1, 4), calibration=None, rebuild=False, device="cuda:0", tf32=False, **trt):
        settings = {"cuda": {"tf32": tf32}, "trt": trt}
        options = BuildOptions(cache_dir=str(tmp_path / "cache"), rebuild=rebuild, settings=settings)
        return backend.build(
            artifact or make_artifact(),
            device=device,
            batch_sizes=batch_sizes,
            options=options,
            calibration=calibration,
        )

    return make


GRAPH = {
    "inputs": {"ids": ["INT32", [-1, 6]], "mask": ["BOOL", [-1, 6]], "shift": ["FLOAT", [-1, 6]]},
    "outputs": {
        "shifted": ["FLOAT", "ids", "shift"],
        "kept": ["INT32", "ids", "mask"],
        "odd": ["BOOL", "mask", "mask"],
    },
}


def model_tensors(**changes):
    """Return what the file of GRAPH says: whole numbers of 64 bits, which TensorRT 8.6 takes as 32."""
    ids = ModelInput(name="ids", dtype="int64", shape=(1, 6), batch_axis=0, free_axes=(0,), low=-9, high=9)
    mask = ModelInput(name="mask", dtype="bool", shape=(1, 6), batch_axis=0, free_axes=(0,))
    shift = ModelInput(name="shift", dtype="float32", shape=(1, 6), batch_axis=0, free_axes=(0,))
    given = {"ids": ids, "mask": mask, "shift": shift}
    inputs = tuple(replace(one, **changes.get(name, {})) for name, one in given.items())
    outputs = tuple(ModelOutput(name=name, batch_axis=0) for name in GRAPH["outputs"])
    return ModelTensors(inputs=inputs, outputs=outputs)


def feeds_of(n_samples, seed=0, width=6):
    generator = np.random.default_rng(seed)
    return {
        "ids": generator.integers(-99, 99, (n_samples, width)),
        "mask": generator.integers(0, 2, (n_samples, width)).astype(bool),
        "shift": generator.random((n_samples, width), np.float32),
    }


def sums_of(feeds):
    ids, mask = feeds["ids"], feeds["mask"]
    return {"shifted": (ids + feeds["shift"]).astype(np.float32), "kept": (ids + mask).astype(np.int32), "odd": mask}


@pytest.fixture
def build_graph(backend, make_artifact, write_model, tmp_path):
    """Build an engine of GRAPH; `model` changes the file, keyword arguments are options of TensorRT."""

    def make(*, tensors=None, model=None, batch_sizes=(1, 4), recipe="none", precision="fp32", load=None, **trt):
        path = write_model("graph", **{**GRAPH, **(model or {})})
        artifact = make_artifact(path=path, recipe=recipe, precision=precision)
        options = BuildOptions(
            cache_dir=str(tmp_path / "cache"), settings={"trt": trt}, tensors=tensors or model_tensors()
        )
        if load is not None:
            return backend.load(load, artifact, device="cuda:0", options=options)
        return backend.build(artifact, device="cuda:0", batch_sizes=batch_sizes, options=options)

    return make


@pytest.fixture
def images():
    def make(n_images, seed=0):
        return np.random.default_rng(seed).random((n_images, *SHAPE[1:]), dtype=np.float32)

    return make


@pytest.fixture
def expected():
    def outputs(images):
        means = images.reshape(len(images), -1).mean(axis=1, dtype=np.float64)
        classes = np.arange(CLASSES)
        return (means[:, None] * (classes + 1) + classes).astype(np.float32)

    return outputs


@pytest.fixture
def environment(monkeypatch):
    """Set a variable that the C code reads."""

    def put(name, value):
        monkeypatch.setenv(name, value)
        assert os.environ[name] == value

    return put

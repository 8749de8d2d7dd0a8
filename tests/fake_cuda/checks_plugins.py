"""Plug-in libraries on the fake TensorRT: a plan that holds a plug-in layer is built, cached and loaded again."""

import json
import subprocess
import sys

import fake_tensorrt
import pytest

from harness.backends.trt import build as trt_build
from harness.backends.trt.adapter import TrtBackend
from harness.errors import BuildError
from harness.records import Artifact
from harness.specs import BuildOptions, Precision

SOURCE = "void *getPluginCreators(void) { return 0; }\n"


@pytest.fixture(autouse=True)
def a_registry_of_its_own(monkeypatch):
    """As in a new process: nothing is registered, nothing is known to be."""
    monkeypatch.setattr(fake_tensorrt, "plugin_layers", [])
    monkeypatch.setattr(trt_build, "_plugins", {})


@pytest.fixture
def library(tmp_path):
    """A library made for the registry's own loader; the fake registry names its one layer after the file."""
    source, library = tmp_path / "own.c", tmp_path / "libOwnLayer.so"
    source.write_text(SOURCE)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return str(library)


def build_here(model, cache, plugins, rebuild=False):
    """Build an engine and return what its facts say of cache and plug-ins."""
    artifact = Artifact(
        model="net", precision=Precision.FP32, recipe="none", onnx_path=str(model), sha256="d" * 64, source_sha256=""
    )
    options = BuildOptions(cache_dir=str(cache), rebuild=rebuild, settings={"trt": {"plugins": tuple(plugins)}})
    backend = TrtBackend("trt", "fake_tensorrt", "pip install nothing")
    with backend.build(artifact, device="cuda:0", batch_sizes=(1, 4), options=options) as engine:
        return {"cache": engine.facts.cache, "notes": [note for note in engine.facts.notes if "plug-in" in note]}


def build_in_a_fresh_process(model, cache, plugins):
    command = [sys.executable, __file__, str(model), str(cache), *plugins]
    child = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert child.returncode == 0, child.stderr[-2000:]
    return json.loads(child.stdout)


def test_a_cached_plan_with_a_plugin_layer_is_loaded_by_a_fresh_process(write_model, tmp_path, library):
    model = write_model(plugin="OwnLayer")
    found = [build(model, tmp_path / "cache", [library]) for build in (build_here, build_in_a_fresh_process)]
    assert [one["cache"] for one in found] == ["miss", "hit"]
    assert found[0]["notes"] == found[1]["notes"] == ["plug-in libOwnLayer.so: 1 layer types registered"]


@pytest.mark.usefixtures("no_leak")
def test_a_library_is_taken_once_by_a_process_that_builds_twice(write_model, tmp_path, library):
    model = write_model(plugin="OwnLayer")
    found = [build_here(model, tmp_path / "cache", [library], rebuild=rebuild) for rebuild in (False, True)]
    assert [one["cache"] for one in found] == ["miss", "rebuilt"]
    assert found[0]["notes"] == found[1]["notes"] == ["plug-in libOwnLayer.so: 1 layer types registered"]
    assert fake_tensorrt.plugin_layers == ["OwnLayer"]


@pytest.mark.usefixtures("no_leak")
def test_a_layer_without_its_library_is_named(write_model, tmp_path):
    with pytest.raises(BuildError, match="AbsentLayer"):
        build_here(write_model(plugin="AbsentLayer"), tmp_path / "cache", [])


@pytest.mark.usefixtures("no_leak")
def test_a_library_that_the_registry_refuses_is_named(write_model, tmp_path, library, monkeypatch):
    monkeypatch.setattr(fake_tensorrt, "plugin_layers", ["OwnLayer"])  # another library holds the same layer
    with pytest.raises(BuildError, match=r"libOwnLayer.so: TensorRT refused it"):
        build_here(write_model(), tmp_path / "cache", [library])


if __name__ == "__main__":
    print(json.dumps(build_here(sys.argv[1], sys.argv[2], sys.argv[3:])))

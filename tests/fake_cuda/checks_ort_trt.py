"""The ort-trt adapter on the fake driver; sessions are ONNX Runtime's own on the CPU, posing as TensorRT and CUDA."""

import json
import sys
import types
from dataclasses import replace
from pathlib import Path

import checks_ort_cuda as cuda
import numpy as np
import onnxruntime
import pytest
from checks_ort_cuda import artifact, batch  # noqa: F401 - a fixture

from harness.backends.ort_trt import BACKEND
from harness.backends.ort_trt.session import CUDA, PROVIDER
from harness.errors import BuildError, ConfigError
from harness.precision.effective import effective_precision
from harness.specs import BuildOptions, Precision

pytestmark = pytest.mark.usefixtures("no_leak")


class _Session(cuda._Session):
    """TensorRT takes what is not in `left`, as one kernel; CUDA the rest."""

    left = ()
    asked = None
    loads = True

    def __init__(self, path, options, providers):
        (self._trt_name, self._trt), cuda_provider = providers
        assert self._trt_name == PROVIDER
        _Session.asked = self._trt
        super().__init__(path, options, [cuda_provider])

    def get_providers(self):
        return [PROVIDER, CUDA] if self.loads else [CUDA]

    def get_provider_options(self):
        return {PROVIDER: self._trt, CUDA: self._cuda}

    def end_profiling(self):
        path = Path(super().end_profiling())
        kept, subgraph = [], None
        for event in json.loads(path.read_text()):
            name = event["name"].removesuffix("_kernel_time")
            if event.get("cat") != "Node" or name in (*self.left, *self.on_cpu):
                kept.append(event)
            elif event["name"].endswith("_kernel_time"):
                subgraph = dict(event, name="TensorrtExecutionProvider_TRTKernel_graph_g_1_0_0_kernel_time")
                subgraph["args"] = dict(event["args"], provider=PROVIDER, op_name="TRTKernel_graph_g_1_0")
                if not kept or kept[-1].get("args", {}).get("provider") != PROVIDER:
                    kept.append(subgraph)
        path.write_text(json.dumps(kept))
        return str(path)


@pytest.fixture
def engine(artifact, monkeypatch, tmp_path):  # noqa: F811
    monkeypatch.setattr(onnxruntime, "InferenceSession", _Session)
    monkeypatch.setitem(sys.modules, "tensorrt", types.SimpleNamespace(__version__="10.9"))

    def make(given=None, *, options=None, **habits):
        for name, value in habits.items():
            monkeypatch.setattr(_Session, name, value)
        options = options or BuildOptions(cache_dir=str(tmp_path / "cache"))
        return BACKEND.build(given or artifact, device="cuda:0", batch_sizes=(1, 4), options=options)

    return make


def test_batches_run_on_our_stream(engine, expected):
    batches = [batch(4, k) for k in range(9)] + [batch(3, 9)]
    with engine() as ours:
        outputs = list(ours.infer_stream(batches))
    for images, output in zip(batches, outputs, strict=True):
        assert np.allclose(output, expected(images), rtol=1e-5)


def test_a_subgraph_is_told_as_its_nodes_whose_precision_is_unknown(engine):
    with engine() as ours:
        layers = ours.layers()
        assert {layer.name for layer in layers} == {"flat", "matmul"}
        assert {layer.precision for layer in layers} == {""}
        assert effective_precision(layers, Precision.FP32).by_layer == {"unknown": 1.0}
        assert "TensorRT took 2 of 2 nodes" in ours.facts.notes


def test_nodes_that_fall_back_to_cuda_are_named(engine):
    with engine(left=("matmul",)) as ours:
        assert "TensorRT took 1 of 2 nodes; others run: matmul (MatMul)" in ours.facts.notes
        assert effective_precision(ours.layers(), Precision.FP32).by_layer == {"fp32": 1.0}
        assert ours.on_cpu == ()


def test_a_run_is_enqueued_and_never_captured(engine):
    with engine() as ours:
        timer = ours.timer(batch(4), window="compute", launch="auto")
        assert (timer.launch, timer.gated) == ("enqueue", False)
        with pytest.raises(ConfigError, match="allocates within a run; use the launch 'enqueue'"):
            ours.timer(batch(4), window="compute", launch="graph")


def test_plans_are_kept_by_artifact_and_versions(engine, monkeypatch, tmp_path):
    folders = []
    for version in ("10.9", "10.9", "10.10"):
        monkeypatch.setitem(sys.modules, "tensorrt", types.SimpleNamespace(__version__=version))
        with engine() as ours:
            folders.append(_Session.asked["trt_engine_cache_path"])
            assert ours.facts.options["provider"] == PROVIDER
            assert ours.facts.options["trt_fp16_enable"] == "0"
    assert folders[0] == folders[1] != folders[2]
    assert all(Path(folder).is_dir() for folder in folders)
    (Path(folders[0]) / "old.engine").write_bytes(b"plan")
    monkeypatch.setitem(sys.modules, "tensorrt", types.SimpleNamespace(__version__="10.9"))
    with engine(options=BuildOptions(cache_dir=str(tmp_path / "cache"), rebuild=True)):
        assert not list(Path(folders[0]).iterdir())
    with engine(options=BuildOptions()):
        assert "trt_engine_cache_path" not in _Session.asked


@pytest.mark.parametrize(("precision", "flags"), [(Precision.FP16, ("1", "0")), (Precision.INT8, ("0", "1"))])
def test_a_precision_is_allowed_to_tensorrt(engine, artifact, precision, flags):  # noqa: F811
    with engine(replace(artifact, precision=precision)) as ours:
        options = ours.facts.options
        assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == flags


def test_a_provider_that_does_not_load_is_refused(engine):
    with pytest.raises(BuildError, match="asked for TensorrtExecutionProvider, ONNX Runtime took"):
        engine(loads=False)

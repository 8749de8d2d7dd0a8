"""What every backend promises, one function a clause; each takes a backend and a folder of nets."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_nets
import pytest

from harness.errors import BuildError, ConfigError, DataError, MeasurementError
from harness.precision.effective import effective_precision
from harness.protocols import KeepsOutputs, RunsConcurrently
from harness.specs import BuildOptions, Case, Precision

BATCHES = (1, 4)
N = 4
TOLERANCE = 1e-5  # of float32 sums in another order


@dataclass(frozen=True)
class Nets:
    """The nets a clause may build."""

    folder: Path

    def artifact(self, kind):
        path = self.folder / f"{kind}.onnx"
        if not path.exists():
            self._write(kind, path)
        return onnx_nets.artifact_of(path)

    def _write(self, kind, path):
        if kind == "tiny":
            onnx_nets.tiny_net(path)
        elif kind == "identity":
            onnx_nets.identity_net(path)
        elif kind == "two_inputs":
            onnx_nets.two_input_net(path)
        elif kind == "scale_zero":
            onnx_nets.qdq_net(path, scale=0.0)
        elif kind == "truncated":
            path.write_bytes(onnx_nets.tiny_net(path).read_bytes()[:-400])
        else:
            assert kind == "missing"


def build(backend, nets, kind="tiny"):
    options = BuildOptions(cache_dir=str(nets.folder / "cache"))  # a converter runs once a net, not once a clause
    return backend.build(nets.artifact(kind), device="cpu", batch_sizes=BATCHES, options=options)


def refuses(engine, batch):
    with pytest.raises(MeasurementError):
        engine.infer(batch)


def probe_names_devices(backend, nets):
    found = backend.probe()
    assert found.usable
    assert found.devices
    assert found.versions
    assert found.backend == backend.name


def other_device_refused(backend, nets):
    case = Case(model="tiny", backend=backend.name, precision=Precision.FP32, recipe="none", device="tpu:7")
    support = backend.supports(case)
    assert not support.supported
    assert support.reason


def identity_is_exact(backend, nets):
    batch = onnx_nets.images(N)
    with build(backend, nets, "identity") as engine:
        np.testing.assert_array_equal(engine.infer(batch), batch.reshape(N, -1))


def batch_agrees_with_singles(backend, nets):
    batch = onnx_nets.images(N)
    with build(backend, nets) as engine:
        singles = np.concatenate([engine.infer(batch[i : i + 1]) for i in range(N)])
        np.testing.assert_allclose(engine.infer(batch), singles, atol=TOLERANCE, rtol=0)


def other_batch_agrees(backend, nets):
    batch = onnx_nets.images(7)
    with build(backend, nets) as engine:
        singles = np.concatenate([engine.infer(batch[i : i + 1]) for i in range(7)])
        np.testing.assert_allclose(engine.infer(batch), singles, atol=TOLERANCE, rtol=0)


def same_input_same_output(backend, nets):
    batch = onnx_nets.images(N)
    with build(backend, nets) as engine:
        np.testing.assert_array_equal(engine.infer(batch), engine.infer(batch))


def outputs_are_fresh(backend, nets):
    with build(backend, nets) as engine:
        first = engine.infer(onnx_nets.images(N, seed=1))
        kept = first.copy()
        second = engine.infer(onnx_nets.images(N, seed=2))
        assert not np.shares_memory(first, second)
        np.testing.assert_array_equal(first, kept)


def input_is_untouched(backend, nets):
    batch = onnx_nets.images(N)
    with build(backend, nets) as engine:
        engine.infer(batch)
    np.testing.assert_array_equal(batch, onnx_nets.images(N))


def strided_input_is_read_right(backend, nets):
    wide = onnx_nets.images(2 * N)
    with build(backend, nets, "identity") as engine:
        np.testing.assert_array_equal(engine.infer(wide[::2]), wide[::2].reshape(N, -1))


def metadata_matches_model(backend, nets):
    with build(backend, nets) as engine:
        assert (engine.input.name, engine.input.dtype, engine.input.shape[1:]) == ("image", "float32", (1, 8, 8))
        assert (engine.output.name, engine.output.dtype, engine.output.shape[1:]) == ("probabilities", "float32", (10,))
        outputs = engine.infer(onnx_nets.images(N))
        assert (outputs.dtype, outputs.shape) == (np.float32, (N, 10))


def wrong_rank_refused(backend, nets):
    with build(backend, nets) as engine:
        refuses(engine, onnx_nets.images(N)[:, 0])


def wrong_shape_refused(backend, nets):
    with build(backend, nets) as engine:
        engine.infer(onnx_nets.images(N))  # a previous result that could be returned again
        refuses(engine, np.zeros((N, 1, 8, 9), np.float32))


def wrong_dtype_refused(backend, nets):
    with build(backend, nets) as engine:
        refuses(engine, onnx_nets.images(N).astype(np.float64))


def nan_input_refused(backend, nets):
    batch = onnx_nets.images(N)
    batch[2, 0, 3, 3] = np.nan
    with build(backend, nets) as engine:
        refuses(engine, batch)


def empty_batch_refused(backend, nets):
    with build(backend, nets) as engine:
        refuses(engine, onnx_nets.images(0))


def closed_engine_refuses(backend, nets):
    engine = build(backend, nets)
    engine.close()
    refuses(engine, onnx_nets.images(N))


def closing_twice_is_fine(backend, nets):
    engine = build(backend, nets)
    engine.close()
    engine.close()


def leaving_closes(backend, nets):
    with build(backend, nets) as engine:
        engine.infer(onnx_nets.images(N))
    refuses(engine, onnx_nets.images(N))


def missing_file_is_build_error(backend, nets):
    with pytest.raises(BuildError, match=r"missing\.onnx"):
        build(backend, nets, "missing")


def damaged_file_refused(backend, nets):
    with pytest.raises((BuildError, DataError)):
        build(backend, nets, "truncated")


def two_inputs_refused(backend, nets):
    with pytest.raises(BuildError):
        build(backend, nets, "two_inputs")


def bad_scale_refused(backend, nets):
    with pytest.raises(BuildError, match="scale"):
        build(backend, nets, "scale_zero")


def facts_are_filled(backend, nets):
    with build(backend, nets) as engine:
        assert engine.facts.build_ns > 0
        assert engine.facts.versions
        assert engine.facts.options


def layers_are_read_back(backend, nets):
    with build(backend, nets) as engine:
        assert engine.layers()


def precision_is_as_asked(backend, nets):
    with build(backend, nets) as engine:
        assert effective_precision(engine.layers(), Precision.FP32).by_layer == {"fp32": 1.0}


def layers_name_onnx_nodes(backend, nets):
    with build(backend, nets) as engine:
        assert "/fc/Gemm" in {node for layer in engine.layers() for node in layer.onnx_nodes}


def stream_keeps_order(backend, nets):
    batches = [onnx_nets.images(N, seed=1), onnx_nets.images(N, seed=2), onnx_nets.images(3, seed=3)]
    with build(backend, nets) as engine:
        streamed = list(engine.infer_stream(iter(batches)))
        assert [len(outputs) for outputs in streamed] == [N, N, 3]
        for outputs, batch in zip(streamed, batches, strict=True):
            np.testing.assert_array_equal(outputs, engine.infer(batch))


def timer_gives_as_many_as_asked(backend, nets):
    with build(backend, nets) as engine:
        timer = engine.timer(onnx_nets.images(N), window="compute", launch="auto")
        timer.calls_per_sample = 3
        assert timer.sample(5).shape == (5,)


def timer_is_positive(backend, nets):
    with build(backend, nets) as engine:
        for window in ("compute", "end_to_end"):
            samples = engine.timer(onnx_nets.images(1), window=window, launch="auto").sample(3)
            assert np.isfinite(samples).all()
            assert (samples > 0).all()


def timer_says_what_it_times(backend, nets):
    with build(backend, nets) as engine:
        for window in ("compute", "end_to_end"):
            timer = engine.timer(onnx_nets.images(N), window=window, launch="auto")
            assert (timer.batch_size, timer.window, timer.calls_per_sample) == (N, window, 1)
            assert timer.clock in ("host", "cuda_event")


def timer_shows_what_it_computes(backend, nets):
    images = onnx_nets.images(N)
    with build(backend, nets) as engine:
        for window in ("compute", "end_to_end"):
            timer = engine.timer(images, window=window, launch="auto")
            for _ in range(2):
                timer.sample(2)
                if isinstance(timer, KeepsOutputs) and (outputs := timer.outputs()) is not None:
                    np.testing.assert_allclose(outputs, engine.infer(images), rtol=1e-3, atol=1e-5)


def contexts_give_the_outputs_of_infer(backend, nets):
    images = onnx_nets.images(N)
    with build(backend, nets) as engine:
        if not isinstance(engine, RunsConcurrently):
            return
        assert engine.concurrency
        contexts = engine.contexts(images, 2)
        with ThreadPoolExecutor(2) as pool:
            for _ in range(20):
                list(pool.map(lambda context: context.run(), contexts))
        for context in contexts:
            if (outputs := context.outputs()) is not None:
                np.testing.assert_allclose(outputs, engine.infer(images), rtol=1e-3, atol=1e-5)


def unknown_window_refused(backend, nets):
    with build(backend, nets) as engine, pytest.raises(ConfigError):
        engine.timer(onnx_nets.images(N), window="sometimes", launch="auto")


CLAUSES = tuple(
    clause
    for name, clause in sorted(globals().items())
    if callable(clause) and getattr(clause, "__module__", "") == __name__ and name not in ("Nets", "build", "refuses")
)
# A fault that has no clause of its own name breaks this one.
CLAUSE_OF_FAULT = {"previous_result": "wrong_shape_refused"}
# The reference evaluator has one engine for all batches, so no fault of the fake breaks it.
UNBREAKABLE = ("other_batch_agrees",)

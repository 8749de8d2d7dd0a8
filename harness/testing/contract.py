"""What every backend promises, one function a clause, whose name says it; each takes a backend and a folder of nets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from harness.errors import BuildError, ConfigError, DataError, MeasurementError
from harness.models.feeds import seeded_feeds
from harness.precision.effective import effective_precision
from harness.protocols import (
    Backend,
    Context,
    Engine,
    KeepsOutputs,
    QueuedContext,
    RunsConcurrently,
    RunsTensors,
    RunsTensorsConcurrently,
    Tensors,
)
from harness.records import Artifact
from harness.specs import BuildOptions, Case, Precision
from harness.testing.nets import (
    artifact_of,
    graph_net,
    graph_outputs,
    graph_tensors,
    identity_net,
    images,
    qdq_net,
    tiny_net,
    two_input_net,
)

BATCHES = (1, 4)
N = 4
TOLERANCE = 1e-5  # of float32 sums in another order
Clause = Callable[[Backend, "Nets"], None]


@dataclass(frozen=True)
class Nets:
    """The nets that clauses build, each written once into a folder."""

    folder: Path

    def artifact(self, kind: str) -> Artifact:
        """Return a net by its kind; `missing` has no file."""
        path = self.folder / f"{kind}.onnx"
        if not path.exists():
            self._write(kind, path)
        return artifact_of(path)

    def _write(self, kind: str, path: Path) -> None:
        if kind == "tiny":
            tiny_net(path)
        elif kind == "identity":
            identity_net(path)
        elif kind == "two_inputs":
            two_input_net(path)
        elif kind == "graph":
            graph_net(path)
        elif kind == "scale_zero":
            qdq_net(path, scale=0.0)
        elif kind == "truncated":
            path.write_bytes(tiny_net(path).read_bytes()[:-400])
        else:
            assert kind == "missing"


def _build(backend: Backend, nets: Nets, kind: str = "tiny") -> Engine:
    options = BuildOptions(cache_dir=str(nets.folder / "cache"))  # a converter runs once a net, not once a clause
    return backend.build(nets.artifact(kind), device="cpu", batch_sizes=BATCHES, options=options)


@contextmanager
def _graph(backend: Backend, nets: Nets) -> Iterator[RunsTensors | None]:
    """Open an engine of named inputs, None where the backend's take images alone."""
    with _build(backend, nets) as engine:
        runs_tensors = isinstance(engine, RunsTensors)
    if not runs_tensors:
        yield None
        return
    options = BuildOptions(cache_dir=str(nets.folder / "cache"), tensors=graph_tensors())
    with backend.build(nets.artifact("graph"), device="cpu", batch_sizes=(1,), options=options) as engine:
        assert isinstance(engine, RunsTensors)
        yield engine


def _agree(found: Tensors, feeds: Tensors) -> None:
    expected = graph_outputs(feeds)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(np.asarray(found[name], np.float64), array, rtol=1e-5, atol=1e-6)


def _run_at_once(contexts: Sequence[Context]) -> None:
    """Run all contexts at once, 20 times."""
    queued = [context for context in contexts if isinstance(context, QueuedContext)]
    with ThreadPoolExecutor(len(contexts)) as pool:
        for _ in range(20):
            for one in queued:
                one.begin()
            for one in queued:
                one.wait()
            if not queued:
                list(pool.map(lambda context: context.run(), contexts))


def _refuses(engine: Engine, batch: np.ndarray) -> None:
    with pytest.raises(MeasurementError):
        engine.infer(batch)


def probe_names_devices(backend: Backend, nets: Nets) -> None:
    found = backend.probe()
    assert found.usable
    assert found.devices
    assert found.versions
    assert found.backend == backend.name


def other_device_refused(backend: Backend, nets: Nets) -> None:
    case = Case(model="tiny", backend=backend.name, precision=Precision.FP32, recipe="none", device="tpu:7")
    support = backend.supports(case)
    assert not support.supported
    assert support.reason


def identity_is_exact(backend: Backend, nets: Nets) -> None:
    batch = images(N)
    with _build(backend, nets, "identity") as engine:
        np.testing.assert_array_equal(engine.infer(batch), batch.reshape(N, -1))


def batch_agrees_with_singles(backend: Backend, nets: Nets) -> None:
    batch = images(N)
    with _build(backend, nets) as engine:
        singles = np.concatenate([engine.infer(batch[i : i + 1]) for i in range(N)])
        np.testing.assert_allclose(engine.infer(batch), singles, atol=TOLERANCE, rtol=0)


def other_batch_agrees(backend: Backend, nets: Nets) -> None:
    batch = images(7)
    with _build(backend, nets) as engine:
        singles = np.concatenate([engine.infer(batch[i : i + 1]) for i in range(7)])
        np.testing.assert_allclose(engine.infer(batch), singles, atol=TOLERANCE, rtol=0)


def same_input_same_output(backend: Backend, nets: Nets) -> None:
    batch = images(N)
    with _build(backend, nets) as engine:
        np.testing.assert_array_equal(engine.infer(batch), engine.infer(batch))


def outputs_are_fresh(backend: Backend, nets: Nets) -> None:
    with _build(backend, nets) as engine:
        first = engine.infer(images(N, seed=1))
        kept = first.copy()
        second = engine.infer(images(N, seed=2))
        assert not np.shares_memory(first, second)
        np.testing.assert_array_equal(first, kept)


def input_is_untouched(backend: Backend, nets: Nets) -> None:
    batch = images(N)
    with _build(backend, nets) as engine:
        engine.infer(batch)
    np.testing.assert_array_equal(batch, images(N))


def strided_input_is_read_right(backend: Backend, nets: Nets) -> None:
    wide = images(2 * N)
    with _build(backend, nets, "identity") as engine:
        np.testing.assert_array_equal(engine.infer(wide[::2]), wide[::2].reshape(N, -1))


def metadata_matches_model(backend: Backend, nets: Nets) -> None:
    with _build(backend, nets) as engine:
        assert (engine.input.name, engine.input.dtype, engine.input.shape[1:]) == ("image", "float32", (1, 8, 8))
        assert (engine.output.name, engine.output.dtype, engine.output.shape[1:]) == ("probabilities", "float32", (10,))
        outputs = engine.infer(images(N))
        assert outputs.dtype == np.float32
        assert outputs.shape == (N, 10)


def wrong_rank_refused(backend: Backend, nets: Nets) -> None:
    with _build(backend, nets) as engine:
        _refuses(engine, images(N)[:, 0])


def wrong_shape_refused(backend: Backend, nets: Nets) -> None:
    with _build(backend, nets) as engine:
        engine.infer(images(N))  # a previous result that could be returned again
        _refuses(engine, np.zeros((N, 1, 8, 9), np.float32))


def wrong_dtype_refused(backend: Backend, nets: Nets) -> None:
    with _build(backend, nets) as engine:
        _refuses(engine, images(N).astype(np.float64))


def nan_input_refused(backend: Backend, nets: Nets) -> None:
    batch = images(N)
    batch[2, 0, 3, 3] = np.nan
    with _build(backend, nets) as engine:
        _refuses(engine, batch)


def empty_batch_refused(backend: Backend, nets: Nets) -> None:
    with _build(backend, nets) as engine:
        _refuses(engine, images(0))


def closed_engine_refuses(backend: Backend, nets: Nets) -> None:
    engine = _build(backend, nets)
    engine.close()
    _refuses(engine, images(N))


def closing_twice_is_fine(backend: Backend, nets: Nets) -> None:
    engine = _build(backend, nets)
    engine.close()
    engine.close()


def leaving_closes(backend: Backend, nets: Nets) -> None:
    with _build(backend, nets) as engine:
        engine.infer(images(N))
    _refuses(engine, images(N))


def missing_file_is_build_error(backend: Backend, nets: Nets) -> None:
    with pytest.raises(BuildError, match=r"missing\.onnx"):
        _build(backend, nets, "missing")


def damaged_file_refused(backend: Backend, nets: Nets) -> None:
    with pytest.raises((BuildError, DataError)):
        _build(backend, nets, "truncated")


def two_inputs_refused(backend: Backend, nets: Nets) -> None:
    with pytest.raises(BuildError):
        _build(backend, nets, "two_inputs")


def bad_scale_refused(backend: Backend, nets: Nets) -> None:
    with pytest.raises(BuildError, match="scale"):
        _build(backend, nets, "scale_zero")


def facts_are_filled(backend: Backend, nets: Nets) -> None:
    with _build(backend, nets) as engine:
        assert engine.facts.build_ns > 0
        assert engine.facts.versions
        assert engine.facts.options


def layers_are_read_back(backend: Backend, nets: Nets) -> None:
    with _build(backend, nets) as engine:
        assert engine.layers()


def precision_is_as_asked(backend: Backend, nets: Nets) -> None:
    with _build(backend, nets) as engine:
        assert effective_precision(engine.layers(), Precision.FP32).by_layer == {"fp32": 1.0}


def layers_name_onnx_nodes(backend: Backend, nets: Nets) -> None:
    with _build(backend, nets) as engine:
        assert "/fc/Gemm" in {node for layer in engine.layers() for node in layer.onnx_nodes}


def stream_keeps_order(backend: Backend, nets: Nets) -> None:
    batches = [images(N, seed=1), images(N, seed=2), images(3, seed=3)]
    with _build(backend, nets) as engine:
        streamed = list(engine.infer_stream(iter(batches)))
        assert [len(outputs) for outputs in streamed] == [N, N, 3]
        for outputs, batch in zip(streamed, batches, strict=True):
            np.testing.assert_array_equal(outputs, engine.infer(batch))


def timer_gives_as_many_as_asked(backend: Backend, nets: Nets) -> None:
    with _build(backend, nets) as engine:
        timer = engine.timer(images(N), window="compute", launch="auto")
        timer.calls_per_sample = 3
        assert timer.sample(5).shape == (5,)


def timer_is_positive(backend: Backend, nets: Nets) -> None:
    with _build(backend, nets) as engine:
        for window in ("compute", "end_to_end"):
            samples = engine.timer(images(1), window=window, launch="auto").sample(3)
            assert np.isfinite(samples).all()
            assert (samples > 0).all()


def timer_says_what_it_times(backend: Backend, nets: Nets) -> None:
    with _build(backend, nets) as engine:
        for window in ("compute", "end_to_end"):
            timer = engine.timer(images(N), window=window, launch="auto")
            assert (timer.batch_size, timer.window, timer.calls_per_sample) == (N, window, 1)
            assert timer.clock in ("host", "cuda_event")


def timer_shows_what_it_computes(backend: Backend, nets: Nets) -> None:
    batch = images(N)
    with _build(backend, nets) as engine:
        for window in ("compute", "end_to_end"):
            timer = engine.timer(batch, window=window, launch="auto")
            for _ in range(2):
                timer.sample(2)
                if isinstance(timer, KeepsOutputs) and (outputs := timer.outputs()) is not None:
                    assert isinstance(outputs, np.ndarray)
                    np.testing.assert_allclose(outputs, engine.infer(batch), rtol=1e-3, atol=1e-5)


def contexts_give_the_outputs_of_infer(backend: Backend, nets: Nets) -> None:
    batch = images(N)
    with _build(backend, nets) as engine:
        if not isinstance(engine, RunsConcurrently):
            return
        assert engine.concurrency
        contexts = engine.contexts(batch, 2)
        assert engine.most_contexts is None or engine.most_contexts >= 2
        _run_at_once(contexts)
        for context in contexts:
            if (outputs := context.outputs()) is not None:
                assert isinstance(outputs, np.ndarray)
                np.testing.assert_allclose(outputs, engine.infer(batch), rtol=1e-3, atol=1e-5)


def named_contexts_give_the_outputs_of_run(backend: Backend, nets: Nets) -> None:
    with _graph(backend, nets) as engine:
        if not isinstance(engine, RunsTensorsConcurrently):
            return
        assert engine.concurrency
        feeds = seeded_feeds(graph_tensors(), 1)
        contexts = engine.bind_contexts(feeds, 2, batch_size=1)
        for _ in range(2):  # what was read is spoiled, so the runs in between wrote it anew
            _run_at_once(contexts)
            for context in contexts:
                outputs = context.outputs()
                assert outputs is not None
                assert not isinstance(outputs, np.ndarray)
                _agree(outputs, feeds)
        for bad in ({**feeds, "scale": np.array(np.nan, np.float32)}, {"ids": feeds["ids"]}):
            with pytest.raises(MeasurementError):
                engine.bind_contexts(bad, 2, batch_size=1)


def named_tensors_run(backend: Backend, nets: Nets) -> None:
    with _graph(backend, nets) as engine:
        if engine is None:
            return
        assert {one.name: one.dtype for one in engine.inputs} == {"ids": "int64", "mask": "bool", "scale": "float32"}
        assert {one.name for one in engine.outputs} == {"scaled", "chosen"}
        for first in range(3):
            feeds = seeded_feeds(graph_tensors(), 1, first=first)
            _agree(engine.run(feeds), feeds)


def named_tensors_have_layers(backend: Backend, nets: Nets) -> None:
    with _graph(backend, nets) as engine:
        if engine is not None:
            assert cast("Engine", engine).layers()  # profiled on inputs that the engine makes up, a scalar among them


def named_outputs_are_fresh(backend: Backend, nets: Nets) -> None:
    with _graph(backend, nets) as engine:
        if engine is None:
            return
        feeds = seeded_feeds(graph_tensors(), 1)
        first = engine.run(feeds)
        engine.run(seeded_feeds(graph_tensors(), 1, first=1))
        _agree(first, feeds)


def wrong_named_inputs_refused(backend: Backend, nets: Nets) -> None:
    with _graph(backend, nets) as engine:
        if engine is None:
            return
        feeds = seeded_feeds(graph_tensors(), 1)
        bad: tuple[Tensors, ...] = (
            {name: array for name, array in feeds.items() if name != "mask"},
            {**feeds, "other": feeds["ids"]},
            {**feeds, "ids": feeds["ids"].astype(np.int32)},
            {**feeds, "ids": feeds["ids"][0]},
            {**feeds, "scale": np.array(np.nan, np.float32)},
        )
        for given in bad:
            with pytest.raises(MeasurementError):
                engine.run(given)
            with pytest.raises(MeasurementError):
                engine.bind(given, batch_size=1, window="compute", launch="auto")


def named_timer_shows_what_it_computes(backend: Backend, nets: Nets) -> None:
    with _graph(backend, nets) as engine:
        if engine is None:
            return
        feeds = seeded_feeds(graph_tensors(), 1)
        for window in ("compute", "end_to_end"):
            timer = engine.bind(feeds, batch_size=1, window=window, launch="auto")
            assert (timer.batch_size, timer.window) == (1, window)
            for _ in range(2):
                samples = timer.sample(3)
                assert samples.shape == (3,)
                assert (samples > 0).all()
                if isinstance(timer, KeepsOutputs) and (outputs := timer.outputs()) is not None:
                    assert not isinstance(outputs, np.ndarray)
                    _agree(outputs, feeds)


def unknown_window_refused(backend: Backend, nets: Nets) -> None:
    with _build(backend, nets) as engine, pytest.raises(ConfigError):
        engine.timer(images(N), window="sometimes", launch="auto")


CLAUSES: tuple[Clause, ...] = tuple(
    clause
    for name, clause in sorted(globals().items())
    if callable(clause)
    and not isinstance(clause, type)
    and getattr(clause, "__module__", "") == __name__
    and not name.startswith("_")
)

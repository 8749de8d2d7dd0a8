"""A backend on onnx's reference evaluator: honest, or broken in exactly one way."""

from pathlib import Path

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from harness.backends._inputs import check_feeds, check_images
from harness.errors import BuildError, ConfigError, MeasurementError
from harness.machine.clocks import BoundContext, HostTimer
from harness.models.onnx_graph import check_scales, index_nodes, load_model
from harness.records import Availability, EngineFacts, Layer, Support, TensorSpec


class FakeBackend:
    """Builds FakeEngines; `fault` names the clause that they break."""

    name = "fake"
    install_hint = ""
    required_modules = ("onnx",)

    def __init__(self, fault=""):
        self.fault = fault

    def probe(self):
        devices = () if self.fault == "probe_names_devices" else ("cpu",)
        return Availability(backend=self.name, usable=True, versions={"onnx": onnx.__version__}, devices=devices)

    def supports(self, case):
        if case.device != "cpu" and self.fault != "other_device_refused":
            return Support(supported=False, reason="fake runs on cpu")
        return Support(supported=True)

    def build(self, artifact, *, device, batch_sizes, options, calibration=None):
        if not Path(artifact.onnx_path).exists():
            if self.fault == "missing_file_is_build_error":
                raise FileNotFoundError(artifact.onnx_path)
            raise BuildError(f"{artifact.onnx_path} does not exist")
        try:
            model = load_model(artifact.onnx_path)
        except ConfigError:
            if self.fault != "damaged_file_refused":
                raise
            model = onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], []))
        if self.fault != "bad_scale_refused":
            check_scales(model, artifact.onnx_path)
        if (
            options.tensors is None
            and len(model.graph.input) != 1
            and self.fault not in ("two_inputs_refused", "damaged_file_refused")
        ):
            raise BuildError(f"{artifact.onnx_path}: {len(model.graph.input)} inputs; expected one")
        return FakeEngine(model, self.fault, options.tensors)


class FakeEngine:
    """Runs a model in NumPy."""

    def __init__(self, model, fault, tensors=None):
        self.fault, self.closed, self._calls, self._last = fault, False, 0, None
        # The evaluator has no Q/DQ before operator set 19; such a net is only built here, never run.
        runs = model.graph.node and (tensors is not None or not index_nodes(model).casts)
        self._evaluator = ReferenceEvaluator(model) if runs else None
        values = (*model.graph.input[:1], *model.graph.output[:1])
        self.input, self.output = (_tensor(value) for value in values) if values else (None, None)
        if fault == "metadata_matches_model":
            self.output = TensorSpec(name="another", dtype="float32", shape=(None, 3))
        build_ns = 0 if fault == "facts_are_filled" else 1_000
        self.facts = EngineFacts(build_ns=build_ns, options={"threads": "1"}, versions={"onnx": onnx.__version__})
        self._memory = {}
        dtypes = {} if tensors is None else {one.name: one.dtype for one in tensors.inputs}
        self.inputs = tuple(_tensor(value, dtypes.get(value.name, "float32")) for value in model.graph.input)
        self.outputs = tuple(_tensor(value) for value in model.graph.output)

    def run(self, feeds):
        if self.fault != "wrong_named_inputs_refused":
            check_feeds(feeds, self.inputs, "fake")
        found = self._evaluator.run(None, dict(feeds))
        outputs = {one.name: np.array(array) for one, array in zip(self.outputs, found, strict=True)}
        if self.fault == "named_tensors_run":
            outputs = dict(zip(outputs, reversed(outputs.values()), strict=True))
        if self.fault == "named_outputs_are_fresh":
            for name, array in outputs.items():
                np.copyto(self._memory.setdefault(name, array), array)
            return {name: self._memory[name] for name in outputs}
        return outputs

    def bind(self, feeds, *, batch_size, window, launch):
        outputs = self.run(feeds)
        if self.fault == "named_timer_shows_what_it_computes":
            outputs = {name: array + 1 for name, array in outputs.items()}
        return HostTimer(lambda: self.run(feeds), batch_size=batch_size, window=window, outputs=lambda: outputs)

    def bind_contexts(self, feeds, n_contexts, *, batch_size):
        outputs = self.run(feeds)
        if self.fault == "named_contexts_give_the_outputs_of_run":
            outputs = {name: array + 1 for name, array in outputs.items()}
        return [BoundContext(run=lambda: self.run(feeds), outputs=lambda: outputs) for _ in range(n_contexts)]

    def infer(self, images):
        if self.closed and self.fault != "closed_engine_refuses":
            raise MeasurementError("the engine is closed")
        self._check(images)
        self._calls += 1
        if self.fault == "input_is_untouched":
            images *= np.float32(0.5)
        if self.fault == "strided_input_is_read_right":
            images = np.ndarray(images.shape, images.dtype, images.base if images.base is not None else images)
        outputs = self._evaluator.run(None, {self.input.name: images.astype(np.float32)})[0]
        outputs = np.array(outputs, np.float32)
        return self._spoiled(outputs)

    def _check(self, images):
        skipped = {
            "wrong_rank_refused": images.ndim != 4,
            "wrong_shape_refused": images.ndim == 4 and images.shape[1:] != self.input.shape[1:],
            "wrong_dtype_refused": images.dtype != np.float32,
            "nan_input_refused": images.dtype == np.float32 and not np.isfinite(images).all(),
            "empty_batch_refused": len(images) == 0,
        }
        if self.fault == "previous_result" and images.shape[1:] != self.input.shape[1:]:
            return
        if not (skipped.get(self.fault)):
            check_images(images, self.input, "fake")

    def _spoiled(self, outputs):
        fault = self.fault
        if fault == "identity_is_exact":
            return outputs * np.float32(1 + 2e-6)
        if fault == "batch_agrees_with_singles" and len(outputs) > 1:
            outputs[0] += np.float32(0.01) * outputs[1]
        if fault == "same_input_same_output":
            outputs += np.float32(1e-6) * self._calls
        if fault == "outputs_are_fresh":
            kept = self._memory.setdefault(outputs.shape, np.empty_like(outputs))
            np.copyto(kept, outputs)
            return kept
        return outputs

    def infer_stream(self, batches):
        outputs = [self.infer(images) for images in batches]
        return iter(outputs[::-1] if self.fault == "stream_keeps_order" else outputs)

    concurrency, most_contexts = "threads", None

    def contexts(self, images, n_contexts):
        is_mixed = self.fault == "contexts_give_the_outputs_of_infer"
        outputs = (lambda: self.infer(images)[::-1]) if is_mixed else (lambda: self.infer(images))
        return [BoundContext(run=lambda: self.infer(images), outputs=outputs) for _ in range(n_contexts)]

    def timer(self, images, *, window, launch):
        if window not in ("compute", "end_to_end") and self.fault != "unknown_window_refused":
            raise ConfigError(f"no window {window!r}")
        timer = HostTimer(lambda: self.infer(images), batch_size=len(images), window=window)
        if self.fault == "timer_gives_as_many_as_asked":
            timer.sample = lambda n: np.ones(n - 1)
        if self.fault == "timer_is_positive":
            timer.sample = np.zeros
        if self.fault == "timer_shows_what_it_computes":
            timer.outputs = lambda: self.infer(images)[::-1]
        if self.fault == "timer_says_what_it_times":
            timer.window = "compute" if window == "end_to_end" else "end_to_end"
        return timer

    def layers(self):
        precision = "fp16" if self.fault == "precision_is_as_asked" else "fp32"
        if self.fault == "layers_name_onnx_nodes":
            return (Layer(name="main", kind="Gemm", precision=precision),)
        if self.fault in ("layers_are_read_back", "named_tensors_have_layers"):
            return ()
        return (Layer(name="main", kind="Gemm", precision=precision, onnx_nodes=("/fc/Gemm",), time_ns=1.0),)

    def close(self):
        if self.closed and self.fault == "closing_twice_is_fine":
            raise RuntimeError("closed already")
        self.closed = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.fault != "leaving_closes":
            self.close()


def _tensor(value, dtype="float32"):
    dimensions = value.type.tensor_type.shape.dim
    shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in dimensions)
    return TensorSpec(name=value.name, dtype=dtype, shape=shape)

"""ONNX Runtime's CUDA provider on device buffers and on a stream of ours, timed with CUDA events.

It shares the reading of profiles with `ort.py`, and the ring, the timer and the CUDA module with the TensorRT adapter.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from harness.backends._cuda.device import CudaError, Gpu
from harness.backends._cuda.options import CudaOptions
from harness.backends._cuda.ring import N_SLOTS, Ring, Slot
from harness.backends._cuda.timer import CudaTimer, work_of_window
from harness.backends._inputs import check_images, check_output_shape, timing_images
from harness.backends._probe_child import run_child
from harness.backends.ort import bf16_refusal, layers_from_profile, session_error, tensor_spec, vendor_errors
from harness.backends.trt.adapter import device_index
from harness.errors import BuildError, ConfigError, MeasurementError
from harness.machine.cuda_driver import probe_driver
from harness.models.onnx_graph import NodeIndex, check_scales, index_nodes, load_model, one_line
from harness.protocols import CalibrationSet, Images, Outputs
from harness.records import Artifact, Availability, EngineFacts, Layer, Support, TensorSpec
from harness.specs import BuildOptions, Case, Precision

PROVIDER = "CUDAExecutionProvider"
INSTALL_HINT = "pip install 'nn-engine-harness[ort-cuda]'"
VENDOR_PREFIX = "trt-"  # recipes that quantize inside TensorRT
READ_BACK = ("device_id", "use_tf32", "cudnn_conv_algo_search", "prefer_nhwc", "cudnn_conv_use_max_workspace")
ENTRIES_PER_NODE = 4  # kernels that one node may put on the stream, about
N_PROFILED_RUNS = 3
N_NAMED = 5
# In a process of its own: the provider's libraries are loaded when the first session is made, and ONNX Runtime goes
# on with its CPU provider when they cannot be.
CHILD = """
import json, onnx, onnxruntime
from onnx import helper
found = {"onnxruntime": onnxruntime.__version__}
print(json.dumps({"step": "import", "versions": found, "providers": []}), flush=True)
value = lambda name: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1])
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value("x")], [value("y")])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CUDAExecutionProvider"])
print(json.dumps({"step": "done", "versions": found, "providers": session.get_providers()}), flush=True)
"""


class OrtCudaBackend:
    """Builds ONNX Runtime sessions on a GPU. Implements `protocols.Backend`."""

    name = "ort-cuda"
    install_hint = INSTALL_HINT
    required_modules = ("onnxruntime", "onnx")

    def probe(self) -> Availability:
        """Say whether ONNX Runtime has a CUDA provider that loads here."""
        driver = probe_driver()
        versions, reason = ({}, driver.reason) if driver.reason else _probe_provider()
        return Availability(
            backend=self.name,
            usable=not reason,
            reason=reason,
            install_hint=INSTALL_HINT if reason else "",
            versions=versions,
            devices=tuple(f"cuda:{index}" for index in range(len(driver.names))),
            device_names=driver.names,
            driver=driver.driver,
            cuda_version=driver.cuda_version,
            compute_capabilities=driver.compute_capabilities,
        )

    def supports(self, case: Case) -> Support:
        """Say whether the case can run."""
        if not case.device.startswith("cuda:"):
            return Support(supported=False, reason=f"{self.name} runs on cuda:0, cuda:1, ..., not on {case.device}")
        if case.recipe.startswith(VENDOR_PREFIX):
            return Support(supported=False, reason=f"recipe {case.recipe} quantizes inside TensorRT")
        if case.precision is Precision.BF16 and (reason := bf16_refusal(case.recipe, PROVIDER)):
            return Support(supported=False, reason=reason)
        return Support(supported=True)

    def build(
        self,
        artifact: Artifact,
        *,
        device: str,
        batch_sizes: tuple[int, ...],
        options: BuildOptions,
        calibration: CalibrationSet | None = None,
    ) -> OrtCudaEngine:
        """Build one session for all batch sizes.

        Raises: BuildError; BackendUnavailable; ConfigError; Unsupported for a BF16 file with an operator that has no
        kernel.
        """
        del calibration  # the artifact holds its scales
        model = load_model(artifact.onnx_path)
        check_scales(model, artifact.onnx_path)
        gpu = Gpu(device_index(device))
        try:
            return OrtCudaEngine(
                artifact,
                gpu,
                index=device_index(device),
                batch_sizes=batch_sizes,
                options=options,
                nodes=index_nodes(model),
            )
        except BaseException as error:
            _let_go(error)
            with contextlib.suppress(CudaError):  # that the context is broken too must not hide what broke it
                gpu.close()
            raise


def _let_go(error: BaseException | None) -> None:
    """Free what the frames of a failed build hold: a session must not outlive its context."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__


def _probe_provider() -> tuple[dict[str, str], str]:
    for module in OrtCudaBackend.required_modules:
        if importlib.util.find_spec(module) is None:
            return {}, f"the Python module {module} is not installed"
    end = run_child(CHILD)
    if not end.answers:
        return {}, end.reason("onnxruntime", "when imported")
    last = end.answers[-1]
    if last["step"] != "done" or end.returncode:
        return last["versions"], end.reason("onnxruntime", "when a session was made")
    if last["providers"][0] != PROVIDER:
        found = last["versions"]["onnxruntime"]
        return last["versions"], f"onnxruntime {found} has no {PROVIDER} that loads; is it onnxruntime-gpu?"
    return last["versions"], ""


class OrtCudaEngine:
    """One session on one GPU, its stream and its buffers. Implements `protocols.Engine`."""

    def __init__(
        self,
        artifact: Artifact,
        gpu: Gpu,
        *,
        index: int,
        batch_sizes: tuple[int, ...],
        options: BuildOptions,
        nodes: NodeIndex,
    ) -> None:
        self._ort: Any = importlib.import_module("onnxruntime")
        self._errors = vendor_errors()
        self._label = f"{artifact.model}-ort-cuda-{artifact.precision}"
        self._artifact, self._gpu, self._index, self._nodes = artifact, gpu, index, nodes
        self._tf32, self._largest = CudaOptions.of(options.settings).tf32, max(batch_sizes)
        self._compute = gpu.stream()  # of every inference: a session has one
        started = time.perf_counter_ns()
        self._session, refused = self._open_session()
        build_ns = time.perf_counter_ns() - started
        self.input, self.output = self._tensors()
        self._run_options = self._ort.RunOptions()
        self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._bindings: dict[tuple[int, int], Any] = {}  # (device address, batch) -> IOBinding
        self.on_cpu = self._nodes_on_cpu() if refused else ()
        self._ring = Ring(
            gpu,
            [self._make_slot(self._largest, stream=gpu.stream()) for _ in range(N_SLOTS)],
            bind=lambda slot: 0,
            enqueue=self._enqueue,
            check=self._check,
            note=self._note,
            can_capture=not self.on_cpu,
        )
        self._timers: list[CudaTimer] = []
        self.facts = EngineFacts(
            build_ns=build_ns,
            engine_bytes=os.path.getsize(artifact.onnx_path),
            options=self._read_back(),
            versions={"onnxruntime": self._ort.__version__},
            notes=self._notes(),
        )
        self.closed = False
        atexit.register(self.close)

    def infer(self, images: Images) -> Outputs:
        """Run one batch and return fresh memory. Raises: MeasurementError."""
        self._check_idle()
        slot = self._ring.slots[0]
        try:
            self._ring.stage(slot, images)
            self._ring.submit(slot)
            outputs = self._ring.collect(slot)
        except self._gpu.errors as error:
            raise MeasurementError(f"{self._label}: batch {len(images)} failed on the device: {error}") from error
        check_output_shape(outputs.shape, len(images), self._label)
        return outputs

    def host_buffers(self, n_buffers: int, n_images: int) -> list[Images]:
        """Return page-locked arrays that `infer_stream` sends from without a copy; see `Ring.host_buffers`."""
        self._check_idle()
        try:
            return self._ring.host_buffers(n_buffers, n_images)
        except self._gpu.errors as error:
            raise MeasurementError(f"{self._label}: {n_buffers} buffers of {n_images} images: {error}") from error

    def infer_stream(self, batches: Iterable[Images]) -> Iterator[Outputs]:
        """Yield the outputs of each batch in order, overlapping copies and compute.

        Until it ends or is closed the engine can be used for nothing else. Raises: MeasurementError.
        """
        self._check_idle()
        try:
            yield from self._ring.stream(batches)
        except self._gpu.errors as error:
            raise MeasurementError(f"{self._label}: scoring failed on the device: {error}") from error

    def timer(self, images: Images, *, window: str, launch: str) -> CudaTimer:
        """Bind a batch and return its CUDA-event timer; windows and launches are those of the TensorRT adapter.

        A session with nodes on the CPU waits for the stream inside a run, so it can only be enqueued.
        Raises: ConfigError, MeasurementError.
        """
        self._check_idle()
        self._check(images)
        slot, compute, gpu = self._make_slot(len(images)), self._compute, self._gpu
        self._ring.stage(slot, images)

        def run() -> None:
            self._enqueue(slot)

        work = work_of_window(window, run, gpu=gpu, slot=slot, label=self._label)
        if self.on_cpu and launch not in ("auto", "enqueue"):
            raise ConfigError(f"{self._label}: {len(self.on_cpu)} nodes run on the CPU; use the launch 'enqueue'")
        try:
            gpu.copy_in(slot.device_in, slot.host_in, compute)
            timer = CudaTimer(
                gpu,
                compute,
                work=work,
                bind=self._check_idle,
                batch_size=len(images),
                window=window,
                launch="enqueue" if self.on_cpu else launch,
                entries_per_call=ENTRIES_PER_NODE * len(self._nodes.kinds),
                note=self._note,
            )
        except gpu.errors as error:
            raise MeasurementError(
                f"{self._label}: timing batch {len(images)} failed on the device: {error}"
            ) from error
        self._timers.append(timer)
        return timer

    def layers(self) -> tuple[Layer, ...]:
        """Return the kernels that ran, from a profiled session of its own; their GPU times are not in the profile."""
        self._check_open()
        return self._profiled(self._options())

    def close(self) -> None:
        """Free everything, then the context; a second call does nothing.

        Raises: CudaError when a fault on the device has broken the context.
        """
        if self.closed:
            return
        self.closed = True
        atexit.unregister(self.close)
        try:
            self._gpu.synchronize()
        except self._gpu.errors:
            self._gpu.close()  # says what is broken; what lies in a broken context goes with the process
            return
        for timer in self._timers:
            timer.close()
        self._ring.close()
        self._bindings.clear()
        self._timers = []
        del self._ring, self._session, self._compute
        self._gpu.close()

    def __enter__(self) -> OrtCudaEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _options(self) -> Any:
        options = self._ort.SessionOptions()
        options.log_severity_level = 3  # errors
        return options

    def _refuse_cpu(self) -> Any:
        options = self._options()
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        return options

    def _open_session(self) -> tuple[Any, str]:
        """Return a session wholly on CUDA, or one with nodes on the CPU and why. Raises: BuildError, Unsupported."""
        try:
            return self._session_on_cuda(self._refuse_cpu()), ""
        except self._errors as error:
            refused = one_line(error)
        try:
            return self._session_on_cuda(self._options()), refused
        except self._errors as error:
            raise session_error(self._artifact, self._label, PROVIDER, error) from error

    def _session_on_cuda(self, options: Any) -> Any:
        cuda = {
            "device_id": str(self._index),
            "user_compute_stream": str(self._compute.handle),
            "use_tf32": "1" if self._tf32 else "0",
        }
        session = self._ort.InferenceSession(self._artifact.onnx_path, options, providers=[(PROVIDER, cuda)])
        if session.get_providers()[0] != PROVIDER:
            raise BuildError(f"{self._label}: asked for {PROVIDER}, ONNX Runtime took {session.get_providers()}")
        return session

    def _tensors(self) -> tuple[TensorSpec, TensorSpec]:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise BuildError(f"{self._label}: {len(inputs)} inputs, {len(outputs)} outputs; a classifier has one each")
        source, target = tensor_spec(inputs[0], self._label), tensor_spec(outputs[0], self._label)
        if len(target.shape) != 2 or target.shape[1] is None:
            raise BuildError(f"{self._label}: output {target.name} has shape {target.shape}; expected (batch, classes)")
        return source, target

    def _read_back(self) -> dict[str, str]:
        found = self._session.get_provider_options()[PROVIDER]
        return {"provider": PROVIDER, **{name: found[name] for name in READ_BACK if name in found}}

    def _notes(self) -> tuple[str, ...]:
        size = "engine size is that of the ONNX file: ONNX Runtime keeps no other form on disk"
        if not self.on_cpu:
            return (size,)
        more = ", ..." if len(self.on_cpu) > N_NAMED else ""
        return size, f"{len(self.on_cpu)} nodes run on the CPU: {', '.join(self.on_cpu[:N_NAMED])}{more}"

    def _nodes_on_cpu(self) -> tuple[str, ...]:
        layers = self._profiled(self._options())
        return tuple(layer.name for layer in layers if not layer.kernel.startswith(PROVIDER))

    def _profiled(self, options: Any) -> tuple[Layer, ...]:
        images = timing_images(self.input, self.input.shape[0] or self._largest)
        with tempfile.TemporaryDirectory(prefix="harness-profile-") as folder:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = self._session_on_cuda(options)
            for _ in range(N_PROFILED_RUNS):
                session.run([self.output.name], {self.input.name: images})
            events = json.loads(Path(session.end_profiling()).read_text())
        layers = layers_from_profile(events, n_runs=N_PROFILED_RUNS, nodes=self._nodes, outputs={})
        # What the profile times of a CUDA kernel is its launch.
        return tuple(replace(layer, time_ns=None) for layer in layers)

    def _make_slot(self, n_images: int, *, stream: Any = None) -> Slot:
        in_shape = (n_images, *(size or 0 for size in self.input.shape[1:]))
        out_shape = (n_images, self.output.shape[1] or 0)
        return Slot(self._gpu, in_shape, out_shape, ("float32", "float32"), compute=self._compute, stream=stream)

    def _binding(self, slot: Slot) -> Any:
        key = (int(slot.device_in), slot.n_images)
        if key not in self._bindings:
            binding = self._session.io_binding()
            places = (
                (binding.bind_input, self.input.name, slot.device_in, slot.host_in),
                (binding.bind_output, self.output.name, slot.device_out, slot.host_out),
            )
            for bind, name, memory, host in places:
                bind(name, "cuda", self._index, np.float32, [slot.n_images, *host.shape[1:]], int(memory))
            self._bindings[key] = binding
        return self._bindings[key]

    def _enqueue(self, slot: Slot) -> None:
        try:
            self._session.run_with_iobinding(self._binding(slot), self._run_options)
        except self._errors as error:
            raise MeasurementError(f"{self._label}: batch {slot.n_images} failed: {one_line(error)}") from error

    def _check(self, images: Images) -> None:
        check_images(images, self.input, self._label)
        if len(images) > self._largest:
            raise MeasurementError(
                f"{self._label}: batch {len(images)} is above {self._largest}, the largest asked for"
            )

    def _note(self, text: str) -> None:
        if text not in self.facts.notes:
            self.facts = replace(self.facts, notes=(*self.facts.notes, text))

    def _check_idle(self) -> int:
        self._check_open()
        self._ring.check_idle(self._label)
        return 0  # as the generation of a timer's shape: every batch has a binding of its own

    def _check_open(self) -> None:
        if self.closed:
            raise MeasurementError(f"{self._label}: the engine is closed; build it again")


BACKEND = OrtCudaBackend()

"""One ONNX Runtime session on a GPU and on a stream of ours."""

from __future__ import annotations

import importlib
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.backends._cuda.options import CudaOptions
from harness.backends.ort.options import OrtOptions
from harness.backends.ort.profile import layers_from_profile
from harness.backends.ort.runtime import (
    all_tensors,
    check_classifier,
    libraries_in_words,
    register_libraries,
    session_error,
    vendor_errors,
)
from harness.backends.ort_cuda.probe import PROVIDER
from harness.errors import BuildError
from harness.models.onnx_graph import NodeIndex, one_line
from harness.protocols import Tensors
from harness.records import Artifact, Layer, TensorSpec
from harness.specs import BuildOptions

READ_BACK = ("device_id", "use_tf32", "cudnn_conv_algo_search", "prefer_nhwc", "cudnn_conv_use_max_workspace")
N_PROFILED_RUNS = 3


class CudaSession:
    """The session of one artifact; `open` before anything else."""

    provider = PROVIDER  # that is asked for first
    on_device: tuple[str, ...] = (PROVIDER,)  # whose nodes run on the GPU
    read_back_names = READ_BACK
    captured = ""  # why runs cannot be captured into a CUDA graph, "" where they can

    def __init__(self, artifact: Artifact, *, label: str, index: int, stream: Any, options: BuildOptions) -> None:
        self.ort: Any = importlib.import_module("onnxruntime")
        self.errors = vendor_errors()
        self._artifact, self._label = artifact, label
        self._libraries = OrtOptions.of(options.settings).custom_ops
        self._cuda = {
            "device_id": str(index),
            "user_compute_stream": str(stream.handle),
            "use_tf32": str(int(CudaOptions.of(options.settings).tf32)),
        }
        self.session: Any = None

    def open(self) -> str:
        """Make a session wholly on CUDA, or one with nodes on the CPU, and return why not all are on CUDA.

        Raises: BuildError, Unsupported.
        """
        options = self._options()
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        try:
            self.session = self._made(options)
        except self.errors as error:
            refused = one_line(error)
        else:
            return ""
        try:
            self.session = self._made(self._options())
        except self.errors as error:
            raise session_error(self._artifact, self._label, self.provider, error) from error
        return refused

    def providers(self) -> list[tuple[str, dict[str, str]]]:
        """Return the providers that are asked for, with their options."""
        return [(self.provider, self._cuda)]

    def notes(self, layers: tuple[Layer, ...]) -> tuple[str, ...]:
        """Return what there is to say of the layers as they ran."""
        del layers
        return ()

    def all_tensors(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Return all inputs and outputs. Raises: BuildError for one that is no array of numbers."""
        return all_tensors(self.session, self._label)

    def tensors(self) -> tuple[TensorSpec, TensorSpec]:
        """Return the only input and output. Raises: BuildError for other numbers, types or shapes."""
        inputs, outputs = self.all_tensors()
        check_classifier(inputs, outputs, self._label)
        if len(outputs) != 1:
            raise BuildError(f"{self._label}: the model has {len(outputs)} outputs; a classifier has one")
        source, target = inputs[0], outputs[0]
        if len(target.shape) != 2 or target.shape[1] is None:
            raise BuildError(f"{self._label}: output {target.name} has shape {target.shape}; expected (batch, classes)")
        return source, target

    def read_back(self) -> dict[str, str]:
        """Return the provider's options as it has them."""
        options = self.session.get_provider_options()[self.provider]
        return {
            "provider": self.provider,
            **libraries_in_words(self._libraries),
            **{name: options[name] for name in self.read_back_names if name in options},
        }

    def layers(self, feeds: Tensors, nodes: NodeIndex) -> tuple[Layer, ...]:
        """Return the kernels that ran, from a profiled session of its own; their GPU times are not in the profile."""
        options = self._options()
        with tempfile.TemporaryDirectory(prefix="harness-profile-") as folder:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = self._made(options)
            for _ in range(N_PROFILED_RUNS):
                session.run(None, dict(feeds))
            events = json.loads(Path(session.end_profiling()).read_text())
        layers = layers_from_profile(events, n_runs=N_PROFILED_RUNS, nodes=nodes, outputs={})
        # What the profile times of a CUDA kernel is its launch.
        return tuple(replace(layer, time_ns=None) for layer in layers)

    def _options(self) -> Any:
        options = self.ort.SessionOptions()
        options.log_severity_level = 3  # errors
        register_libraries(options, self._libraries)
        return options

    def _made(self, options: Any) -> Any:
        session = self.ort.InferenceSession(self._artifact.onnx_path, options, providers=self.providers())
        if session.get_providers()[0] != self.provider:
            raise BuildError(f"{self._label}: asked for {self.provider}, ONNX Runtime took {session.get_providers()}")
        return session

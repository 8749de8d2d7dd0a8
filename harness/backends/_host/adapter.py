"""A backend of a runtime on the CPU: a subclass says what it can do and opens a runner; the rest is here."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import time

from harness.backends._cpu import checked_model, import_reason, qdq_weight_bits, unusable
from harness.backends._host.agreement import compared
from harness.backends._host.conversion import facts_of
from harness.backends._host.engine import HostEngine
from harness.backends._host.request import Opened, OpenRequest, request_for
from harness.backends._traits import Traits
from harness.protocols import CalibrationSet
from harness.records import CPU, Artifact, Availability, EngineFacts, Support
from harness.specs import BuildOptions, Case, Precision


class HostBackend:
    """A runtime on the CPU. Implements `protocols.Backend`."""

    name = ""
    required_modules: tuple[str, ...] = ()
    distributions: tuple[str, ...] = ()  # packages whose versions are told
    traits: Traits
    is_light = True  # quick to import: the probe imports it; else it is only looked for

    @property
    def install_hint(self) -> str:
        """Return the command that installs the runtime."""
        return self.traits.install_hint

    def probe(self) -> Availability:
        """Say whether the runtime is installed."""
        for module in self.required_modules:
            try:
                if self.is_light:
                    importlib.import_module(module)
                elif importlib.util.find_spec(module) is None:
                    return unusable(self.name, f"{module} is not installed", self.install_hint)
            except ImportError as error:
                return unusable(self.name, import_reason(module, error), self.install_hint)
        if reason := self.missing():
            return unusable(self.name, reason, self.install_hint)
        return Availability(backend=self.name, usable=True, versions=self.versions(), devices=(CPU,))

    def missing(self) -> str:
        """Return what else is not there, "" when nothing is."""
        return ""

    def versions(self) -> dict[str, str]:
        """Return the versions of the runtime's packages; of those that go by several names, of the one there is."""
        found = {}
        for name in self.distributions:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                found[name] = importlib.metadata.version(name)
        return found

    def supports(self, case: Case) -> Support:
        """Say whether the case can run, by what the runtime can do."""
        if case.device != CPU:
            return Support(supported=False, reason=f"{self.name} runs on cpu here, not on {case.device}")
        if reason := self.traits.refusal(case, self.name):
            return Support(supported=False, reason=reason)
        reads_qdq = self.traits.reads_qdq(case.precision)
        # Float emulation cannot saturate, but the file is to be the one that the 8-bit kernels here are given.
        return Support(supported=True, int8_weight_bits=qdq_weight_bits() if reads_qdq else 8)

    def open(self, request: OpenRequest) -> Opened:
        """Open a runner. Raises: BuildError, Unsupported, BackendUnavailable."""
        raise NotImplementedError

    def build(
        self,
        artifact: Artifact,
        *,
        device: str,
        batch_sizes: tuple[int, ...],
        options: BuildOptions,
        calibration: CalibrationSet | None = None,
    ) -> HostEngine:
        """Build an engine for all batch sizes, and compare what is not INT8 with ONNX Runtime.

        Raises: BuildError; BackendUnavailable; Unsupported for an operator that the runtime lacks.
        """
        model = checked_model(artifact, self.name, device)
        request = request_for(
            artifact, model, self.name, batch_sizes=batch_sizes, options=options, calibration=calibration
        )
        label, tensors = request.label, (request.input, request.output)
        started = time.perf_counter_ns()
        opened = self.open(request)
        facts = self._facts(opened, time.perf_counter_ns() - started)
        engine = HostEngine(opened.runner, label=label, tensors=tensors, facts=facts, profile_batch=max(batch_sizes))
        try:
            if artifact.precision is not Precision.INT8:
                engine.facts = compared(engine, model, batch_size=min(batch_sizes), label=label)
        except BaseException:
            engine.close()
            raise
        return engine

    def _facts(self, opened: Opened, elapsed_ns: int) -> EngineFacts:
        return facts_of(
            elapsed_ns,
            opened.converted,
            engine_bytes=opened.engine_bytes,
            options=opened.options,
            versions=self.versions(),
            notes=opened.notes,
            calibration=opened.calibration,
        )

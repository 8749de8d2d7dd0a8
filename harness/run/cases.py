"""The cases of a run, opened one by one, and the ones that are measured only to compare with."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import platformdirs

from harness.backends import list_backends
from harness.machine.environment import collect_environment
from harness.options.commands import command_of
from harness.options.tolerances import load_tolerances
from harness.options.values import HarnessOptions
from harness.protocols import Progress
from harness.records import CPU, Artifact, Environment, Record
from harness.run.case import CaseRun, WorkerSettings
from harness.run.plan import Plan
from harness.specs import BuildOptions, Case, Precision
from harness.worker.requests import CaseRequest

EMULATION_BACKEND = "ort-emulation"


class Cases:
    """All cases that a run has opened, in order, and their references."""

    def __init__(
        self, options: HarnessOptions, plan: Plan, *, folder: Path, progress: Callable[[str], Progress]
    ) -> None:
        """Begin with none. `folder`: the run's, for logs and outputs."""
        self._options, self._plan, self._folder = options, plan, folder
        self._settings = WorkerSettings(
            log_dir=folder / "logs",
            python=options.worker_python,
            extension_dirs=options.extension_dirs,
            timeout_s=options.timeout_s,
            progress=progress,
        )
        self._tolerances = load_tolerances(Path(options.root), backends=list_backends())
        self.opened: dict[str, CaseRun] = {}
        self._references: dict[str, CaseRun] = {}  # by case id; of emulations by the digest of the file
        self._began: dict[str, str] = {}  # case id -> when it was recorded first
        self._environments: dict[tuple[str, str], Environment] = {}

    def open(self, case: Case) -> CaseRun:
        """Return a case ready to be measured."""
        if case.id not in self.opened:
            self.opened[case.id] = self._case_run(case)
        return self.opened[case.id]

    def fp32_of(self, case: Case, *, backend: str, device: str) -> CaseRun:
        """Return the scored FP32 case that another is compared with: of this run, or made now for that alone."""
        wanted = Case(model=case.model, backend=backend, precision=Precision.FP32, recipe="none", device=device)
        run = self.opened.get(wanted.id) or self._references.get(wanted.id)
        if run is None:
            run = self._references[wanted.id] = self._case_run(wanted)
        return _scored(run)

    def emulation_of(self, case: Case, artifact: Artifact) -> CaseRun:
        """Return the scored float emulation of a Q/DQ file, computed once for all backends."""
        if artifact.sha256 not in self._references:
            emulated = replace(case, backend=EMULATION_BACKEND, device=CPU)
            self._references[artifact.sha256] = self._case_run(emulated, artifact=artifact)
        return _scored(self._references[artifact.sha256])

    def record_of(self, run: CaseRun, *, is_reference: bool = False) -> Record:
        """Return what was found of a case so far."""
        case = run.case
        return run.record(
            environment=self.environment_of(case.backend, case.device),
            recorded_at=self._began.setdefault(case.id, utc_now()),
            command=command_of(case, self._options),
            is_reference=is_reference,
        )

    def records(self) -> list[Record]:
        """Return the records of all cases that were opened, in the order they ran, then those of FP32 references."""
        references = (run for run in self._references.values() if run.case.backend != EMULATION_BACKEND)
        return [
            *(self.record_of(run) for run in self.opened.values()),
            *(self.record_of(run, is_reference=True) for run in references),
        ]

    def close(self) -> None:
        """End all workers."""
        for run in (*self.opened.values(), *self._references.values()):
            run.close()

    def environment_of(self, backend: str, device: str) -> Environment:
        """Describe the machine as one backend sees one of its devices."""
        if (backend, device) not in self._environments:
            self._environments[backend, device] = self._collected(backend, device)
        return self._environments[backend, device]

    def run_environment(self) -> Environment:
        """Describe the machine with the versions of all backends, and the first accelerator if one takes part."""
        devices = {case.device: case.backend for case in reversed(self._plan.cases)}
        device = next((name for name in devices if name != CPU), CPU)
        environment = self.environment_of(devices.get(device, ""), device)
        versions = {name: version for a in self._plan.backends for name, version in a.versions.items()}
        return replace(environment, versions={**environment.versions, **versions})

    def _collected(self, backend: str, device: str) -> Environment:
        found = next((a for a in self._plan.backends if a.backend == backend), None)
        root = Path(self._options.root)
        if found is None:
            return collect_environment(checkout=root)
        names = dict(zip(found.devices, found.device_names, strict=False))
        capabilities = dict(zip(found.devices, found.compute_capabilities, strict=False))
        return collect_environment(
            device=device,
            device_name=names.get(device, ""),
            driver=found.driver,
            cuda_version=found.cuda_version,
            compute_capability=capabilities.get(device, ""),
            versions=found.versions,
            checkout=root,
        )

    def _case_run(self, case: Case, *, artifact: Artifact | None = None) -> CaseRun:
        options, model = self._options, self._plan.models[case.model]
        name = case.id if artifact is None else f"{case.id}-{artifact.sha256[:8]}"
        request = CaseRequest(
            case=case,
            model=model,
            data=options.data,
            build=BuildOptions(
                num_threads=options.num_threads,
                cache_dir=options.engine_cache or platformdirs.user_cache_dir("nn-engine-harness"),
                rebuild=options.rebuild,
                settings=options.build_settings,
            ),
            timing=options.timing,
            score_batch=options.score_batch,
            outputs_path=str(self._folder.absolute() / "outputs" / f"{name}.f32"),
            artifact=artifact,
        )
        given = {name: getattr(options, name) for name in ("floor", "max_drop", "max_slowdown", "alpha")}
        tolerance = self._tolerances.tolerance_for(case, model, options.data.name, command_line=given)
        return CaseRun(request, name=name, tolerance=tolerance, settings=self._settings)


def _scored(run: CaseRun) -> CaseRun:
    if not run.was_scored:
        run.accuracy()
        run.close()
    return run


def utc_now() -> str:
    """Return the time now, UTC, ISO 8601 to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")

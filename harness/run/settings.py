"""What all cases of a run share: how workers are started, and the machine as each backend sees it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import platformdirs

from harness.machine.environment import collect_environment, cpu_model
from harness.options.values import HarnessOptions
from harness.protocols import Progress, no_progress
from harness.records import CPU, Environment
from harness.run.case_worker import WorkerSettings
from harness.run.plan import Plan, timing_of
from harness.specs import BuildOptions, Case, ModelSpec
from harness.worker.interpreter import Interpreter, environment_of, python_of
from harness.worker.requests import CaseRequest

HARNESS = "nn-engine-harness"  # a worker's is this process's, whatever its environment holds


def cache_folder(engine_cache: str) -> str:
    """Return where artifacts and engines are kept; "" asks for the user's cache."""
    return engine_cache or platformdirs.user_cache_dir("nn-engine-harness")


def worker_settings(options: HarnessOptions, folder: Path, progress: Callable[[str], Progress]) -> WorkerSettings:
    """Return how the workers of a run are started; their logs lie in the run's folder."""
    return WorkerSettings(
        log_dir=folder.absolute() / "logs",
        python=options.worker_python,
        extension_dirs=options.extension_dirs,
        limits=options.limits,
        progress=progress,
    )


def case_request(case: Case, model: ModelSpec, options: HarnessOptions) -> CaseRequest:
    """Return what a worker is told of a case whose outputs are not kept."""
    return CaseRequest(
        case=case,
        model=model,
        data=options.data,
        build=BuildOptions(
            num_threads=options.num_threads,
            cache_dir=cache_folder(options.engine_cache),
            rebuild=options.rebuild,
            keep_float=options.keep_float,
            settings=options.build_settings,
        ),
        timing=timing_of(model, options),
        has_data=options.has_data,
        score_batch=options.score_batch,
    )


def quiet_settings(options: HarnessOptions, folder: Path) -> WorkerSettings:
    """Return how workers are started that show no progress."""
    return worker_settings(options, folder, lambda _: no_progress)


class Environments:
    """The machine and the workers' Python, as each backend sees each of its devices; described once."""

    def __init__(self, plan: Plan, root: Path, *, python: str = sys.executable) -> None:
        """`python`: the workers' interpreter, whose versions the records are to tell."""
        self._plan, self._root, self._python = plan, root, python
        self._known: dict[tuple[str, str], Environment] = {}
        self._workers: Interpreter | None = None  # looked at once, when first asked

    def of(self, backend: str, device: str) -> Environment:
        """Describe the machine as one backend sees one of its devices."""
        if (backend, device) not in self._known:
            self._known[backend, device] = self._collected(backend, device)
        return self._known[backend, device]

    def of_run(self) -> Environment:
        """Describe the machine with the versions of all backends, and the first accelerator if one takes part."""
        devices = {case.device: case.backend for case in reversed(self._plan.cases)}
        device = next((name for name in devices if name != CPU), CPU)
        environment = self.of(devices.get(device, ""), device)
        versions = {name: version for a in self._plan.backends for name, version in a.versions.items()}
        return replace(environment, versions={**environment.versions, **versions})

    def _collected(self, backend: str, device: str) -> Environment:
        found = next((a for a in self._plan.backends if a.backend == backend), None)
        if found is None:
            return self._of_workers(collect_environment(checkout=self._root))
        names = dict(zip(found.devices, found.device_names, strict=False))
        capabilities = dict(zip(found.devices, found.compute_capabilities, strict=False))
        environment = collect_environment(
            device=device,
            # One that no probe lists, such as hetero:gpu,cpu, goes by what was typed.
            device_name=names.get(device, "") if device in found.devices else f"{device.upper()} on {cpu_model()}",
            driver=found.driver,
            cuda_version=found.cuda_version,
            compute_capability=capabilities.get(device, ""),
            versions=found.versions,
            checkout=self._root,
        )
        return self._of_workers(replace(environment, fast_precisions=found.fast_precisions), found.versions)

    def _of_workers(self, environment: Environment, read: Mapping[str, str] | None = None) -> Environment:
        """Name the workers' Python and its packages where they are not this process's; `read`: from the runtimes."""
        if self._python == sys.executable:
            return environment
        if self._workers is None:
            self._workers = environment_of(python_of(self._python))
        ours = {name: version for name, version in environment.versions.items() if name == HARNESS}
        versions = {**self._workers.versions, **ours, **(read or {})}
        return replace(environment, python=self._workers.version, versions=versions)

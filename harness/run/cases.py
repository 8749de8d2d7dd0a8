"""The cases of a run, opened one by one, and the ones that are measured only to compare with."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from harness.options.commands import command_of
from harness.options.values import HarnessOptions
from harness.protocols import Progress, no_progress
from harness.records import CPU, Artifact, Record
from harness.run.case import CaseRun
from harness.run.expected import ExpectedCases
from harness.run.plan import Plan
from harness.run.settings import Environments, case_request, worker_settings
from harness.run.waiving import night_of, waivers_of
from harness.specs import Case, Waiver, waiver_of_error

EMULATION_BACKEND = "ort-emulation"


class Cases:
    """All cases that a run has opened, in order, and their references."""

    def __init__(
        self,
        options: HarnessOptions,
        plan: Plan,
        *,
        folder: Path,
        environments: Environments,
        progress: Callable[[str], Progress] = lambda label: no_progress,
        kept: Iterable[Record] = (),
    ) -> None:
        """Begin with none, or with those that were measured before the run was resumed.

        `folder`: the run's, for logs and outputs; `kept`: their records.
        """
        self._options, self._plan, self._folder = options, plan, folder
        self.environments = environments
        self._settings, self._waivers = worker_settings(options, folder, progress), waivers_of(options)
        self.opened: dict[str, CaseRun] = {}
        self._references: dict[str, CaseRun] = {}  # by case id; of emulations by the digest of the file
        self._started_at = utc_now()
        self._expected: ExpectedCases | None = None  # read once, when first asked
        self._kept = {record.case.id: record for record in kept}
        self._began = {name: record.recorded_at for name, record in self._kept.items()}  # first, by case id
        for case in plan.cases:
            if case.id in self._kept:
                self.open(case)

    def open(self, case: Case, *, artifact: Artifact | None = None) -> CaseRun:
        """Return a case ready to be measured; `artifact`: its prepared file where it is not to make one."""
        if case.id not in self.opened:
            self.opened[case.id] = self._case_run(case, name=case.id, artifact=artifact)
        return self.opened[case.id]

    def fp32_of(self, case: Case, *, backend: str, device: str) -> CaseRun:
        """Return the scored FP32 case that another is compared with: of this run, or made now for that alone."""
        wanted = case.source_on(backend, device)
        run = self.opened.get(wanted.id) or self._references.get(wanted.id)
        if run is None:
            run = self._references[wanted.id] = self._case_run(wanted, name=wanted.id)
        return _scored(run)

    def emulation_of(self, case: Case, artifact: Artifact) -> CaseRun:
        """Return the scored float emulation of a Q/DQ file, computed once for all backends."""
        if artifact.sha256 not in self._references:
            emulated = replace(case, backend=EMULATION_BACKEND, device=CPU)
            name = f"{emulated.id}-{artifact.sha256[:8]}"
            self._references[artifact.sha256] = self._case_run(emulated, name=name, artifact=artifact)
        return _scored(self._references[artifact.sha256])

    def record_of(self, run: CaseRun, *, is_reference: bool = False) -> Record:
        """Return what was found of a case so far."""
        case = run.case
        record = run.record(
            environment=self.environments.of(case.backend, case.device),
            recorded_at=self._began.setdefault(case.id, utc_now()),
            command=command_of(case, self._options),
            is_reference=is_reference,
        )
        options = self._options
        return replace(
            record,
            is_of_models_folder=case.model in self._plan.of_models_folder,
            allows_chance=options.allow_chance,
            requires_precision=options.require_precision,
            waivers=self._waivers_of(case),
        )

    def known_error(self, case_id: str) -> str:
        """Return until when, why and where the error of an open case is waived, "" where it is not."""
        record = self.record_of(self.opened[case_id])
        waiver = waiver_of_error(record.error, record.waivers)
        return waiver.text if waiver and waiver.holds_on(night_of(record)) else ""

    def _waivers_of(self, case: Case) -> tuple[Waiver, ...]:
        return tuple(waiver for waiver in self._waivers if waiver.matches(case.id))

    @property
    def planned(self) -> tuple[Case, ...]:
        """Return the cases of the run's plan, in order."""
        return self._plan.cases

    @property
    def share_of_night(self) -> float:
        """Return how many of the cases that are judged together are run here [fraction]."""
        return self._plan.share_of_night

    def has_metrics(self, case: Case) -> bool:
        """Tell whether the samples of a case are scored by metrics of its task."""
        return case.model in self._plan.by_metrics

    def records(self, *, with_absent: bool = False) -> list[Record]:
        """Return the records of all cases that were opened, in the order they ran, then those of FP32 references.

        `with_absent`: and of those that are expected, because a baseline is stored of them, and were never planned.
        """
        references = (run for run in self._references.values() if run.case.backend != EMULATION_BACKEND)
        found = [
            *(self.record_of(run) for run in self.opened.values()),
            *(self.record_of(run, is_reference=True) for run in references),
        ]
        if not with_absent or self._options.baseline == "ignore":
            return found
        if self._expected is None:
            self._expected = ExpectedCases(self._plan, self._options, self.environments)
        completed = self._expected.completed(found, recorded_at=self._started_at)
        return [replace(record, waivers=self._waivers_of(record.case)) for record in completed]

    def close(self) -> None:
        """End all workers."""
        for run in (*self.opened.values(), *self._references.values()):
            run.close()

    def _case_run(self, case: Case, *, name: str, artifact: Artifact | None = None) -> CaseRun:
        """Return a case; `name`: of its log and outputs."""
        options, model = self._options, self._plan.models[case.model]
        kind = "f32" if model.tensors is None else "zip"
        outputs = str(self._folder.absolute() / "outputs" / f"{name}.{kind}")
        request = replace(case_request(case, model, options), outputs_path=outputs, artifact=artifact)
        tolerance = self._plan.tolerance_of(case, model)
        kept = self._kept.get(case.id) if artifact is None else None
        return CaseRun(request, name=name, tolerance=tolerance, settings=self._settings, kept=kept)


def _scored(run: CaseRun) -> CaseRun:
    if not run.was_scored:
        if run.model.tensors is None:
            run.accuracy()
        else:
            run.samples()
        run.close()
    return run


def utc_now() -> str:
    """Return the time now, UTC, ISO 8601 to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")

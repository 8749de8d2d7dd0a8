"""One run of the suite: cases in turn, then verdicts over all of them, then files.

Verdicts that compare cases wait until every case is measured: they share one false-alarm rate (Holm), and a case's
reference may come after it.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import platformdirs

from harness.backends import list_backends
from harness.errors import ConfigError, HarnessError
from harness.gates import (
    apply_rules,
    holm,
    judge_against_fp32,
    judge_against_reference_backend,
    judge_kernel_loss,
    loss_split,
)
from harness.machine.environment import collect_environment
from harness.measure.evidence import drift_between, flips_between_runs
from harness.options.commands import changed_options, changed_selection, command_of
from harness.options.tolerances import load_tolerances
from harness.options.values import HarnessOptions
from harness.protocols import Progress, no_progress
from harness.records import Accuracy, Artifact, Environment, Outcome, Record, Run, Status, Verdict
from harness.report.files import write_reports
from harness.report.junit import junit_properties
from harness.run.case import CaseRun, Comparison
from harness.run.plan import Plan
from harness.specs import (
    REFERENCE_BACKEND,
    BuildOptions,
    Case,
    Precision,
)
from harness.store.baselines import BaselineStore
from harness.store.runs import RunStore
from harness.worker.requests import CaseRequest

EMULATION_BACKEND = "ort-emulation"
ACCURACY_GATES = ("fp32", "reference", "kernel", "baseline")
GATES = (*ACCURACY_GATES, "latency")  # judged together, after all cases were measured


class RunSession:
    """One run: its folder, its cases, its references."""

    def __init__(
        self,
        options: HarnessOptions,
        plan: Plan,
        *,
        command: str,
        gates: Collection[str] = GATES,
        progress: Callable[[str], Progress] = lambda label: no_progress,
    ) -> None:
        """Begin a run. `gates`: those that a selected test asks for; no other is judged, nor measured for."""
        self.options, self.plan, self.notes = options, plan, list[str]()
        self._gates = frozenset(gates)
        self._progress = progress
        self._tolerances = load_tolerances(Path(options.root), backends=list_backends())
        self._cases: dict[str, CaseRun] = {}  # of this run, in order
        self._references: dict[str, CaseRun] = {}  # made for comparison alone
        self._records: dict[str, Record] = {}
        self._judged = False
        self._judge_error: Exception | None = None
        now = datetime.datetime.now(datetime.timezone.utc)
        environment = self._run_environment()
        self.run = Run(
            id=run_id(Path(options.report_dir), now),
            started_at=now.isoformat(timespec="seconds"),
            command=command,
            environment=environment,
            backends=plan.backends,
            options=changed_options(options),
            skipped=plan.left_out,
        )
        self.store = RunStore(Path(options.report_dir), self.run)
        self.baselines = BaselineStore(Path(options.baseline_dir))

    # -- first phase: cases, one after the other

    def open_case(self, case: Case) -> CaseRun:
        """Return a case ready to be measured."""
        if case.id not in self._cases:
            self._cases[case.id] = self._case_run(case)
        return self._cases[case.id]

    def close_case(self, run: CaseRun) -> None:
        """End a case's worker and write what it found, as yet without the verdicts over all cases."""
        run.close()
        self.store.append(self._record_of(run))

    def note_failure(self, case_id: str, reason: str) -> None:
        """Remember that a test of a case failed."""
        if case_id in self._cases and reason:
            run = self._cases[case_id]
            run.test_failure = run.test_failure or reason.splitlines()[0]

    # -- second phase: verdicts over all cases

    def judged(self, case: Case) -> CaseRun:
        """Return a case with the verdicts of every gate; judges all cases of the run at the first call.

        Raises: the case's own error when there is nothing to judge.
        """
        self._judge_all()
        run = self.open_case(case)
        if run.failure is not None:
            raise run.failure
        run.prepare()
        return run

    def _judge_all(self) -> None:
        if self._judge_error is not None:
            raise self._judge_error
        if self._judged:
            return
        try:
            self._judge_cases()
        except Exception as error:  # kept for every other case: none may pass because judging broke at the first
            self._judge_error = error
            raise
        self._judged = True

    def _judge_cases(self) -> None:
        found: list[tuple[CaseRun, Verdict]] = []
        for case in self.plan.cases:
            run = self._measured(case)
            if run is None:
                continue
            for judge in (self._judge_accuracy, self._judge_against_baseline):
                try:
                    found += [(run, verdict) for verdict in judge(run)]
                except HarnessError as error:
                    run.failure = run.failure or error
            run.close()
        # One false-alarm rate for all cases that ask for the same one.
        for alpha in {run.tolerance.alpha for run, _ in found}:
            family = [(run, verdict) for run, verdict in found if run.tolerance.alpha == alpha]
            verdicts = apply_rules(
                holm([verdict for _, verdict in family], alpha=alpha),
                strict=self.options.strict,
                require_baseline=self.options.baseline == "require",
            )
            for (run, _), verdict in zip(family, verdicts, strict=True):
                run.add_verdicts((verdict,))

    def _measured(self, case: Case) -> CaseRun | None:
        """Return a case with what its gates look at; None when it has nothing to judge."""
        run = self.open_case(case)
        if run.failure is not None or run.is_unsupported:
            return None
        try:
            if not run.model.timing_only and self._gates.intersection(ACCURACY_GATES):
                run.accuracy()
            if "latency" in self._gates:
                run.latencies()
        except HarnessError:
            return None  # the error stays with the case, whose tests and record show it
        return run

    def _judge_against_baseline(self, run: CaseRun) -> tuple[Verdict, ...]:
        if self.options.baseline == "ignore":
            return ()
        record = self._record_of(run)
        verdicts = self.baselines.judge(record, tolerance=run.tolerance)
        if run.model.expects_int8_loss and run.case.precision is Precision.INT8:
            baseline = self.baselines.load(run.case, record.environment)
            if baseline is not None and baseline.environment.cpu_isa != record.environment.cpu_isa:
                # How much a planted victim loses depends on the CPU's kernels and the width of the weights they need.
                verdicts = tuple(_excused(verdict) if verdict.gate == "baseline" else verdict for verdict in verdicts)
        return tuple(verdict for verdict in verdicts if verdict.gate in self._gates)

    def _judge_accuracy(self, run: CaseRun) -> list[Verdict]:
        case, verdicts = run.case, list[Verdict]()
        if not run.was_scored:
            return verdicts
        expects_loss = run.model.expects_int8_loss
        if case.precision is not Precision.FP32 and "fp32" in self._gates:
            fp32 = self._reference(case, backend=case.backend, device=case.device)
            verdicts.append(
                judge_against_fp32(
                    run.accuracy(),
                    fp32.accuracy(),
                    tolerance=run.tolerance,
                    precision=case.precision,
                    expects_loss=expects_loss,
                )
            )
            run.comparison = Comparison(
                drift=drift_between(fp32.outputs(), run.outputs(), kind=run.model.output_kind, reference=fp32.case.id),
                flips=flips_between_runs(fp32.accuracy(), run.accuracy(), self.options.data),
            )
        is_reference = case.backend == REFERENCE_BACKEND and case.precision is Precision.FP32
        if "reference" in self._gates and not is_reference:
            reference = self._reference(case, backend=REFERENCE_BACKEND, device="cpu")
            verdict = judge_against_reference_backend(
                run.accuracy(), reference.accuracy(), tolerance=run.tolerance, reference_name=REFERENCE_BACKEND
            )
            verdicts.append(_excused(verdict) if expects_loss and case.precision is Precision.INT8 else verdict)
        artifact = run.prepare().artifact
        if artifact is not None and artifact.is_qdq and "kernel" in self._gates:
            emulation = self._emulation(case, artifact)
            verdicts.append(judge_kernel_loss(run.accuracy(), emulation, tolerance=run.tolerance))
            fp32 = self._reference(case, backend=case.backend, device=case.device)
            split = loss_split(fp32.accuracy(), emulation, run.accuracy())
            run.comparison = replace(run.comparison, loss_split=split, emulation=emulation)
        return verdicts

    def _reference(self, case: Case, *, backend: str, device: str) -> CaseRun:
        """Return the FP32 case that another is compared with: of this run, or made now for that alone."""
        wanted = Case(model=case.model, backend=backend, precision=Precision.FP32, recipe="none", device=device)
        run = self._cases.get(wanted.id) or self._references.get(wanted.id)
        if run is None:
            run = self._references[wanted.id] = self._case_run(wanted)
        if not run.was_scored:
            run.accuracy()
            run.close()
        return run

    def _emulation(self, case: Case, artifact: Artifact) -> Accuracy:
        """Return the accuracy of the float emulation of a Q/DQ file, computed once for all backends."""
        if artifact.sha256 not in self._references:
            emulated = replace(case, backend=EMULATION_BACKEND, device="cpu")
            run = self._references[artifact.sha256] = self._case_run(emulated, artifact=artifact)
            run.accuracy()
            run.close()
        return self._references[artifact.sha256].accuracy()

    # -- what a case needs

    def _case_run(self, case: Case, *, artifact: Artifact | None = None) -> CaseRun:
        options, model = self.options, self.plan.models[case.model]
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
            outputs_path=str(self.store.folder.absolute() / "outputs" / f"{name}.f32"),
            artifact=artifact,
        )
        given = {name: getattr(options, name) for name in ("floor", "max_drop", "max_slowdown", "alpha")}
        return CaseRun(
            request,
            tolerance=self._tolerances.tolerance_for(case, model, options.data.name, command_line=given),
            log_path=self.store.folder.absolute() / "logs" / f"{name}.log",
            python=options.worker_python,
            extension_dirs=options.extension_dirs,
            timeout_s=options.timeout_s,
            strict=options.strict,
            progress=self._progress,
        )

    def _environment(self, backend: str, device: str) -> Environment:
        found = next((a for a in self.plan.backends if a.backend == backend), None)
        root = Path(self.options.root)
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

    def _run_environment(self) -> Environment:
        """Describe the machine with the versions of all backends, and the first accelerator if one takes part."""
        devices = {case.device: case.backend for case in reversed(self.plan.cases)}
        device = next((name for name in devices if name != "cpu"), "cpu")
        environment = self._environment(devices.get(device, ""), device)
        versions = {name: version for a in self.plan.backends for name, version in a.versions.items()}
        return replace(environment, versions={**environment.versions, **versions})

    def _record_of(self, run: CaseRun) -> Record:
        known = self._records.get(run.case.id)
        record = run.record(
            environment=known.environment if known else self._environment(run.case.backend, run.case.device),
            recorded_at=known.recorded_at if known else utc_now(),
            command=command_of(run.case, self.options),
        )
        self._records[run.case.id] = record
        return record

    # -- the end

    @property
    def records(self) -> list[Record]:
        """Return the records of all cases that were opened, in the order they ran."""
        return [self._record_of(run) for run in self._cases.values()]

    def properties_of(self, case_id: str) -> list[tuple[str, str]]:
        """Return what junit.xml shall say of a case, as far as it is known."""
        return junit_properties(self._record_of(self._cases[case_id])) if case_id in self._cases else []

    def problem(self) -> str:
        """Return why a run whose tests all passed is no success; "" when it is one."""
        records = self.records
        if all(record.status is Status.UNSUPPORTED for record in records):
            return "no case ran: every one was unsupported or skipped"
        bad = [record.case.id for record in records if record.status in (Status.FAILED, Status.ERROR)]
        return f"failed without a test that says so (deselected?): {', '.join(bad)}" if bad else ""

    def finish(self, *, clean: bool, is_whole: bool = False) -> None:
        """Write records, summary, report, and asked-for baselines of a clean run. Measures and judges nothing more.

        `clean`: every test passed. `is_whole`: nothing was deselected and nothing ended early.
        Raises: ConfigError when a file cannot be written.
        """
        for run in (*self._cases.values(), *self._references.values()):
            run.close()
            if self._gates and not self._judged:
                run.unfinished = "the run ended before this case was judged"
        records = self.records
        is_full = is_whole and not changed_selection(self.options) and len(records) == len(self.plan.cases)
        self.notes += self._baseline_notes(records, clean=clean and not self.problem(), is_full=is_full)
        self.run = replace(self.run, finished_at=utc_now(), notes=tuple(self.notes), is_full=is_full)
        try:
            self.store.finish(self.run, records)
        except OSError as error:
            raise ConfigError(
                f"{self.store.folder}: the run cannot be finished ({error}); its cases are in records.jsonl"
            ) from error
        self.notes += write_reports(self.store.folder, self.run, records)

    def _baseline_notes(self, records: list[Record], *, clean: bool, is_full: bool) -> list[str]:
        notes = []
        if self.options.update_baselines:
            whole = [record for record in records if self._is_complete(record)]
            for record in whole:
                self.baselines.queue(record, accepted_by="pytest --update-baselines", accepted_at=utc_now())
            written = self.baselines.flush(is_clean=clean)
            notes.append(f"baselines: wrote {len(written)}" if clean else "baselines: none written, run not clean")
            n_partial = len(records) - len(whole)
            if clean and n_partial:
                notes.append(f"baselines: {n_partial} not written: not scored, timed and judged in this run")
        missing = [r.case.id for r in records if any(v.outcome is Outcome.NO_BASELINE for v in r.verdicts)]
        if missing and not self.options.update_baselines:
            notes.append(
                f"baselines: {len(missing)} of {len(records)} cases have none ({', '.join(missing[:3])}"
                f"{', ...' if len(missing) > 3 else ''}); create them with --update-baselines, or: "
                "harness baseline accept latest"
            )
        unused = self.baselines.unused(records, skipped_backends=self.plan.left_out) if is_full else ()
        if unused:
            names = ", ".join(path.stem for path in unused)
            notes.append(f"baselines: unused: {names}; remove them with: harness baseline prune")
        return notes

    def _is_complete(self, record: Record) -> bool:
        """Tell whether a record has all that a baseline is for; half a one would make the next run blind."""
        if record.status is not Status.PASSED or not record.latencies:
            return False
        if self.plan.models[record.case.model].timing_only:
            return True
        is_fp32 = record.case.precision is Precision.FP32
        is_reference = is_fp32 and record.case.backend == REFERENCE_BACKEND
        needed = {"reference"} - ({"reference"} if is_reference else set()) | (set() if is_fp32 else {"fp32"})
        return record.accuracy is not None and needed <= {verdict.gate for verdict in record.verdicts}


def _excused(verdict: Verdict) -> Verdict:
    """Return a verdict of a planted victim: its loss is told, not failed."""
    if not verdict.is_failure:
        return verdict
    return replace(
        verdict, is_failure=False, code="expected_loss", message=f"expected of this model: {verdict.message}", advice=""
    )


def utc_now() -> str:
    """Return the time now, UTC, ISO 8601 to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def run_id(report_dir: Path, now: datetime.datetime) -> str:
    """Return a new run's name: its UTC start, and a number when another run began in the same second."""
    stem = now.strftime("%Y%m%dT%H%M%SZ")
    number, name = 1, stem
    while (report_dir / name).exists():
        number += 1
        name = f"{stem}-{number}"
    return name

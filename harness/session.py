"""One run of the suite: cases in turn, then verdicts over all of them, then files.

Verdicts that compare cases wait until every case is measured: they share one false-alarm rate (Holm), and a case's
reference may come after it.
"""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import platformdirs

from harness.backends import list_backends
from harness.baselines import BaselineStore
from harness.case_run import CaseRun, Comparison
from harness.compare import (
    apply_rules,
    holm,
    judge_against_fp32,
    judge_against_reference_backend,
    judge_kernel_loss,
    loss_split,
)
from harness.comparisons import drift_between, flips_between_runs
from harness.environment import collect_environment
from harness.errors import HarnessError
from harness.measure import Progress, no_progress
from harness.options import HarnessOptions
from harness.plan import Plan
from harness.records import Accuracy, Artifact, Environment, Outcome, Record, Run, Status, Verdict
from harness.render.junit import junit_properties
from harness.reports import write_reports
from harness.requests import CaseRequest
from harness.specs import BuildOptions, Case, DatasetRequest, Precision, Tolerance
from harness.store import RunStore
from harness.tolerances import load_tolerances

REFERENCE_BACKEND = "ort"
EMULATION_BACKEND = "ort-emulation"
JOINT_GATES = ("fp32", "reference", "kernel", "baseline", "latency")  # judged together, under Holm


class RunSession:
    """One run: its folder, its cases, its references."""

    def __init__(
        self,
        options: HarnessOptions,
        plan: Plan,
        *,
        command: str,
        progress: Callable[[str], Progress] = lambda label: no_progress,
    ) -> None:
        self.options, self.plan, self.notes = options, plan, list[str]()
        self._progress = progress
        self._tolerances = load_tolerances(Path(options.root), backends=list_backends())
        self._cases: dict[str, CaseRun] = {}  # of this run, in order
        self._references: dict[str, CaseRun] = {}  # made for comparison alone
        self._records: dict[str, Record] = {}
        self._judged = False
        now = datetime.datetime.now(datetime.timezone.utc)
        environment = self._environment(plan.backends[0].backend, plan.cases[0].device)
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
        if self._judged:
            return
        self._judged = True
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
        alpha = self.options.alpha or Tolerance().alpha
        verdicts = apply_rules(
            holm([verdict for _, verdict in found], alpha=alpha),
            strict=self.options.strict,
            require_baseline=self.options.baseline == "require",
        )
        for (run, _), verdict in zip(found, verdicts, strict=True):
            run.add_verdicts((verdict,))

    def _measured(self, case: Case) -> CaseRun | None:
        """Return a case with its accuracy if it is to have one; None when it has nothing to judge."""
        run = self.open_case(case)
        if run.failure is not None or run.is_unsupported:
            return None
        if not run.model.timing_only and not run.was_scored:
            try:
                run.accuracy()
            except HarnessError:
                return None  # the error stays with the case, whose tests and record show it
        return run

    def _judge_against_baseline(self, run: CaseRun) -> tuple[Verdict, ...]:
        if self.options.baseline == "ignore":
            return ()
        return self.baselines.judge(self._record_of(run), tolerance=run.tolerance)

    def _judge_accuracy(self, run: CaseRun) -> list[Verdict]:
        case, verdicts = run.case, list[Verdict]()
        if not run.was_scored:
            return verdicts
        expects_loss = run.model.expects_int8_loss
        if case.precision is not Precision.FP32:
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
        if not (case.backend == REFERENCE_BACKEND and case.precision is Precision.FP32):
            reference = self._reference(case, backend=REFERENCE_BACKEND, device="cpu")
            verdict = judge_against_reference_backend(
                run.accuracy(), reference.accuracy(), tolerance=run.tolerance, reference_name=REFERENCE_BACKEND
            )
            verdicts.append(_excused(verdict) if expects_loss and case.precision is Precision.INT8 else verdict)
        artifact = run.prepare().artifact
        if artifact is not None and artifact.is_qdq:
            emulation = self._emulation(case, artifact)
            verdicts.append(judge_kernel_loss(run.accuracy(), emulation, tolerance=run.tolerance))
            fp32 = self._reference(case, backend=case.backend, device=case.device)
            split = loss_split(fp32.accuracy(), emulation, run.accuracy())
            run.comparison = replace(run.comparison, loss_split=split)
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
                trt=options.trt,
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
            backend_dirs=options.backend_dirs,
            timeout_s=options.timeout_s,
            progress=self._progress,
        )

    def _environment(self, backend: str, device: str) -> Environment:
        found = next((a for a in self.plan.backends if a.backend == backend), None)
        root = Path(self.options.root)
        if found is None:
            return collect_environment(checkout=root)
        names = dict(zip(found.devices, found.device_names, strict=False))
        return collect_environment(
            device=device,
            device_name=names.get(device, ""),
            driver=found.driver,
            compute_capability=found.compute_capability,
            versions=found.versions,
            checkout=root,
        )

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

    def finish(self, *, clean: bool) -> None:
        """Write records, summary, report, and asked-for baselines of a clean run. Measures and judges nothing more."""
        for run in (*self._cases.values(), *self._references.values()):
            run.close()
        self.run = replace(self.run, finished_at=utc_now(), notes=tuple(self.notes))
        records = self.records
        self.store.finish(self.run, records)
        self.notes += write_reports(self.store.folder, self.run, records)
        self.notes += self._baseline_notes(records, clean=clean)

    def _baseline_notes(self, records: list[Record], *, clean: bool) -> list[str]:
        notes = []
        if self.options.update_baselines:
            for record in records:
                if record.status is Status.PASSED:
                    self.baselines.queue(record, accepted_by="pytest --update-baselines", accepted_at=utc_now())
            written = self.baselines.flush(is_clean=clean)
            notes.append(
                f"baselines: wrote {len(written)}" if clean else "baselines: none written, the run was not clean"
            )
        missing = [r.case.id for r in records if any(v.outcome is Outcome.NO_BASELINE for v in r.verdicts)]
        if missing and not self.options.update_baselines:
            notes.append(
                f"baselines: {len(missing)} of {len(records)} cases have none ({', '.join(missing[:3])}"
                f"{', ...' if len(missing) > 3 else ''}); create them with --update-baselines, or: "
                "harness baseline accept latest"
            )
        unused = self.baselines.unused(records)
        if unused and self.options == replace(HarnessOptions(), root=self.options.root):
            names = ", ".join(path.stem for path in unused)
            notes.append(f"baselines: unused: {names}; remove them with: harness baseline prune")
        return notes


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


def changed_options(options: HarnessOptions) -> dict[str, str]:
    """Return the options that differ from their defaults, as text."""
    changed = {}
    for part, default in (
        (options, HarnessOptions()),
        (options.data, DatasetRequest()),
        (options.timing, type(options.timing)()),
    ):
        for field in fields(part):
            value = getattr(part, field.name)
            if value != getattr(default, field.name) and field.name not in ("data", "timing", "root"):
                changed[field.name] = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return changed


def command_of(case: Case, options: HarnessOptions) -> str:
    """Return the command that repeats one case alone."""
    asked = next((name for name in options.models if Path(name).stem == case.model), case.model)
    words = [
        "pytest",
        "suites/",
        f"--backend={case.backend}",
        f"--precision={case.precision.value}",
        f"--model={asked}",
    ]
    if case.precision is Precision.INT8:
        words.append(f"--recipe={case.recipe}")
    data, default = options.data, DatasetRequest()
    flags = (
        ("--dataset", data.name, default.name),
        ("--data-dir", data.data_dir, None),
        ("--split", data.split, default.split),
        ("--score-from", data.score_first, default.score_first),
        ("--score-images", data.score_images, default.score_images),
        ("--calibration-images", data.calibration_images, default.calibration_images),
        ("--calibration-from", data.calibration_first, default.calibration_first),
        ("--batch-size", ",".join(map(str, options.timing.batch_sizes)), "1,100"),
    )
    words += [f"{flag}={value}" for flag, value, usual in flags if value != usual]
    return shlex.join(words)

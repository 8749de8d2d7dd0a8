"""A run that was killed or interrupted goes on where it stood: what its records hold is not measured again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError, HarnessError
from harness.options.commands import changed_options, shape_of
from harness.options.values import HarnessOptions
from harness.records import Environment, Record, Run, Support
from harness.run.plan import Plan
from harness.store.cache import sha256_of_file
from harness.store.runs import find_unfinished, load_run
from harness.worker.requests import LayerReport, Prepared, ThroughputReport

# What must be alike, or one run would hold the times of two.
SAME = ("device_type", "versions", "python", "os", "driver", "cuda_version")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What an earlier process measured of a case."""

    record: Record
    answers: Mapping[str, object]  # of its worker, by the call's name
    failure: HarnessError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """The header and the records of a run that goes on; the newest of each case."""

    run: Run
    records: tuple[Record, ...]


def resumed_run(options: HarnessOptions, plan: Plan, environment: Environment) -> Resumed | None:
    """Return the run that `--resume` names, None without one.

    Raises: ConfigError for one that has finished, was started with other options or on another machine, or measured
    what is not planned now; DataError for a damaged one.
    """
    if not options.resume:
        return None
    folder = find_unfinished(Path(options.report_dir), options.resume)
    run, records = load_run(folder)
    if folder.resolve() != (Path(options.report_dir) / run.id).resolve():
        raise ConfigError(f"--resume={options.resume}: {folder} is not the folder of run {run.id} in --report-dir")
    refused = _why_not(run, records, options, plan, environment)
    if refused:
        raise ConfigError(f"--resume={options.resume}: run {run.id} {refused}")
    measured = {record.case.id: record for record in records if not record.is_reference}
    return Resumed(run=run, records=tuple(measured.values()))


def _why_not(run: Run, records: Sequence[Record], options: HarnessOptions, plan: Plan, environment: Environment) -> str:
    """Return why a run cannot go on here, "" when it can."""
    if run.finished_at:
        return "has finished; there is nothing to resume"
    if shape_of(run.options) != shape_of(changed_options(options)):
        return f"was started with other options; repeat those of: {run.command}"
    unlike = [field for field in SAME if getattr(run.environment, field) != getattr(environment, field)]
    if unlike:
        return f"was started on another machine or version ({', '.join(unlike)})"
    planned = {case.id for case in plan.cases}
    gone = {record.case.id for record in records if not record.is_reference} - planned
    return f"measured {', '.join(sorted(gone))}, which is not selected now" if gone else ""


def known_of(record: Record, outputs: Path) -> Known | None:
    """Return what a record tells of its case's measurements.

    `outputs`: the raw outputs of the scored images, float32[N, K]. None where they are not those that were scored: the
    case is measured again.
    """
    answers: dict[str, object] = {}
    if record.artifact is not None or record.unsupported:
        support = Support(supported=not record.unsupported, reason=record.unsupported)
        answers["prepare"] = Prepared(support=support, artifact=record.artifact, engine=record.engine)
    if record.accuracy is not None:
        if not outputs.is_file() or sha256_of_file(outputs) != record.accuracy.outputs_sha256:
            return None
        answers["score"] = record.accuracy
    if record.samples is not None:
        if not outputs.is_file():
            return None
        answers["run_samples"] = record.samples
    if record.latencies:
        answers["time"] = record.latencies
    if record.throughput:
        answers["throughput"] = ThroughputReport(found=record.throughput)
    if record.effective_precision is not None:
        answers["layers"] = LayerReport(layers=record.layers, effective_precision=record.effective_precision)
    if record.invariance:
        answers["invariance"] = record.invariance
    return Known(record=record, answers=answers, failure=HarnessError(record.error) if record.error else None)

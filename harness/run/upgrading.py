"""An upgrade from start to end: both sides are measured, judged as one family, and told on one page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import ConfigError
from harness.gates import CaseVerdicts, UpgradeSide, judge_upgrade
from harness.options.values import HarnessOptions
from harness.records import Record, Run
from harness.report.files import summary_of_run, write_reports
from harness.report.model import Report, build_report
from harness.report.progress import CaseProgress
from harness.run.bridge import Bridge, Measured
from harness.run.sides import Side, sides_of
from harness.store.runs import write_atomically


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """What an upgrade did, and where it is written."""

    report: Report
    files: tuple[str, ...]  # a line each: "report: PATH"

    @property
    def verdicts(self) -> list[CaseVerdicts]:
        """Return (case id, verdicts) of every case of either side."""
        return [(record.case.id, record.verdicts) for record in self.report.records]


def run_upgrade(
    options: HarnessOptions,
    places: tuple[str, str],
    labels: tuple[str, str],
    *,
    models_dir: Path,
    command: str,
    echo: Callable[[str], None],
    has_times: bool = True,
) -> Upgrade:
    """Run the same cases under two interpreters and judge side B against side A.

    `places`, `labels`: as `sides_of` takes them; `echo`: is told each side, each case that is done, and what is timed
    again; `has_times`: times are compared, too.
    Raises: ConfigError for an environment that is not complete or a folder that cannot be written; MeasurementError
    when the sides share no case; what `plan_run` raises.
    """
    sides = sides_of(options, places, labels, models_dir=models_dir)
    for side in sides:
        for line in side_lines(side):
            echo(line)
    bridge = Bridge(sides, report_dir=Path(options.report_dir), command=command, has_times=has_times)
    progress = CaseProgress([case.id for case in bridge.cases])
    measured = bridge.measure(lambda case_id, failure: echo(progress.line(case_id, failure)), echo)
    return judged_upgrade(measured)


def judged_upgrade(measured: Measured) -> Upgrade:
    """Judge what two sides measured, and write page, Markdown and summary. Raises: ConfigError, MeasurementError."""
    first, second = measured.sides
    before, after = (
        [_with_tolerance(record, side) for record in records]
        for side, records in zip(measured.sides, measured.records, strict=True)
    )
    judged = judge_upgrade(before, after, sides=(_named(first), _named(second)))
    runs = [
        replace(run, id=f"{measured.name} {_called(side)}", notes=(*run.notes, *side_lines(side), *_prepared(before)))
        for side, run in zip(measured.sides, measured.runs, strict=True)
    ]
    report = build_report(runs[1], judged, previous=(runs[0], before))
    return Upgrade(report=report, files=tuple(_write(measured.folder, runs[1], report)))


def side_lines(side: Side) -> list[str]:
    """Return what a side is: its interpreter, its backends with their versions, and what cannot run there."""
    told = [f"{found.backend} ({_versions(found.versions)})" for found in side.plan.backends]
    line = f"{_called(side)}: {side.interpreter.python}, Python {side.interpreter.version}: {', '.join(told)}"
    return [line, *(f"{_called(side)}: {text.strip()}" for text in side.plan.lines_left_out())]


def _called(side: Side) -> str:
    return f"side {side.letter.upper()}" + (f" ({side.label})" if side.label else "")


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _prepared(before: Sequence[Record]) -> tuple[str, ...]:
    n_files = len({record.artifact.sha256 for record in before if record.artifact is not None})
    return (f"{n_files} files prepared by side A; side B ran the same ones",) if n_files else ()


def _named(side: Side) -> UpgradeSide:
    versions = {found.backend: found.versions for found in side.plan.backends}
    return UpgradeSide(letter=side.letter, versions=versions, label=side.label)


def _with_tolerance(record: Record, side: Side) -> Record:
    """Return a record that accepts what was typed: --max-drop is between two sides, not between precisions."""
    max_drop = side.options.max_drop
    if max_drop is None:
        return record
    return replace(record, tolerance=replace(record.tolerance, max_drop_baseline=max_drop))


def _write(folder: Path, run: Run, report: Report) -> list[str]:
    try:
        write_atomically(folder / "summary.json", summary_of_run(run, report.records))
    except OSError as error:
        raise ConfigError(f"{folder}: the comparison cannot be written ({error.strerror})") from error
    return write_reports(folder, report)

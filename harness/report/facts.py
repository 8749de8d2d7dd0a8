"""What a report says of the run as a whole: machine, versions and what changed in them, length, sensitivity."""

from __future__ import annotations

from collections.abc import Sequence

from harness.gates import preparation_of
from harness.options.commands import shape_of
from harness.records import Environment, Record, Run
from harness.report.drill import drill_text, has_failed_drill
from harness.report.format import format_decimals, format_number, format_points, moment_from_iso, plural
from harness.report.rows import Row
from harness.report.standing import BAD, TIMES, Standing, has_real_loss
from harness.store.history import changed_versions

BY_DEFAULT = "by default"
TOP1 = "top-1"
DOUBTFUL = {Standing.DID_NOT_RUN, Standing.NOT_JUDGED, Standing.INCONCLUSIVE, Standing.WAIVED}
RANGES = "calibration ranges"  # differ between recipes of one model; a case's verdict names them


def tone_of_run(run: Run, rows: Sequence[Row], missing: Sequence[str]) -> str:
    """Return bad, warn or good for the whole run; only a finished run that holds is good."""
    standings = {row.standing for row in rows}
    if not rows or standings & set(BAD):
        return "bad"
    if has_failed_drill(run) or any(has_real_loss(row.record) for row in rows):
        return "warn"
    if missing or not run.finished_at or DOUBTFUL & standings:
        return "warn"
    return "good" if {Standing.PASSED, Standing.IMPROVED} & standings else "warn"


def machine_facts(run: Run, records: Sequence[Record]) -> list[tuple[str, str]]:
    """Return (name, text) of where and how the run was made."""
    environment = run.environment
    device = environment.device_name if environment.device_name != environment.cpu_model else ""
    facts = [
        ("Machine", environment.machine),
        ("CPU", f"{environment.cpu_model}, {environment.cpu_isa}, {plural(environment.n_cpus, 'CPU')}"),
        ("Device", ", ".join(part for part in (device, environment.compute_capability) if part)),
        ("Driver", environment.driver),
        ("CUDA", environment.cuda_version),
        ("System", f"{environment.os}, Python {environment.python}"),
        ("Commit", environment.commit[:12]),
        ("Images", _images_text(records)),
        ("Smallest loss a gate would catch", _sensitivity_text(records)),
        ("Fire drill", drill_text(run)),
    ]
    facts += [(f"Left out: {name}", why) for name, why in sorted(run.skipped.items())]
    facts += [("Note", note) for note in run.notes]
    return [(name, text) for name, text in facts if text]


def version_facts(
    run: Run, records: Sequence[Record], previous: tuple[Run, Sequence[Record]] | None
) -> list[tuple[str, str, str]]:
    """Return (library, model or option; what it is; what it was in the previous run where that differs).

    What changed comes first.
    """
    here = _environment_facts(run.environment)
    changed = changed_versions(_environment_facts(previous[0].environment), here) if previous else {}
    if previous:
        changed |= _changed_models(previous[1], records) | _changed_options(previous[0], run)
    rows = [(name, after or "gone", before or "absent") for name, (before, after) in changed.items()]
    shown = run.environment.versions.items()
    return rows + [(name, text, "") for name, text in sorted(shown) if name not in changed]


def _changed_models(before: Sequence[Record], now: Sequence[Record]) -> dict[str, tuple[str, str]]:
    """Return what of the models in both runs changed: file, preprocessing, calibration -> (before, now)."""
    old, new = _facts_of_models(before), _facts_of_models(now)
    return {name: (old[name], new[name]) for name in sorted(old.keys() & new.keys()) if old[name] != new[name]}


def _changed_options(before: Run, now: Run) -> dict[str, tuple[str, str]]:
    """Return what else the run was asked for, of what chooses cases or shapes their results: flag -> (before, now)."""
    changed = changed_versions(shape_of(before.options), shape_of(now.options))
    return {flag: (old or BY_DEFAULT, new or BY_DEFAULT) for flag, (old, new) in changed.items()}


def _facts_of_models(records: Sequence[Record]) -> dict[str, str]:
    found = {}
    for record in records:
        model = record.case.model
        if record.artifact is not None:
            found[f"model {model}"] = record.artifact.source_sha256[:8]
        found |= {f"{model} {name}": text for name, text in preparation_of(record).items() if name != RANGES}
    return found


def run_length_s(run: Run) -> float | None:
    """Return the length of a run [s], None when it did not finish."""
    start, end = moment_from_iso(run.started_at), moment_from_iso(run.finished_at)
    return (end - start).total_seconds() if start and end else None


def _environment_facts(environment: Environment) -> dict[str, str]:
    named = {
        "python": environment.python,
        "system": environment.os,
        "driver": environment.driver,
        "CUDA": environment.cuda_version,
        "device": environment.device_name,
        "cpu": environment.cpu_model,
        "commit": environment.commit[:12],
    }
    return environment.versions | {name: text for name, text in named.items() if text}


def _images_text(records: Sequence[Record]) -> str:
    ranges = {record.accuracy.images: None for record in records if record.accuracy}
    return "; ".join(
        f"{images.n_images:,} of {images.dataset}/{images.split} from {images.first:,}" for images in list(ranges)[:3]
    )


def _sensitivity_text(records: Sequence[Record]) -> str:
    """Return the smallest losses that gates of scores would have seen, by metric; times have theirs beside them."""
    losses: dict[str, list[float]] = {}
    units: dict[str, str | None] = {}  # None: a fraction, whose losses are points
    for record in records:
        leading = record.samples.leading if record.samples is not None else None
        for verdict in record.verdicts:
            if verdict.detectable is None or verdict.is_failure or verdict.gate in TIMES:
                continue
            losses.setdefault(verdict.metric or TOP1, []).append(verdict.detectable)
            if leading is not None and verdict.metric == leading.name:
                units[leading.name] = None if leading.is_fraction else leading.unit
    if not losses:
        return ""
    told = (f"{_span(found, units.get(name))} of {name}" for name, found in losses.items())
    return f"{'; '.join(told)}, in one comparison"


def _span(losses: Sequence[float], unit: str | None) -> str:
    """Return the smallest and the largest of some losses; `unit`: None of fractions."""
    low, high = min(losses), max(losses)
    if unit is not None:
        ends = [format_number(loss) for loss in ((low, high) if low < high else (high,))]
        return f"{' to '.join(ends)} {unit}".rstrip()
    span = format_points(high, signed=False)
    return f"{format_decimals(100 * low, 2)} to {span}" if low < high else span

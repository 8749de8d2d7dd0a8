"""One case over the nights, in words: its level on every type of device, and when and with what it changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from harness.errors import DataError
from harness.report.plots import format_metric, metric_name
from harness.store.all_series import read_changes
from harness.store.history import History, Step, load_history
from harness.store.nights import FOLDER, has_parquet, read_series

DATE = len("2026-11-26")
MAX_CHANGES = 60


def history_lines(reports: Path, case_id: str, *, last: int = 365, device: str = "") -> list[str]:
    """Return what is known of a case over the newest `last` runs below a report folder.

    `device`: a part of the names of the device types that are wanted; summaries do not tell them.

    It is read from the nights in Parquet where there are any, else from the summaries of the runs.
    Raises: DataError for a case that no run has; ConfigError where Parquet cannot be read.
    """
    histories: Mapping[str, History]
    if has_parquet() and any((reports / FOLDER).glob("night=*/*.parquet")):
        histories = read_series(reports / FOLDER, case_id, last=last, device=device)
    else:
        histories = {"": load_history(reports, last=last)}
        if case_id not in histories[""].case_ids:
            raise DataError(f"{reports} has no run with a case {case_id}")
    return [line for device, history in histories.items() for line in _lines(device, history, case_id)]


def change_lines(reports: Path, *, last: int = 365, device: str = "") -> list[str]:
    """Return the lasting changes of all cases over the newest `last` nights, a line each, the newest first.

    Raises: DataError without nights in Parquet; ConfigError where they cannot be read.
    """
    found = read_changes(reports / FOLDER, last=last, device=device)
    first, newest = found.nights[0], found.nights[-1]
    n_changes = len(found.changes)
    told = f"{n_changes:,} lasting changes" if n_changes != 1 else "1 lasting change"
    lines = [f"{found.n_series:,} series over {len(found.nights)} nights, {first} to {newest}: {told}"]
    for change in found.changes[:MAX_CHANGES]:
        step = change.step
        before, after = (format_metric(step.metric, level) for level in (step.before, step.after))
        word = "worse" if step.is_worse else "better"
        where = f"{step.case_id} on {change.device_type}"
        lines.append(f"  {change.night} {word}: {where}, {metric_name(step.metric)}: {before} -> {after}")
    if n_changes > MAX_CHANGES:
        lines.append(f"  and {n_changes - MAX_CHANGES:,} more; name a case, or a part of a device type with --device")
    return lines


def _lines(device: str, history: History, case_id: str) -> Iterator[str]:
    first, newest = history.runs[0].started_at[:DATE], history.runs[-1].started_at[:DATE]
    n_runs = len(history.runs)
    on = f" on {device}" if device else ""
    yield f"{case_id}{on}: {n_runs} {'run' if n_runs == 1 else 'runs'}, {first} to {newest}"
    n_images = float(history.n_images[history.case_ids.index(case_id)])
    for metric, values in history.series(case_id).items():
        known = np.flatnonzero(np.isfinite(values))
        was, now = (format_metric(metric, float(values[known[end]]), n_images) for end in (0, -1))
        steps = [step for step in history.steps if (step.case_id, step.metric) == (case_id, metric)]
        yield f"  {metric_name(metric)}: {was} at first, {now} now{'' if steps else ', no lasting change'}"
        yield from (f"    {_step_in_words(step, history, n_images)}" for step in steps)
    yield from (f"  {note}" for note in history.notes)


def _step_in_words(step: Step, history: History, n_images: float) -> str:
    before, after = (format_metric(step.metric, level, n_images) for level in (step.before, step.after))
    changed = ", ".join(f"{name} {was or 'absent'} -> {now or 'gone'}" for name, (was, now) in step.changed.items())
    word = "worse" if step.is_worse else "better"
    run = history.runs[step.run_index]
    return f"{word} since {run.started_at[:DATE]} (run {run.id}): {before} -> {after}; {changed or 'no known change'}"

"""Every series of a history at once: which numbers changed for good, of which cases, on which night."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.store.history import Metric, Step, steps_of
from harness.store.nights import metric_of_column, query_nights
from harness.store.spreading import spread

ROWS_AT_A_TIME = 500  # series that a process looks through; memory goes with them
ALL_SERIES = """
    WITH nights AS (
        SELECT case_id, device_type, metric, batch_size, list_position($2, left(started_at, 10)) - 1 AS night,
            fingerprint, max(n_images) AS n_images, arg_max(value, started_at) AS value,
            max(started_at) AS started_at
        FROM read_parquet($1, hive_partitioning = false)
        WHERE started_at >= $3 AND contains(device_type, $4)
        GROUP BY ALL
    ),
    newest AS (
        SELECT case_id, device_type, metric, batch_size, arg_max(fingerprint, started_at) AS fingerprint
        FROM nights GROUP BY ALL
    )
    SELECT case_id, device_type, metric, batch_size, max(n_images) AS n_images,
        list(night) AS nights, list(value) AS series
    FROM nights JOIN newest USING (case_id, device_type, metric, batch_size, fingerprint)
    GROUP BY case_id, device_type, metric, batch_size
    ORDER BY metric, batch_size, device_type, case_id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastingChange:
    """A lasting change of one number of one case on one type of device."""

    device_type: str
    step: Step
    night: str  # the first of the new level, ISO 8601

    @property
    def ratio(self) -> float:
        """Return the new level over the old one; infinite where that was 0."""
        return self.step.after / self.step.before if self.step.before else math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class AllChanges:
    """What looking at every series gave."""

    n_series: int
    nights: tuple[str, ...]  # that were looked at, ISO 8601
    changes: tuple[LastingChange, ...]  # newest first, the largest of a night first


def read_changes(folder: Path, *, last: int = 365, device: str = "") -> AllChanges:
    """Return the lasting changes of all series over the newest `last` nights.

    `device`: a part of the names of the types that are wanted. Of several runs of a night the last counts, and of
    accuracies those on the images of the newest. Raises: as `query_nights`.
    """
    nights = sorted(path.name.partition("=")[2] for path in folder.glob("night=*"))[-last:]
    first = nights[0] if nights else ""
    found = query_nights(folder, ALL_SERIES, [nights, first, device])
    table = found.to_arrow_table() if hasattr(found, "to_arrow_table") else found.fetch_arrow_table()  # DuckDB < 1.4
    columns = ("case_id", "device_type", "metric", "batch_size", "n_images")
    keys = list(zip(*(table.column(name).to_pylist() for name in columns), strict=True))
    values = _matrix(table, len(nights))
    groups = _groups(keys)

    def steps(place: int) -> list[list[int]]:
        metric, start, stop = groups[place]
        n_images = np.array([key[4] or np.nan for key in keys[start:stop]], np.float64)
        return steps_of(metric, values[start:stop], n_images)

    changes: list[LastingChange] = []
    starts_of = spread(steps, len(groups), at_a_time=1, min_items=8)
    for (metric, start, _), of_group in zip(groups, starts_of, strict=True):
        for row, starts in enumerate(of_group, start=start):
            case_id, device_type = keys[row][:2]
            changes += [
                LastingChange(device_type=device_type, step=step, night=nights[step.run_index])
                for step in _steps(case_id, metric, values[row], starts)
            ]
    changes.sort(key=lambda one: (one.night, abs(math.log(one.ratio)) if 0 < one.ratio < math.inf else math.inf))
    return AllChanges(n_series=len(keys), nights=tuple(nights), changes=tuple(reversed(changes)))


def _matrix(table: Any, n_nights: int) -> NDArray[np.float64]:
    """Return float64[series, nights], NaN where a series has no value."""
    nights, series = (table.column(name).combine_chunks() for name in ("nights", "series"))
    values = np.full((table.num_rows, n_nights), np.nan)
    rows = np.repeat(np.arange(table.num_rows), np.diff(nights.offsets.to_numpy()))
    values[rows, nights.values.to_numpy()] = series.values.to_numpy()
    return values


def _groups(keys: list[tuple[str, str, str, int, int]]) -> list[tuple[Metric, int, int]]:
    """Return (metric, first series, series after the last) of runs of series of one metric, none too long."""
    found: list[tuple[Metric, int, int]] = []
    for row, (_, _, column, batch_size, _) in enumerate(keys):
        metric = metric_of_column(column, batch_size)
        if found and found[-1][0] == metric and row - found[-1][1] < ROWS_AT_A_TIME:
            found[-1] = (metric, found[-1][1], row + 1)
        else:
            found.append((metric, row, row + 1))
    return found


def _steps(case_id: str, metric: Metric, series: NDArray[np.float64], starts: list[int]) -> list[Step]:
    edges = [0, *starts, series.size]
    return [
        Step(
            case_id=case_id,
            metric=metric,
            run_index=start,
            before=float(np.nanmedian(series[before:start])),
            after=float(np.nanmedian(series[start:stop])),
        )
        for before, start, stop in zip(edges, starts, edges[2:], strict=False)
    ]

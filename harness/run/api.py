"""The door for notebooks and scripts: `from harness import load_run, compare, time_model`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ConfigError
from harness.gates import RunComparison, compare_runs
from harness.records import Record, Run
from harness.report.model import rows_of_cases
from harness.report.tables import frame_from_rows
from harness.run.stored import load_judged_run
from harness.run.timing_alone import time_model

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["StoredRun", "compare", "load_run", "time_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """A run that was read back: its header and its records, judged by today's gates."""

    header: Run
    records: tuple[Record, ...]  # references among them

    @property
    def cases(self) -> tuple[Record, ...]:
        """Return the records of the cases that were asked for, in the order they ran."""
        return tuple(record for record in self.records if not record.is_reference)

    def case(self, case_id: str) -> Record:
        """Return one case's record. Raises: ConfigError for a case that the run does not have."""
        for record in self.cases:
            if record.case.id == case_id:
                return record
        raise ConfigError(f"run {self.header.id} has no case {case_id!r}; it has {', '.join(self._ids())}")

    def frame(self) -> pd.DataFrame:
        """Return one row a case and batch size; units are in the column names, a missing number is NaN or <NA>."""
        return frame_from_rows(rows_of_cases(self.cases))

    def _ids(self) -> list[str]:
        return [record.case.id for record in self.cases]


def load_run(folder: str | Path = "reports/latest") -> StoredRun:
    """Read a run's folder.

    Raises: DataError for a folder without a run, or a damaged one; BaselineError for a damaged baseline kept in it.
    """
    header, records = load_judged_run(Path(folder))
    return StoredRun(header=header, records=tuple(records))


def compare(before: StoredRun, after: StoredRun, *, across_devices: bool = False) -> RunComparison:
    """Judge every case of a run against the same case of an earlier one, as `harness compare` does.

    `across_devices`: also compare predictions of unlike types of device. Raises: MeasurementError when the runs share
    no case.
    """
    names = (f"run {before.header.id}", f"run {after.header.id}")
    return compare_runs(before.records, after.records, names=names, across_devices=across_devices)

"""The upgrade bridge: the same cases under two interpreters, in fresh workers that take turns, judged as one run.

Side A is what was accepted, side B what is to follow it. A prepares each model, so that both runtimes run one file.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import HarnessError, Unsupported
from harness.protocols import Progress, no_progress
from harness.records import Artifact, Record, Run
from harness.run.beginning import header_of, run_id
from harness.run.case import CaseRun
from harness.run.cases import Cases, utc_now
from harness.run.settings import Environments
from harness.run.sides import Side
from harness.specs import Case
from harness.store.runs import RunStore

FOLDER = "ab"  # below the report dir: what lies there is no night of the history


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What both sides measured, nothing of it judged."""

    name: str  # of the comparison
    folder: Path
    sides: tuple[Side, Side]
    runs: tuple[Run, Run]
    records: tuple[tuple[Record, ...], tuple[Record, ...]]


class Bridge:
    """Measures the cases of two sides in turn, and keeps each side as a run of its own."""

    def __init__(
        self,
        sides: tuple[Side, Side],
        *,
        report_dir: Path,
        command: str,
        progress: Callable[[str], Progress] = lambda label: no_progress,
    ) -> None:
        """Make the folder of the comparison. Raises: ConfigError when it cannot be written."""
        now = datetime.datetime.now(datetime.timezone.utc)
        self._sides, self._name = sides, run_id(report_dir / FOLDER, now)
        self.folder = report_dir / FOLDER / self._name
        self._runs, self._stores, self._cases = list[Run](), list[RunStore](), list[Cases]()
        for side in sides:
            environments = Environments(side.plan, Path(side.options.root), python=side.interpreter.python)
            run = header_of(
                side.letter,
                side.options,
                side.plan,
                environments=environments,
                command=command,
                gates=(),
                now=now,
            )
            store = RunStore(self.folder, run)
            self._runs.append(run)
            self._stores.append(store)
            self._cases.append(
                Cases(side.options, side.plan, folder=store.folder, environments=environments, progress=progress)
            )

    @property
    def cases(self) -> tuple[Case, ...]:
        """Return the cases of either side, A's order first."""
        return tuple(dict.fromkeys(case for side in self._sides for case in side.plan.cases))

    def measure(self, note: Callable[[str, str], None] = lambda case_id, failure: None) -> Measured:
        """Measure every case on each side that has it. `note`: is told each case that is done, and what stopped it.

        Raises: ConfigError when a file cannot be written.
        """
        try:
            for case in self.cases:
                runs = self._of_both(case)
                failures = [str(run.failure) for run in runs if run.failure is not None]
                note(case.id, "; ".join(dict.fromkeys(failures)))
        finally:
            for cases in self._cases:
                cases.close()
        records = tuple(self._finished(index) for index in range(len(self._sides)))
        runs_now = tuple(replace(run, finished_at=utc_now()) for run in self._runs)
        return Measured(
            name=self._name,
            folder=self.folder,
            sides=self._sides,
            runs=(runs_now[0], runs_now[1]),
            records=(records[0], records[1]),
        )

    def _of_both(self, case: Case) -> list[CaseRun]:
        """Measure one case, side after side, in a fresh worker each; B runs the file that A prepared."""
        artifact: Artifact | None = None
        runs = []
        for cases, store, side in zip(self._cases, self._stores, self._sides, strict=True):
            if case not in side.plan.cases:
                continue
            run = cases.open(case, artifact=artifact)
            _measure(run)
            artifact = artifact or _artifact_of(run)
            store.append(cases.record_of(run))
            runs.append(run)
        return runs

    def _finished(self, index: int) -> tuple[Record, ...]:
        records, run = self._cases[index].records(), replace(self._runs[index], finished_at=utc_now())
        self._stores[index].finish(run, records, summary=None, is_of_history=False)
        return tuple(records)


def _measure(run: CaseRun) -> None:
    """Score a case and read its layers; an error stays with the case."""
    asked: Sequence[Callable[[CaseRun], object]] = (CaseRun.accuracy, CaseRun.layers)
    try:
        for ask in asked[1:] if run.model.timing_only else asked:
            ask(run)
    except Unsupported:
        return
    except HarnessError as error:
        run.failure = run.failure or error
    finally:
        run.close()


def _artifact_of(run: CaseRun) -> Artifact | None:
    try:
        return run.prepare().artifact
    except HarnessError:
        return None

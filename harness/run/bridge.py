"""The upgrade bridge: the same cases under two interpreters, in fresh workers that take turns, judged as one run.

Side A is what was accepted, side B what is to follow it. A prepares each model, so that both runtimes run one file.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import HarnessError, Unsupported
from harness.records import Artifact, Record, Run
from harness.run.beginning import header_of, run_id
from harness.run.case import CaseRun
from harness.run.cases import Cases, utc_now
from harness.run.settings import Environments
from harness.run.side_times import times_of_sides
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
        has_times: bool = True,
    ) -> None:
        """Make the folder of the comparison. `has_times`: cases are timed, too.

        Raises: ConfigError when it cannot be written.
        """
        self._has_times = has_times
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
            self._cases.append(Cases(side.options, side.plan, folder=store.folder, environments=environments))

    @property
    def cases(self) -> tuple[Case, ...]:
        """Return the cases of either side, A's order first."""
        return tuple(dict.fromkeys(case for side in self._sides for case in side.plan.cases))

    def measure(
        self,
        note: Callable[[str, str], None] = lambda case_id, failure: None,
        echo: Callable[[str], None] = lambda text: None,
    ) -> Measured:
        """Measure every case on each side that has it, then time those that look slower on side B in pairs.

        `note`: is told each case that is done, and what stopped it; `echo`: what is timed in pairs.

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
        before, after = (cases.records() for cases in self._cases)
        timed = self._timed_again(before, after, echo)
        records = (self._finished(0, before), self._finished(1, timed))
        runs_now = tuple(replace(run, finished_at=utc_now()) for run in self._runs)
        return Measured(
            name=self._name,
            folder=self.folder,
            sides=self._sides,
            runs=(runs_now[0], runs_now[1]),
            records=records,
        )

    def _of_both(self, case: Case) -> list[CaseRun]:
        """Measure one case, side after side, in a fresh worker each; B runs the file that A prepared."""
        artifact: Artifact | None = None
        runs = []
        for cases, store, side in zip(self._cases, self._stores, self._sides, strict=True):
            if case not in side.plan.cases:
                continue
            run = cases.open(case, artifact=artifact)
            _measure(run, has_times=self._has_times)
            artifact = artifact or _artifact_of(run)
            store.append(cases.record_of(run))
            runs.append(run)
        return runs

    def _timed_again(
        self, before: Sequence[Record], after: Sequence[Record], echo: Callable[[str], None]
    ) -> Sequence[Record]:
        if not self._has_times:
            return after
        first, second = ({name: run.arm() for name, run in cases.opened.items()} for cases in self._cases)
        return times_of_sides(before, after, arms=(first, second), options=self._sides[1].options, note=echo)

    def _finished(self, index: int, records: Sequence[Record]) -> tuple[Record, ...]:
        run = replace(self._runs[index], finished_at=utc_now())
        self._stores[index].finish(run, records, summary=None, is_of_history=False)
        return tuple(records)


def _measure(run: CaseRun, *, has_times: bool) -> None:
    """Score a case, time it and read its layers; an error stays with the case."""
    try:
        if not run.model.timing_only:
            run.accuracy()
        if has_times:
            run.latencies()
        run.layers()  # last: profiling disturbs what is timed after it
    except Unsupported:
        return
    except HarnessError as error:
        run.note_error(error)
    finally:
        run.close()


def _artifact_of(run: CaseRun) -> Artifact | None:
    try:
        return run.prepare().artifact
    except HarnessError:
        return None

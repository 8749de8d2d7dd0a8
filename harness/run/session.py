"""One run of the suite: it begins, cases are measured and judged, files are written at its end."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from harness.gates import GateAnswer
from harness.options.values import HarnessOptions
from harness.protocols import Progress, no_progress
from harness.records import Record, Status
from harness.report.junit import properties_of_record
from harness.run.beginning import begin_run
from harness.run.case import CaseRun
from harness.run.cases import Cases
from harness.run.ending import Ended, Ending, end_run, ended_unwritten, interrupted_run
from harness.run.judging import Judging
from harness.run.plan import Plan
from harness.specs import Case


class RunSession:
    """One run: its folder, its cases, its verdicts."""

    def __init__(
        self,
        options: HarnessOptions,
        plan: Plan,
        *,
        command: str,
        gates: Collection[str],
        progress: Callable[[str], Progress] = lambda label: no_progress,
    ) -> None:
        """Begin a run. `gates`: those that a selected test asks for; no other is judged, nor measured for.

        Raises: ConfigError for an unknown gate, or when the report dir cannot be written.
        """
        self.options, self.plan, self.notes = options, plan, list[str]()
        begun = begin_run(options, plan, command=command, gates=gates)
        self.run, self._store = begun.run, begun.store
        folder, environments = begun.store.folder, begun.environments
        self._cases = Cases(options, plan, folder=folder, environments=environments, progress=progress, kept=begun.kept)
        self._judging = Judging(self._cases, options, gates=gates)
        self._written = {name: self._cases.record_of(run) for name, run in self._cases.opened.items()}
        self._ended: Ended | None = None  # its report is made once

    def open_case(self, case: Case) -> CaseRun:
        """Return a case ready to be measured."""
        return self._cases.open(case)

    def close_case(self, run: CaseRun) -> None:
        """End a case's worker and write what was measured, as yet not judged; again only if there is more."""
        run.close()
        record = self._cases.record_of(run)
        if self._written.get(run.case.id) != record:
            self._written[run.case.id] = record
            self._store.append(record)

    def answer(self, case: Case, gate: str) -> GateAnswer:
        """Return what a gate says of a case. Raises: HarnessError when there is nothing to judge."""
        return self._judging.answer(case, gate)

    def note_failure(self, case_id: str, reason: str) -> None:
        """Remember that a test of a case failed."""
        if case_id in self._cases.opened and reason:
            run = self._cases.opened[case_id]
            run.test_failure = run.test_failure or reason.splitlines()[0]

    def failure_of(self, case_id: str) -> str:
        """Return what stopped a case, in one line, "" where nothing did so far."""
        run = self._cases.opened.get(case_id)
        return str(run.failure) if run is not None and run.failure is not None else ""

    def known_error(self, case_id: str, error: str) -> str:
        """Return until when, why and where an error of a case is waived, "" where it is not."""
        return self._cases.known_error(case_id) if error and error == self.failure_of(case_id) else ""

    @property
    def records(self) -> list[Record]:
        """Return the records of all cases that were opened, in the order they ran, judged as far as they can be."""
        return [record for record in self._judging.records() if not record.is_reference]

    def lines(self, *, color: bool, width: int | None = None) -> list[str]:
        """Return what the terminal shows at the end: the table, what did not pass, where the files are."""
        ended = self._ended or ended_unwritten(self.run, self._judging.records())
        return [*ended.lines(color=color, width=width), *self.notes]

    def properties_of(self, case_id: str) -> list[tuple[str, str]]:
        """Return what junit.xml shall say of a case, as far as it is known."""
        found = next((record for record in self.records if record.case.id == case_id), None)
        return [] if found is None else properties_of_record(found)

    def problem(self) -> str:
        """Return why a run whose tests all passed is no success; "" when it is one."""
        records = self.records
        idle = (Status.UNSUPPORTED, Status.ABSENT)
        if all(record.status in idle for record in records):
            return "no case ran: every one was unsupported or skipped"
        if all(record.status in idle or record.known_error is not None for record in records):
            return "no case ran to its end: every one ended in a known error, was unsupported or skipped"
        bad = [record for record in records if record.status in (Status.FAILED, Status.ERROR)]
        if not bad:
            return ""
        return f"failed without a test of their own: {', '.join(record.case.id for record in bad)}: {bad[0].reason}"

    def finish(self, *, clean: bool, is_whole: bool = False, had_end: bool = True) -> None:
        """Write records, summary, report, and asked-for baselines of a clean run. Measures and judges nothing more.

        `clean`: every test passed. `is_whole`: nothing was deselected and nothing ended early.
        `had_end`: every test that was selected ran.
        Raises: ConfigError when a file cannot be written.
        """
        self._cases.close()
        if not self._judging.was_done:
            for run in self._cases.opened.values():
                run.unfinished = "the run ended before this case was judged"
        ending = Ending(
            store=self._store,
            baselines=self._judging.baselines,
            options=self.options,
            is_clean=clean and not self.problem(),
            had_end=had_end,
        )
        header = self.run
        if header.shard is not None:
            is_whole = is_whole and len(self._cases.opened) == len(self.plan.cases)
            header = replace(header, shard=replace(header.shard, is_whole=is_whole))
        self._ended = end_run(header, self._judging.records(), ending)

    def abandon(self) -> None:
        """End all workers and write nothing more: of a run whose records alone are wanted."""
        self._cases.close()
        self._store.release()

    def interrupt(self, how: str) -> None:
        """Write what there is of a run that was interrupted: nothing of it is judged, and it can be resumed.

        `how`: the signal. Raises: ConfigError when a file cannot be written.
        """
        self._cases.close()
        # A case that was only being prepared has found nothing; with a record it would not be measured by `--resume`.
        empty = {name for name, run in self._cases.opened.items() if not run.has_begun}
        records = [record for record in self._cases.records() if record.is_reference or record.case.id not in empty]
        self._ended = interrupted_run(self.run, records, self._store, n_planned=len(self.plan.cases), how=how)

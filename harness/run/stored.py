"""A stored run, read back and judged again: the same records and baselines give the same verdicts."""

from __future__ import annotations

from pathlib import Path

from harness.errors import BaselineError
from harness.gates import JudgeOptions, judge_records
from harness.records import Record, Run
from harness.store.baselines import KeptBaselines
from harness.store.runs import BASELINES_FOLDER, load_run


def load_judged_run(folder: Path) -> tuple[Run, list[Record]]:
    """Return a run and its records, judged by today's gates against the baselines that were kept with the run.

    The records of a run that did not finish stay as they are: what they lack decides what may be concluded.
    Raises: DataError for a folder without a run, or a damaged one; BaselineError for a damaged baseline.
    """
    run, records = load_run(folder)
    if not run.finished_at:
        return run, records
    kept = KeptBaselines(folder / BASELINES_FOLDER, records)
    judged = judge_records(records, kept, options_of(run))
    if kept.errors:
        raise next(iter(kept.errors.values()))
    return run, judged


def options_of(run: Run) -> JudgeOptions:
    """Return the options that a run was judged with."""
    return JudgeOptions(
        gates=frozenset(run.gates), strict=run.strict, baseline=run.baseline, stored_in=run.baseline_dir
    )


def refuse_unfinished(run: Run) -> None:
    """Refuse the baselines of a run that was killed or interrupted. Raises: BaselineError."""
    if not run.finished_at:
        raise BaselineError(
            f"run {run.id} did not finish, so nothing of it is judged; go on with it: repeat its command with "
            f"--resume={run.id}"
        )

"""Gates: one file each, found by name like backends; and judging, a pure function of records.

    judge_records(records, baselines, options) -> records with verdicts

A file of this folder, of `DIR/gates/` of an `--extension-dir DIR`, or an entry point of the group `harness.gates` joins
by offering `GATE`.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.errors import ConfigError
from harness.gates import _between, _judging, _upgrade
from harness.gates._accuracy import check_accuracy
from harness.gates._between import CaseVerdicts, RunComparison
from harness.gates._gate import Candidate, Evidence, Gate, GateAnswer, JudgeOptions, Noted, Together, answer_of
from harness.gates._judging import Baselines, FoundAlone, Spread, in_turn
from harness.gates._subjects import (
    Costs,
    RoundMedians,
    ScoredImages,
    Subject,
    changes_of_versions,
    digests_from_packed,
    engine_digest,
    preparation_of,
    subject_beside,
    subject_from_record,
)
from harness.gates._times import accepted_slowdown, judged_pairs, wants_replay
from harness.gates._upgrade import UpgradeSide
from harness.options.discovery import Room
from harness.records import Record

__all__ = [
    "Baselines",
    "Candidate",
    "CaseVerdicts",
    "Costs",
    "Evidence",
    "FoundAlone",
    "Gate",
    "GateAnswer",
    "JudgeOptions",
    "Noted",
    "RoundMedians",
    "RunComparison",
    "ScoredImages",
    "Spread",
    "Subject",
    "Together",
    "UpgradeSide",
    "accepted_slowdown",
    "answer_of",
    "baseline_gates",
    "changes_of_versions",
    "check_accuracy",
    "compare_runs",
    "digests_from_packed",
    "engine_digest",
    "find_gate",
    "judge_records",
    "judge_upgrade",
    "judged_pairs",
    "list_gates",
    "preparation_of",
    "subject_beside",
    "subject_from_record",
    "wants_replay",
]


ROOM = Room("gates", noun="gate", package=__name__, path=__path__, offers="GATE")


def list_gates() -> tuple[Gate, ...]:
    """Return all gates in their order. Raises: ConfigError for a file that cannot be used."""
    gates: dict[str, Gate] = ROOM.load_all()
    for name, gate in gates.items():
        if gate.name.replace("_", "-") != name:  # a gate's name has no hyphen, and a listed file's no underscore
            raise ConfigError(f"the gate of the file {name} calls itself {gate.name}; both must be the same")
    return tuple(sorted(gates.values(), key=lambda gate: (gate.order, gate.name)))


def find_gate(name: str) -> Gate:
    """Return a gate by name. Raises: ConfigError for an unknown one."""
    known = {gate.name: gate for gate in list_gates()}
    if name not in known:
        raise ConfigError(f"no gate is called {name!r}; there are: {', '.join(known)}")
    return known[name]


def baseline_gates() -> frozenset[str]:
    """Return the names of the gates that read a baseline."""
    return frozenset(gate.name for gate in list_gates() if gate.reads_baseline)


def judge_records(
    records: Sequence[Record], baselines: Baselines, options: JudgeOptions, *, spread: Spread = in_turn
) -> list[Record]:
    """Return the records with their verdicts, status and reason, by all gates that the options ask.

    Pure: it reads nothing but its arguments. See `_judging`.
    """
    return _judging.judge_records(records, baselines, options, list_gates(), spread=spread)


def compare_runs(
    before: Sequence[Record], after: Sequence[Record], *, names: tuple[str, str], across_devices: bool = False
) -> RunComparison:
    """Judge every case of a run against the same case of an earlier one, by the gates that read a baseline.

    Raises: MeasurementError when the runs share no case. See `_between`.
    """
    return _between.compare_records(before, after, names=names, gates=list_gates(), across_devices=across_devices)


def judge_upgrade(
    before: Sequence[Record], after: Sequence[Record], *, sides: tuple[UpgradeSide, UpgradeSide]
) -> list[Record]:
    """Judge every case of side B against the same case of side A, by the gates that read a baseline.

    Raises: MeasurementError when the sides share no case. See `_upgrade`.
    """
    return _upgrade.judge_upgrade(before, after, sides=sides, gates=list_gates())

"""The accepted engine timed again tonight: suspects of the cheap look are confirmed, or cleared, by pairs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.gates import (
    Subject,
    accepted_slowdown,
    changes_of_versions,
    judged_pairs,
    subject_from_record,
    wants_replay,
)
from harness.options.values import HarnessOptions
from harness.records import PackedArray, Record, RecordKey, Replay, TimingBasis
from harness.run.calibrated import TimingBases
from harness.run.pairing import Arm, PairTimes, time_pair
from harness.run.settings import cache_folder
from harness.stats import round_medians
from harness.stats.pairs import LOOKS, log_ratio
from harness.store.controls import ControlStore

ROUNDS_A_PAIR = 10  # of each process
BUDGET_NS = 110_000_000_000  # of one case's pairs: a suspect is decided within two minutes, or undecided
PLANTED = 0.25  # slowdown [fraction]: far beyond what noise makes of one pair
ROUNDS_OF_PLANTED = 6


# (record of tonight, what it is compared with, tonight's arm) -> the arm to compare it with, or why there is none
FindControl = Callable[[Record, Subject, Arm], Arm | str]


class Replaying:
    """Measures what latency verdicts need beside stored times, once a case."""

    def __init__(
        self,
        options: HarnessOptions,
        *,
        find_control: FindControl | None = None,
        note: Callable[[str], None] = lambda text: None,
        share_of_night: float = 1.0,
    ) -> None:
        """`find_control`: default: the accepted engine that the cache keeps. `note`: is told what is timed again.

        `share_of_night`: of the cases that are judged together, those that are measured here: pairs go on until they
        tell among all of them.
        """
        self._bases = TimingBases(options.baseline_dir)
        self._find_control = find_control or AcceptedEngines(options).find
        self._note, self._share_of_night = note, share_of_night
        self._replays: dict[str, tuple[Replay, ...]] = {}  # by case id
        self._planted: dict[str, tuple[float | None, float | None]] = {}  # by device

    def added_to(
        self, records: Sequence[Record], baselines: Mapping[RecordKey, Subject], arms: Mapping[str, Arm]
    ) -> list[Record]:
        """Return records with what their latency gates need.

        `arms`: tonight's engine of every case that was timed, by case id; others are left as they are.
        """
        records = [
            replace(record, timing_basis=self._bases.of(record)) if record.latencies else record for record in records
        ]
        gated = {
            record.case.id: sizes
            for record in records
            if record.case.id in arms and (sizes := _gated_sizes(record, baselines.get(record.key)))
        }
        n_comparisons = max(1, math.ceil(sum(len(sizes) for sizes in gated.values()) / self._share_of_night))
        return [
            self._with_evidence(record, baselines[record.key], arms[record.case.id], gated, n_comparisons)
            if record.case.id in gated
            else record
            for record in records
        ]

    def _with_evidence(
        self, record: Record, stored: Subject, arm: Arm, gated: Mapping[str, Sequence[int]], n_comparisons: int
    ) -> Record:
        case_id = record.case.id
        if case_id not in self._replays:
            suspects = _suspects(record, stored, gated[case_id])
            alpha = record.tolerance.alpha / n_comparisons
            self._replays[case_id] = self._replayed(record, stored, arm, suspects, alpha) if suspects else ()
        return replace(record, timing_basis=self._with_planted(record, arm), replays=self._replays[case_id])

    # -- pairs

    def _replayed(
        self, record: Record, stored: Subject, arm: Arm, sizes: Sequence[int], alpha: float
    ) -> tuple[Replay, ...]:
        """Time pairs until every suspected batch size is decided; what hinders it becomes the reason."""
        control = self._find_control(record, stored, arm)
        if isinstance(control, str):
            return tuple(Replay(batch_size=size, alpha=alpha, reason=control) for size in sizes)
        self._note(
            f"{record.case.id}: batch {', '.join(map(str, sizes))} may have changed: timed in pairs of processes"
        )
        pairs, reason = _pairs(record, (arm_again(record, arm), control), sizes, alpha)
        if reason:
            return tuple(Replay(batch_size=size, alpha=alpha, reason=reason) for size in sizes)
        return tuple(
            Replay(
                batch_size=size,
                alpha=alpha,
                control_sha256=stored.engine_sha256,
                control_versions=control.versions,
                log_ratios=PackedArray.of(_log_ratios(pairs[size])),
                candidate_ns=PackedArray.of(_medians([pair.candidate_ns for pair in pairs[size]])),
                control_ns=PackedArray.of(_medians([pair.control_ns for pair in pairs[size]])),
            )
            for size in sizes
        )

    # -- the gate's own check

    def _with_planted(self, record: Record, arm: Arm) -> TimingBasis:
        """Return what the record's verdicts rest on, with tonight's planted slowdowns of its device."""
        device = record.case.device
        if device not in self._planted:
            size = min(latency.batch_size for latency in record.latencies)
            plain = _at_sizes(arm_again(record, arm), (size,))
            slowed = replace(plain, name=f"{arm.name}-slowed", slowdown=PLANTED)
            plain = replace(plain, name=f"{arm.name}-plain", slowdown=0.0)
            self._planted[device] = (_planted(slowed, plain), _planted(plain, slowed))
        slower, faster = self._planted[device]
        return replace(record.timing_basis, planted_slower=slower, planted_faster=faster)


class AcceptedEngines:
    """Finds the engine that a baseline was accepted with, as the cache keeps it."""

    def __init__(self, options: HarnessOptions) -> None:
        self._control_python = options.control_python
        self._controls = ControlStore(cache_folder(options.engine_cache))

    def find(self, record: Record, stored: Subject, arm: Arm) -> Arm | str:
        """Return the accepted engine's arm, in its own runtime; or why it cannot be timed again."""
        control = self._controls.find(stored.engine_sha256)
        if isinstance(control, str):
            return control
        ours = subject_from_record(record, "this run")
        known = record.engine.versions if record.engine is not None else {}
        changed = [text for text in changes_of_versions(ours, stored) if text.split(" ")[0] in known]
        if changed and not self._control_python:
            return f"runtime changed: {', '.join(changed)}"
        versions = {name: stored.versions[name] for name in known if name in stored.versions}
        request = replace(arm.request, artifact=control.artifact, engine_file=control.engine_file, outputs_path="")
        settings = replace(arm.settings, python=self._control_python or arm.settings.python)
        return Arm(request=request, settings=settings, name=f"{arm.name}-control", versions=versions)


def _pairs(
    record: Record, arms: tuple[Arm, Arm], sizes: Sequence[int], alpha: float
) -> tuple[dict[int, list[PairTimes]], str]:
    """Time pairs until every batch size is decided or time is up; return them, and what hindered it."""
    found: dict[int, list[PairTimes]] = {size: [] for size in sizes}
    undecided, started = list(sizes), time.monotonic_ns()
    for n_pairs in range(LOOKS[-1]):
        if n_pairs in LOOKS:
            undecided = [size for size in undecided if not _is_decided(record, size, found[size], alpha)]
        if not undecided or time.monotonic_ns() - started > BUDGET_NS:
            break
        now = [_at_sizes(arm, undecided) for arm in arms]
        try:
            times = time_pair(*now, n_rounds=ROUNDS_A_PAIR, candidate_first=n_pairs % 2 == 0)
        except HarnessError as error:
            return found, str(error)
        for pair in times:
            found[pair.batch_size].append(pair)
    return found, ""


def _planted(candidate: Arm, control: Arm) -> float | None:
    """Return the log ratio of one pair, None where this engine's timers cannot be slowed down."""
    try:
        (times,) = time_pair(candidate, control, n_rounds=ROUNDS_OF_PLANTED)
    except HarnessError:
        return None
    return log_ratio(times.candidate_ns, times.control_ns)


def arm_again(record: Record, arm: Arm) -> Arm:
    """Return the arm of a measured case's engine, to be timed again in another process."""
    file = record.engine.file if record.engine is not None else None
    request = replace(arm.request, artifact=record.artifact, engine_file=file, outputs_path="")
    return replace(arm, request=request, name=f"{arm.name}-again")


def _at_sizes(arm: Arm, sizes: Sequence[int]) -> Arm:
    """Return an arm that is timed at some batch sizes alone."""
    timing = replace(arm.request.timing, batch_sizes=tuple(sizes))
    return replace(arm, request=replace(arm.request, timing=timing))


def _gated_sizes(record: Record, stored: Subject | None) -> list[int]:
    """Return the batch sizes whose time is judged against a stored one under a limit."""
    if stored is None or record.error or record.artifact is None:
        return []
    timed = {latency.batch_size for latency in stored.latencies}
    sizes = (latency.batch_size for latency in record.latencies)
    return [size for size in sizes if size in timed and accepted_slowdown(record, size) is not None]


def _suspects(record: Record, stored: Subject, sizes: Sequence[int]) -> list[int]:
    ours = {latency.batch_size: latency for latency in subject_from_record(record, "this run").latencies}
    theirs = {latency.batch_size: latency for latency in stored.latencies}
    return [
        size
        for size in sizes
        if wants_replay(
            ours[size],
            theirs[size],
            margin=accepted_slowdown(record, size) or 0.0,
            alpha=record.tolerance.alpha,
            basis=record.timing_basis,
            is_beside=stored.is_beside,
        )
    ]


def _is_decided(record: Record, size: int, pairs: Sequence[PairTimes], alpha: float) -> bool:
    margin = accepted_slowdown(record, size) or 0.0
    return judged_pairs(
        _log_ratios(pairs), batch_size=size, margin=margin, alpha=alpha, basis=record.timing_basis
    ).is_final


def _log_ratios(pairs: Sequence[PairTimes]) -> NDArray[np.float64]:
    return np.asarray([log_ratio(pair.candidate_ns, pair.control_ns) for pair in pairs], np.float64)


def _medians(rounds: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.asarray([float(np.median(round_medians(one))) for one in rounds], np.float64)

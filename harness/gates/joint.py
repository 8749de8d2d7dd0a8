"""Gate: the cases of a model, and those of a backend, do not lose together what none of them loses alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.gates._gate import Evidence, Gate, Noted, Together
from harness.gates._subjects import accuracy_differences, is_other_int8_isa, model_change, subject_from_record
from harness.records import Outcome, Verdict, percent
from harness.stats import joint_loss_p, smallest_joint_p

MIN_CASES = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Change:
    """What one case lost and gained of its images against what is stored of it."""

    n_images: int  # of unlike pixels
    changed: NDArray[np.int64]  # int64[M]: their places in the range
    net: NDArray[np.int8]  # int8[M]: 1 lost, -1 gained
    margin: float
    alpha: float
    against: str
    groups: tuple[str, ...]  # in words: "model lenet5", "backend ort"
    images: str  # digest; only changes of the same images are added up


def judge_together(noted: Sequence[Noted]) -> tuple[Together, ...]:
    """Judge every model and every backend of which two cases or more have predictions stored of the same file.

    The images' net changes over the cases are summed and judged by the sign-flip test, which holds however alike the
    cases are. The cases that lost images bear the verdict.
    """
    return tuple(_judge(name, group) for name, group in _groups(noted))


def note(evidence: Evidence) -> _Change | None:
    """Keep what a case lost and gained: the images that changed, each with unlike pixels once."""
    record, stored = evidence.record, evidence.stored
    if record.accuracy is None or stored is None or stored.scores is None:
        return None
    try:
        ours, theirs = subject_from_record(record, "this run"), stored.scores
    except MeasurementError:  # scores that are none: the gate baseline says so of their case
        return None
    if ours.scores is None or ours.scores.images != theirs.images or ours.scores.fingerprint != theirs.fingerprint:
        return None
    if accuracy_differences(ours, stored) or model_change(ours, stored) or is_other_int8_isa(ours, stored):
        return None  # a change is expected there
    is_first = record.accuracy.are_first()
    changed = np.flatnonzero((theirs.hits != ours.scores.hits) & is_first)
    return _Change(
        n_images=int(is_first.sum()),
        changed=changed,
        net=np.where(theirs.hits[changed], 1, -1).astype(np.int8),
        margin=record.tolerance.max_drop_baseline,
        alpha=record.tolerance.alpha,
        against=stored.name,
        groups=(f"model {record.case.model}", f"backend {record.case.backend}"),
        images=f"{theirs.fingerprint} on {record.environment.host_type}",
    )


def _groups(noted: Sequence[Noted]) -> Iterator[tuple[str, list[Noted]]]:
    groups: dict[tuple[str, str, float], list[Noted]] = {}
    for one in noted:
        for name in one.note.groups:
            groups.setdefault((name, one.note.images, one.note.alpha), []).append(one)
    seen: set[tuple[int, ...]] = set()
    for (name, _, _), group in groups.items():
        places = tuple(one.place for one in group)
        if len(group) >= MIN_CASES and places not in seen:  # of one model on one backend, the two groups are one
            seen.add(places)
            yield name, group


def _judge(name: str, group: Sequence[Noted]) -> Together:
    changes: list[_Change] = [one.note for one in group]
    changed = np.concatenate([change.changed for change in changes])
    nets = np.concatenate([change.net for change in changes])
    n_images, alpha = changes[0].n_images, changes[0].alpha
    net = np.bincount(changed, weights=nets).astype(np.int64)
    p_value, loss = joint_loss_p(net), float(nets.sum() / (len(group) * n_images))
    is_lost = p_value <= alpha and loss > max(change.margin for change in changes)
    n_lost, n_gained = int((nets > 0).sum()), int((nets < 0).sum())
    verdict = Verdict(
        gate=GATE.name,
        outcome=Outcome.REGRESSED if is_lost else Outcome.SAME,
        code="joint_loss" if is_lost else "no_joint_loss",
        message=f"the {len(group)} cases of {name} together: {n_lost} images lost, {n_gained} gained against their "
        f"baselines, {percent(loss)} a case (sign-flip test over {n_images} images, p = {p_value:.2g})",
        advice="what these cases share changed: see versions and options under what changed" if is_lost else "",
        is_failure=is_lost,
        p_value=p_value,
        p_test="sign-flip test",
    )
    lost = tuple(one.place for one, change in zip(group, changes, strict=True) if change.net.sum() > 0)
    return Together(verdict=verdict, places=lost if is_lost else (), smallest_p=smallest_joint_p(net), alpha=alpha)


GATE = Gate(
    name="joint",
    summary="the cases of a model or of a backend do not lose together what none of them loses alone",
    needs=("accuracy",),
    applies=lambda candidate: not candidate.timing_only,
    judge=lambda evidence: (),
    note=note,
    judge_together=judge_together,
    order=65,
    in_family=True,
    family="baseline",
    reads_baseline=True,
    judges_outputs=True,
)

"""Gate: the cases of a model, and those of a backend, do not lose together what none of them loses alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.gates._gate import Evidence, Gate, Together
from harness.gates._paired import percent
from harness.gates._subjects import accuracy_differences, is_other_int8_isa, model_change, subject_from_record
from harness.records import Outcome, Verdict
from harness.stats import joint_loss_p, smallest_joint_p

MIN_CASES = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Change:
    """What one case lost and gained of its images against what is stored of it."""

    place: int  # among the evidence
    net: NDArray[np.int8]  # int8[N]: 1 lost, -1 gained
    kinds: NDArray[np.int64]
    margin: float
    alpha: float
    against: str
    groups: tuple[str, ...]  # in words: "model lenet5", "backend ort"
    images: str  # digest; only changes of the same images are added up


def judge_together(evidence: Sequence[Evidence]) -> tuple[Together, ...]:
    """Judge every model and every backend of which two cases or more have predictions stored of the same file.

    The images' net changes over the cases are summed and judged by the sign-flip test, which holds however alike the
    cases are. The cases that lost images bear the verdict.
    """
    changes = [change for place, one in enumerate(evidence) if (change := _change(place, one)) is not None]
    return tuple(_judge(name, group) for name, group in _groups(changes))


def _change(place: int, evidence: Evidence) -> _Change | None:
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
    return _Change(
        place=place,
        net=theirs.hits.astype(np.int8) - ours.scores.hits.astype(np.int8),
        kinds=record.accuracy.kinds(),
        margin=record.tolerance.max_drop_baseline,
        alpha=record.tolerance.alpha,
        against=stored.name,
        groups=(f"model {record.case.model}", f"backend {record.case.backend}"),
        images=f"{theirs.fingerprint} on {record.environment.host_type}",
    )


def _groups(changes: Sequence[_Change]) -> Iterator[tuple[str, list[_Change]]]:
    keys = dict.fromkeys((name, change.images, change.alpha) for change in changes for name in change.groups)
    seen: set[tuple[int, ...]] = set()
    for name, images, alpha in keys:
        group = [c for c in changes if name in c.groups and (c.images, c.alpha) == (images, alpha)]
        places = tuple(change.place for change in group)
        if len(group) >= MIN_CASES and places not in seen:  # of one model on one backend, the two groups are one
            seen.add(places)
            yield name, group


def _judge(name: str, group: Sequence[_Change]) -> Together:
    once = np.unique(group[0].kinds, return_index=True)[1]
    nets = np.stack([change.net[once] for change in group]).astype(np.int64)
    net = nets.sum(axis=0)
    p_value, loss = joint_loss_p(net), float(nets.mean())
    is_lost = p_value <= group[0].alpha and loss > max(change.margin for change in group)
    n_lost, n_gained = int((nets > 0).sum()), int((nets < 0).sum())
    verdict = Verdict(
        gate=GATE.name,
        outcome=Outcome.REGRESSED if is_lost else Outcome.SAME,
        code="joint_loss" if is_lost else "no_joint_loss",
        message=f"the {len(group)} cases of {name} together: {n_lost} images lost, {n_gained} gained against their "
        f"baselines, {percent(loss)} a case (sign-flip test over {net.size} images, p = {p_value:.2g})",
        advice="what these cases share changed: see versions and options under what changed" if is_lost else "",
        is_failure=is_lost,
        p_value=p_value,
        p_test="sign-flip test",
    )
    lost = tuple(c.place for c, one in zip(group, nets, strict=True) if one.sum() > 0)
    return Together(
        verdict=verdict, places=lost if is_lost else (), smallest_p=smallest_joint_p(net), alpha=group[0].alpha
    )


GATE = Gate(
    name="joint",
    summary="the cases of a model or of a backend do not lose together what none of them loses alone",
    needs=("accuracy",),
    applies=lambda candidate: not candidate.timing_only,
    judge=lambda evidence: (),
    judge_together=judge_together,
    order=65,
    in_family=True,
    family="baseline",
    reads_baseline=True,
    judges_outputs=True,
)

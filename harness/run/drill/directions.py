"""Direction proof: every gated number is made worse and made better, and its gate must tell which is which."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from harness.gates import ROOM, list_gates
from harness.records import Record, Verdict
from harness.run.drill.bench import Bench
from harness.run.drill.plant import Alarm, Plant
from harness.run.drill.sound import (
    ACCEPTED_DRIFT,
    ACCEPTED_GAP,
    ASKED_SPEEDUP,
    SoundNight,
    accepted,
    accuracy_of,
    sound_night,
    with_builds,
    with_costs,
    with_drift,
    with_gap,
    with_hits,
    with_metric,
    with_share,
    with_speedup,
    with_times,
)
from harness.specs import REFERENCE_BACKEND, Precision

BOTH_WAYS = "both ways"  # told by a direction whose two sides were told apart
Night = Callable[[], SoundNight]


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """One gated number: a night in which it is worse, and one in which it is better."""

    gate: str
    number: str
    worse: Night
    better: Night
    grows: bool = True  # the number is larger where it is better
    tells_better: bool = True  # the gate says so of a better one; else it is silent

    def plant(self) -> Plant:
        """Return it as a drill."""
        return Plant(
            name=f"direction_{self.gate}",
            planted=f"{self.number}, worse and better",
            red_by=(self.gate,),
            told=BOTH_WAYS,
            act=self._act,
        )

    def _act(self, bench: Bench) -> Sequence[Alarm]:
        del bench  # no engine is needed
        worse, better = (_verdicts(night().judged(), self.gate) for night in (self.worse, self.better))
        problem = self._problem(worse, better)
        if problem:
            return (Alarm(by=self.gate, told=problem),)
        failed = next(verdict for verdict in worse.values() if verdict.is_failure)
        return (Alarm(by=self.gate, told=f"{BOTH_WAYS}: {failed.message}"),)

    def _problem(self, worse: Mapping[str, Verdict], better: Mapping[str, Verdict]) -> str:
        failing = {case_id: verdict for case_id, verdict in worse.items() if verdict.is_failure}
        if not failing:
            return f"SILENT: {self.number} got worse and nothing failed"
        if wrong := [verdict for verdict in better.values() if verdict.is_failure]:
            return f"WRONG SIDE: {self.number} got better and failed: {wrong[0].message}"
        if not self.tells_better:
            return ""
        for case_id, verdict in failing.items():
            if case_id not in better:
                return f"SILENT: {self.number} of {case_id} got better and nothing was said"
            before, now = _change(verdict), _change(better[case_id])
            if before is not None and now is not None and (before == now or (now > before) is not self.grows):
                return f"WRONG SIDE: {self.number} of {case_id} went from {before:g} to {now:g} as it got better"
        return ""


def _verdicts(records: Sequence[Record], gate: str) -> dict[str, Verdict]:
    """Return a gate's verdict by case id; every case here has one at most."""
    return {record.case.id: verdict for record in records for verdict in record.verdicts if verdict.gate == gate}


def _change(verdict: Verdict) -> float | None:
    """Return how far a verdict's number is from what it is judged against; None where it has none."""
    return None if verdict.value is None else verdict.value - (verdict.baseline_value or 0.0)


def _changed(change: Callable[[Record], Record], precision: Precision = Precision.INT8) -> SoundNight:
    return sound_night().changed(change, precision=precision)


def _hits(change: int, precision: Precision = Precision.INT8) -> Night:
    return lambda: _changed(partial(with_hits, change=change), precision)


def _beside(change: int) -> Night:
    """Return INT8 beside an emulation that changed, and everything else as it was."""

    def emulated(record: Record) -> Record:
        return replace(record, emulation=with_hits(record, change).accuracy)

    return lambda: _changed(emulated)


def _by_chance(is_right: bool) -> Night:
    def scored(record: Record) -> Record:
        assert record.accuracy is not None
        labels = record.accuracy.labels.array().astype(np.int64)
        predictions = labels if is_right else np.roll(labels, labels.size // 3 + 1)[::-1].copy()
        return replace(record, accuracy=accuracy_of(labels, predictions))

    return lambda: sound_night().changed(scored, precision=Precision.FP32, backend=REFERENCE_BACKEND)


def _together(change: int) -> Night:
    """Return a night in which every case lost, or gained, too few images of its own to be told of it alone."""

    def night() -> SoundNight:
        found = sound_night()
        records = enumerate(found.records)
        moved = tuple(with_hits(record, change, skip=place * abs(change)) for place, record in records)
        return replace(found, records=moved)

    return night


def _share(now: float, before: float) -> Night:
    return lambda: _changed(partial(with_share, share=now)).with_accepted(partial(with_share, share=before))


def _metric(change: int) -> Night:
    """Return a night of a model of any graph whose INT8 changed; FP32 and what was accepted did not."""

    def night() -> SoundNight:
        found = sound_night()
        plain = replace(found, records=tuple(with_metric(record) for record in found.records))
        changed = plain.changed(partial(with_metric, change=change), precision=Precision.INT8)
        return replace(changed, baselines=accepted(plain.records))

    return night


def _cost(ratio: float) -> Night:
    """Return a night whose INT8 engine was built, weighs and takes `ratio` of what was accepted of several builds."""

    def night() -> SoundNight:
        found = sound_night()
        plain = replace(found, records=tuple(with_costs(record) for record in found.records))
        changed = plain.changed(partial(with_costs, ratio=ratio), precision=Precision.INT8)
        return replace(changed, baselines=with_builds(accepted(plain.records)))

    return night


LOST, GAINED = -150, 150  # images of 4,000
LOST_TOGETHER, GAINED_TOGETHER = -8, 8
DIRECTIONS = (
    Direction(gate="floor", number="top-1 against the floor", worse=_hits(-400), better=_hits(GAINED)),
    Direction(gate="chance", number="agreement with the labels", worse=_by_chance(False), better=_by_chance(True)),
    Direction(gate="fp32", number="the loss against FP32", worse=_hits(LOST), better=_hits(GAINED)),
    Direction(
        gate="reference",
        number="the loss against the reference backend",
        worse=_hits(LOST, Precision.FP32),
        better=_hits(GAINED, Precision.FP32),
    ),
    Direction(gate="kernel", number="the kernels' loss", worse=_beside(GAINED), better=_beside(LOST)),
    Direction(gate="baseline", number="the loss against the baseline", worse=_hits(LOST), better=_hits(GAINED)),
    Direction(
        gate="joint",
        number="the loss of all cases together",
        worse=_together(LOST_TOGETHER),
        better=_together(GAINED_TOGETHER),
        tells_better=False,  # its verdicts are borne by cases that lost
    ),
    Direction(
        gate="invariance",
        number="drift between arrangements in a batch",
        worse=lambda: _changed(partial(with_gap, gap=10 * ACCEPTED_GAP)),
        better=lambda: _changed(partial(with_gap, gap=0.0)),
        grows=False,
    ),
    Direction(
        gate="drift",
        number="drift of the outputs of any graph",
        worse=lambda: _changed(partial(with_drift, drift=2 * ACCEPTED_DRIFT)),
        better=lambda: _changed(partial(with_drift, drift=ACCEPTED_DRIFT / 2)),
        grows=False,
    ),
    Direction(gate="metric", number="a metric's loss against FP32", worse=_metric(LOST), better=_metric(GAINED)),
    Direction(
        gate="metric_baseline",
        number="a metric's loss against the baseline",
        worse=_metric(LOST),
        better=_metric(GAINED),
    ),
    Direction(gate="buildtime", number="build time", worse=_cost(4.0), better=_cost(0.25), grows=False),
    Direction(gate="enginesize", number="an engine's size", worse=_cost(2.0), better=_cost(0.5), grows=False),
    Direction(gate="memory", number="peak memory", worse=_cost(2.0), better=_cost(0.5), grows=False),
    Direction(
        gate="latency",
        number="latency",
        worse=lambda: _changed(partial(with_times, ratio=1.05)),
        better=lambda: _changed(partial(with_times, ratio=0.95)),
        grows=False,
    ),
    Direction(
        gate="speedup",
        number="the speed-up over FP32",
        worse=lambda: _changed(partial(with_speedup, speedup=ASKED_SPEEDUP / 2)),
        better=lambda: _changed(partial(with_speedup, speedup=ASKED_SPEEDUP * 2)),
    ),
    Direction(
        gate="precision",
        number="the share of layers that ran as asked",
        worse=_share(0.5, before=1.0),
        better=_share(1.0, before=0.5),
    ),
)
WITHOUT_A_NUMBER = ("presence",)  # gates that ask whether, not how much; plants of their own show them a case


def _every_gate(bench: Bench) -> Sequence[Alarm]:
    """Name the gates of the house; silence where one of them has no direction."""
    del bench
    proved = {direction.gate for direction in DIRECTIONS} | set(WITHOUT_A_NUMBER)
    missing = [gate.name for gate in list_gates() if ROOM.is_own(gate.name) and gate.name not in proved]
    if missing:
        return (Alarm(by="directions", told=f"no direction is planted for {', '.join(missing)}"),)
    return (Alarm(by="directions", told=f"{BOTH_WAYS}: {', '.join(sorted(proved))}"),)


PLANTS = (
    *(direction.plant() for direction in DIRECTIONS),
    Plant(
        name="every_number",
        planted="a look for gates without a direction",
        red_by=("directions",),
        told=BOTH_WAYS,
        act=_every_gate,
    ),
)

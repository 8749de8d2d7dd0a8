"""Plants in what is judged and in the judging itself: times, missing cases, forced verdicts, silent gates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from harness.errors import BaselineError, MeasurementError
from harness.gates import (
    JudgeOptions,
    accepted_slowdown,
    answer_of,
    compare_runs,
    list_gates,
    subject_from_record,
    wants_replay,
)
from harness.records import Outcome, Record, Run, Status
from harness.run.drill.bench import Bench
from harness.run.drill.plant import ERROR, Alarm, Plant, alarms_of
from harness.run.drill.sound import ALPHA, MACHINE, NIGHT, SoundNight, sound_night, with_hits, with_times
from harness.run.stored import load_judged_run
from harness.specs import Precision, Waiver
from harness.store.baselines import BaselineStore
from harness.store.runs import RunStore

SLOWDOWN = 1.05
CREPT, N_CREPT = 18, 10  # images lost in one step, of 4,000: each within what one night may lose; and steps
LAST_DAY = "2025-12-31"  # the day before the drill's night


def _slowed(bench: Bench) -> Sequence[Alarm]:
    """Show an engine 5 % slower to the look, which must want pairs, and to the gate with those pairs."""
    del bench
    night = sound_night().changed(partial(with_times, ratio=SLOWDOWN), precision=Precision.INT8)
    slow = next(record for record in night.records if record.case.precision is Precision.INT8)
    (ours,), (theirs,) = subject_from_record(slow, "tonight").latencies, night.baselines[slow.key].latencies
    margin = accepted_slowdown(slow, 1)
    if margin is None or not wants_replay(ours, theirs, margin=margin, alpha=ALPHA, basis=slow.timing_basis):
        return ()
    return alarms_of(night.judged())


def _missing(bench: Bench) -> Sequence[Alarm]:
    """Compare a night with one that has a case less."""
    del bench
    records = sound_night().judged()
    found = compare_runs(records, records[:-1], names=("the night before", "tonight"))
    return [
        Alarm(by=verdict.gate, told=f"{case_id}: {verdict.message}")
        for case_id, verdicts in found.verdicts
        for verdict in verdicts
        if verdict.is_failure
    ]


def _lossy() -> SoundNight:
    return sound_night().changed(partial(with_hits, change=-150), precision=Precision.INT8)


def _forced(bench: Bench) -> Sequence[Alarm]:
    """Store a lossy night whose verdicts were all forced to pass, and read it back."""
    night = _lossy()
    forced = [_passing(record) for record in night.judged()]
    run = Run(id="forced", started_at=NIGHT, command="", environment=MACHINE, backends=(), options={})
    run = replace(run, gates=tuple(gate.name for gate in list_gates()), finished_at=NIGHT)
    store = RunStore(bench.folder / "forced", replace(run, id="forced"))
    store.finish(run, forced, summary=None)
    return alarms_of(load_judged_run(Path(store.folder))[1])


def _passing(record: Record) -> Record:
    verdicts = tuple(replace(verdict, outcome=Outcome.SAME, is_failure=False) for verdict in record.verdicts)
    return replace(record, verdicts=verdicts, status=Status.PASSED, reason="")


def _silent_gate(bench: Bench) -> Sequence[Alarm]:
    """Ask the suites' question of a record whose gate was left out of the judging."""
    del bench
    lossy = _lossy().judged(JudgeOptions(gates=frozenset({"floor"})))[-1]
    try:
        answer = answer_of(lossy, "fp32")
    except MeasurementError as error:
        return (Alarm(by=ERROR, told=str(error)),)
    return () if answer.ok else (Alarm(by="fp32", told=answer.message),)


def _crept(bench: Bench) -> Sequence[Alarm]:
    """Accept small losses one after another, each by its name, until the budget of the case has to refuse one."""
    store = BaselineStore(bench.folder / "crept")
    for number in range(N_CREPT):
        night = sound_night().changed(partial(with_hits, change=-number * CREPT), precision=Precision.INT8)
        record = night.judged(JudgeOptions(gates=frozenset({"baseline"})))[-1]
        try:
            store.accept([record], case_ids=[record.case.id], accepted_by="fire drill", accepted_at=NIGHT)
        except BaselineError as error:
            return (Alarm(by=ERROR, told=f"acceptance {number + 1}: {error}"),) if number else ()
    return ()


def _lapsed_waiver(bench: Bench) -> Sequence[Alarm]:
    """Waive the loss of a lossy night until that day, which must hold, and until the day before, which must not."""
    del bench
    waiver = Waiver(case="drill-*-int8", gate="*", reason="a drill", link="none", expires=NIGHT[: len(LAST_DAY)])
    gates = ("fp32", "reference", "kernel", "baseline", "joint")
    held, lapsed = ([replace(waiver, gate=gate, expires=day) for gate in gates] for day in (waiver.expires, LAST_DAY))
    if alarms_of(_waived_night(held).judged()):
        return ()
    return alarms_of(_waived_night(lapsed).judged())


def _waived_night(waivers: Sequence[Waiver]) -> SoundNight:
    night = _lossy()
    return replace(night, records=tuple(replace(record, waivers=tuple(waivers)) for record in night.records))


PLANTS = (
    Plant(
        name="small_losses_accepted",
        planted="small losses, accepted one after another",
        red_by=(ERROR,),
        told="accepted changes add up to a loss of 1.80 points",
        act=_crept,
    ),
    Plant(
        name="waiver_past_its_date",
        planted="a loss whose waiver lapsed the day before",
        red_by=("fp32",),
        told=f"its waiver lapsed after {LAST_DAY}",
        act=_lapsed_waiver,
    ),
    Plant(name="slowed_5_percent", planted="an engine 5 % slower", red_by=("latency",), told="slower", act=_slowed),
    Plant(
        name="case_missing",
        planted="a case of the night before that is not there tonight",
        red_by=("baseline",),
        told="in the night before only",
        act=_missing,
    ),
    Plant(
        name="verdicts_forced",
        planted="a stored night whose verdicts were forced to pass",
        red_by=("fp32",),
        act=_forced,
    ),
    Plant(
        name="check_disabled",
        planted="a gate that was left out of the judging",
        red_by=(ERROR,),
        told="gave no verdict",
        act=_silent_gate,
    ),
)

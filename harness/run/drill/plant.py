"""What one drill is: a fault that is planted in a copy, and the alarm that it must raise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.records import Record, Status

if TYPE_CHECKING:
    from harness.run.drill.bench import Bench

ERROR = "error"  # an alarm that is a case's error, not a gate's verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One reason why a night is red."""

    by: str  # the gate, or ERROR
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """A fault, where it is planted, and what has to find it."""

    name: str
    planted: str  # in words
    red_by: tuple[str, ...]  # any of these gates, or ERROR
    act: Callable[[Bench], Sequence[Alarm]]  # plants it and returns what alarmed
    told: str = ""  # what the alarm has to say


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What became of a plant."""

    plant: str
    is_red: bool
    message: str


def alarms_of(records: Iterable[Record]) -> tuple[Alarm, ...]:
    """Return why the cases of a judged night are red; nothing for a green one."""
    found: list[Alarm] = []
    for record in records:
        if record.status is Status.ERROR:
            found.append(Alarm(by=ERROR, told=f"{record.case.id}: {record.reason}"))
        if record.status is Status.FAILED:
            failing = [verdict for verdict in record.verdicts if verdict.is_failure]
            found += [Alarm(by=verdict.gate, told=f"{record.case.id}: {verdict.message}") for verdict in failing]
    return tuple(found)


def found_of(plant: Plant, alarms: Sequence[Alarm]) -> Found:
    """Return whether the alarms are the one that the plant must raise; another one does not prove that gate."""
    hit = next((alarm for alarm in alarms if alarm.by in plant.red_by and plant.told in alarm.told), None)
    wanted = " or ".join(plant.red_by) + (f" that says {plant.told!r}" if plant.told else "")
    if hit is not None:
        message = f"{plant.planted}: red by {hit.by}: {hit.told}"
    elif alarms:
        others = "; ".join(f"{alarm.by}: {alarm.told}" for alarm in alarms)
        message = f"{plant.planted}: not red by {wanted}, though by others: {others}"
    else:
        message = f"{plant.planted}: NOT RED; expected an alarm of {wanted}"
    return Found(plant=plant.name, is_red=hit is not None, message=message)

"""Whether a cost has grown against its accepted baseline of the same type of device; what its gates share."""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import MeasurementError
from harness.gates._accuracy import incomparable
from harness.gates._gate import Evidence
from harness.gates._stored import no_baseline
from harness.gates._subjects import (
    Costs,
    Subject,
    changes_of_options,
    changes_of_setting,
    machine_differences,
    model_change,
    subject_from_record,
)
from harness.records import Outcome, Verdict, percent
from harness.stats.one_more import OneMore

TEST = "Student's t on one build beside accepted ones"
ADVICE = "costs are compared only on the same type of device, of engines built for the same batch sizes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """A case's costs tonight and as they were accepted, where the two may be compared."""

    gate: str
    margin: float  # accepted growth [fraction]
    ours: Costs
    theirs: Costs
    against: str  # the other side in words
    changed: tuple[str, ...] = ()  # recorded facts that differ: the suspects
    accept: str = ""  # the command that accepts tonight's; "" where the other side is no baseline

    def verdict(
        self,
        outcome: Outcome,
        code: str,
        message: str,
        *,
        numbers: tuple[float, float],
        advice: str = "",
        found: OneMore | None = None,
    ) -> Verdict:
        """Return a verdict; one that regressed names what has changed, and how to accept it. `numbers`: now, before."""
        parts = [message, f"accepted: {percent(self.margin)} more"]
        if outcome is Outcome.REGRESSED:
            changed = f"changed since: {', '.join(self.changed)}" if self.changed else ""
            parts.append(changed or "nothing else that is recorded has changed")
            advice += f"; if the change is wanted: {self.accept}" if self.accept else ""
        return Verdict(
            gate=self.gate,
            outcome=outcome,
            code=code,
            message="; ".join(parts),
            advice=advice,
            is_failure=outcome is Outcome.REGRESSED,
            value=numbers[0],
            baseline_value=numbers[1],
            change_low=None if found is None else found.low - 1,
            change_high=None if found is None else found.high - 1,
            p_value=None if found is None else found.p_value,
            p_test="" if found is None else TEST,
            detectable=None if found is None else found.detectable,
        )

    def plain(self, what: str, ours: int, theirs: int, *, codes: tuple[str, str, str], advice: str) -> Verdict:
        """Judge a number that repeats from night to night by its ratio alone; `codes`: kept, less, more.

        Raises: MeasurementError for a size that is not positive.
        """
        if ours <= 0 or theirs <= 0:
            raise MeasurementError(f"{what} of {ours} and {theirs} bytes: expected more than 0")
        kept, less, more = codes
        ratio = ours / theirs
        outcome, code = Outcome.SAME, kept
        if ratio > 1 + self.margin:
            outcome, code = Outcome.REGRESSED, more
        elif ratio * (1 + self.margin) < 1:
            outcome, code = Outcome.IMPROVED, less
        change = f"{change_text(ratio)} than {theirs:,} bytes of {self.against}" if ratio != 1 else f"as {self.against}"
        told = f"{what}: {ours:,} bytes, {change}"
        return self.verdict(outcome, code, told, numbers=(ours, theirs), advice=advice if code == more else "")


def change_text(ratio: float) -> str:
    """Return "2.35 % more" of a ratio."""
    return f"{percent(abs(ratio - 1))} {'more' if ratio >= 1 else 'less'}"


def sides_of(evidence: Evidence, *, gate: str, margin: float, what: str) -> Sides | Verdict | None:
    """Return both sides, the verdict that they may not be compared, or None where nothing was built.

    `what`: the cost in words. Raises: MeasurementError for a margin that is none.
    """
    record, stored = evidence.record, evidence.stored
    if not margin >= 0:
        raise MeasurementError(f"{gate}: an accepted growth of {margin} is not a fraction of at least 0")
    ours = subject_from_record(record, "this run")
    if ours.costs is None:
        return None
    if stored is None:
        on_type = f"{what} on this type of device ({record.environment.device_type})"
        return no_baseline(record.case, stored_in=evidence.stored_in, gate=gate, what=on_type)
    different = (*machine_differences(ours, stored), *(_batches_differ(ours.costs, stored.costs)))
    if different:
        return incomparable(gate, different, against=stored.name, advice=ADVICE)
    accept = f"harness baseline accept latest --case {record.case.id}" if stored.is_baseline else ""
    if stored.costs is None:
        return no_number(gate, f"{stored.name} has no {what}", advice=accept)
    return Sides(
        gate=gate,
        margin=margin,
        ours=ours.costs,
        theirs=stored.costs,
        against=stored.name,
        changed=_changes(ours, stored),
        accept=accept,
    )


def no_number(gate: str, why: str, *, advice: str = "") -> Verdict:
    """Return the verdict that the other side holds nothing to compare with."""
    return Verdict(
        gate=gate, outcome=Outcome.NO_BASELINE, code="no_number_stored", message=f"not gated: {why}", advice=advice
    )


def not_gated(gate: str, code: str, why: str, *, advice: str = "") -> Verdict:
    """Return the verdict that tonight has no number that may be compared; never a pass."""
    return Verdict(gate=gate, outcome=Outcome.INCOMPARABLE, code=code, message=f"not gated: {why}", advice=advice)


def _batches_differ(ours: Costs, theirs: Costs | None) -> tuple[str, ...]:
    if theirs is None or ours.batch_sizes == theirs.batch_sizes:
        return ()
    here, there = (" ".join(map(str, costs.batch_sizes)) or "unknown" for costs in (ours, theirs))
    return (f"batch sizes of the engine {here} and {there}",)


def _changes(ours: Subject, theirs: Subject) -> tuple[str, ...]:
    model = model_change(ours, theirs)
    named = (f"the model {model}",) if model else ()
    return (*named, *changes_of_setting(ours, theirs), *changes_of_options(ours, theirs))

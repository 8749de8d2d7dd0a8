"""Gate: what ran is what was asked: the share of compute layers in the requested precision does not fall."""

from __future__ import annotations

from harness.gates._gate import Evidence, Gate
from harness.gates._subjects import Subject, machine_differences, subject_from_record
from harness.records import UNKNOWN, EffectivePrecision, Outcome, Record, Verdict

# TensorRT chooses kernels by time, so one layer of many may change its precision from build to build.
MAX_SHARE_DROP = 0.05


def judge(evidence: Evidence) -> tuple[Verdict, ...]:
    """Judge the share of compute layers that ran as asked, against the baseline's and what is required."""
    record = evidence.record
    effective = record.effective_precision
    if effective is None:
        return ()
    return (_judge(record, effective, _share_before(evidence), evidence.stored),)


def _share_before(evidence: Evidence) -> float | None:
    """Return the share of the baseline, None where it has none of this type of device."""
    record, stored = evidence.record, evidence.stored
    if stored is None or stored.effective_precision is None or not stored.effective_precision.by_layer:
        return None
    if machine_differences(subject_from_record(record, "this run"), stored):
        return None
    return _share(stored.effective_precision, record)


def _judge(record: Record, effective: EffectivePrecision, before: float | None, stored: Subject | None) -> Verdict:
    share, asked = _share(effective, record), record.case.precision.value
    message, is_told = _told(effective, asked), bool(effective.by_layer.keys() - {UNKNOWN})
    if share < 1 and is_told and record.environment.fast_precisions:
        message += f"; this device has fast kernels for {', '.join(record.environment.fast_precisions)}"
    outcome, code, advice, failed = Outcome.SAME, "as_asked" if share >= 1 else "not_as_asked", "", False
    if stored is not None and before is not None and share < before - MAX_SHARE_DROP:
        outcome, code, failed = Outcome.REGRESSED, "fewer_as_asked", True
        message += f"; in {stored.name} {before:.0%} ran in {asked}"
        advice = "see which layers changed in the case's details"
        advice += f"; if the change is wanted: {_accept(record)}" if stored.is_baseline else ""
    elif record.requires_precision and share < 1:
        # Nothing was lost against anything: the request was not met.
        outcome, code, failed = Outcome.INCOMPARABLE, "not_as_required", True
        advice = "choose a recipe or options that quantize these layers, or leave out --require-precision"
        advice = advice if is_told else "the runtime does not tell what it ran in; leave out --require-precision"
    return Verdict(
        gate=GATE.name,
        outcome=outcome,
        code=code,
        message=message,
        advice=advice,
        is_failure=failed,
        value=share,
        baseline_value=before,
    )


def _told(effective: EffectivePrecision, asked: str) -> str:
    share = effective.by_layer.get(asked, 0.0)
    if not effective.by_layer:
        return f"requested {asked}; no compute layer was told"
    if share >= 1:
        return f"requested {asked}; all compute layers ran in {asked}"
    parts = sorted(effective.by_layer.items(), key=lambda part: -part[1])
    told = ", ".join(f"{part:.0%} in {name}" for name, part in parts)
    return f"requested {asked}; of the compute layers ran {told}"


def _share(effective: EffectivePrecision, record: Record) -> float:
    return effective.by_layer.get(record.case.precision.value, 0.0)


def _accept(record: Record) -> str:
    return f"harness baseline accept latest --case {record.case.id}"


GATE = Gate(
    name="precision",
    summary="the share of compute layers in the requested precision is not below the baseline's, or 100 % if required",
    needs=("layers",),
    applies=lambda candidate: True,
    judge=judge,
    order=25,
    in_family=True,
    reads_baseline=True,
    judges_alone=True,
)

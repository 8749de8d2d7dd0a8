"""Gate: a lower precision is as much faster than FP32 as its card or project asks; one that is slower is told."""

from __future__ import annotations

from harness.gates._gate import Evidence, Gate
from harness.gates._void import void_verdicts
from harness.records import Latency, Outcome, Verdict
from harness.stats import ratio_of_rounds


def judge(evidence: Evidence) -> tuple[Verdict, ...]:
    """Judge every batch size; one verdict each."""
    record = evidence.record
    judged = (_judge(latency, record.tolerance.min_speedup) for latency in record.valid_latencies)
    return (*void_verdicts(record, gate=GATE.name), *judged)


def _judge(latency: Latency, asked: float | None) -> Verdict:
    """Judge a speed-up by its interval over rounds. Raises: MeasurementError for times that are no numbers."""
    reference = latency.paired_rounds_ns
    if reference is None:
        return Verdict(
            gate=GATE.name,
            outcome=Outcome.SAME if asked is None else Outcome.INCONCLUSIVE,
            code="timed_otherwise",
            message=f"batch {latency.batch_size}: FP32 was not timed in the same way, so there is no speed-up",
        )
    ratio = ratio_of_rounds(reference.array(), latency.rounds_ns.array())
    interval = f" ({ratio.low:.3g} to {ratio.high:.3g})" if ratio.low is not None and ratio.high is not None else ""
    message = f"batch {latency.batch_size}: {ratio.value:.3g} times as fast as FP32{interval}"
    is_slower = ratio.high is not None and ratio.high < 1
    outcome, code, advice = Outcome.SAME, "slower_than_fp32" if is_slower else "no_limit", ""
    if is_slower:
        message += ", that is slower"
    if asked is not None:
        message += f"; asked is {asked:g}"
        if ratio.low is None or ratio.high is None:
            outcome, code, advice = Outcome.INCONCLUSIVE, "too_few_rounds", "time more rounds"
        elif ratio.high < asked:
            outcome, code = Outcome.REGRESSED, "below_min_speedup"
            advice = "run this model in FP32, or see which layers ran in which precision; min_speedup sets the limit"
        elif ratio.low < asked:
            outcome, code, advice = Outcome.INCONCLUSIVE, "speed_unclear", "time more rounds, or a quieter machine"
    return Verdict(
        gate=GATE.name,
        outcome=outcome,
        code=code,
        message=message,
        advice=advice,
        is_failure=outcome is Outcome.REGRESSED,
        value=ratio.value,
        baseline_value=asked,
        change_low=None if ratio.low is None else ratio.low - 1,
        change_high=None if ratio.high is None else ratio.high - 1,
    )


GATE = Gate(
    name="speedup",
    summary="a lower precision is as much faster than FP32 as min_speedup asks",
    needs=("latency",),
    applies=lambda candidate: not candidate.is_source,
    judge=judge,
    order=75,
    judges_times=True,
)

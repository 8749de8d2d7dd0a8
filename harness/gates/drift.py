"""Gate: the outputs of any graph stay near those of FP32 on the same backend and on the reference backend.

It needs no labels. The unit is the sample: each has one relative error an output, the norm of what differs over the
norm of the reference. What is judged is their median, by a sign test against the accepted drift: the share of samples
that lie beyond it is above one half, or below it. Where roundings of its inputs alone move FP32 by more than is
accepted, as they do on noise that a model has no answer to, that much is accepted.
Source: Conover, Practical Nonparametric Statistics, section 3.4.
"""

from __future__ import annotations

import numpy as np

from harness.gates._gate import Candidate, Evidence, Gate
from harness.records import WORST_FIRST, Outcome, Record, SampleScores, TensorDrift, Verdict
from harness.stats import below_floor_p

FP32_DRIFT = 0.01  # between FP32 engines: TF32 and other orders of addition stay below; another operator does not
ROUNDINGS = 3.0  # times what roundings of its inputs do to FP32: those of all its layers add up
HALF = 0.5
SHOWN_OTHERS = 2  # outputs named beside the worst


def applies(candidate: Candidate) -> bool:
    """Tell whether its samples are run; a file that one backend alone reads has nothing to be compared with."""
    return candidate.runs_samples and (candidate.is_onnx or not candidate.is_source)


def judge(evidence: Evidence) -> tuple[Verdict, ...]:
    """Judge the farthest output against each engine that the case was compared with; one verdict each."""
    record = evidence.record
    if record.samples is None:
        return ()
    against = dict.fromkeys(drift.against for drift in record.tensor_drifts)
    if not against and record.case.is_source:
        return (_alone(record.samples),)
    return tuple(_judge(record, [d for d in record.tensor_drifts if d.against == other]) for other in against)


def _alone(samples: SampleScores) -> Verdict:
    """Say of what all others are compared with whether it gives numbers."""
    if samples.n_nan:
        told = ", ".join(f"{output} of {count}" for output, count in samples.n_nan.items())
        return Verdict(
            gate=GATE.name,
            outcome=Outcome.INCONCLUSIVE,
            code="nan_outputs",
            message=f"NaN in {told} of {samples.n_samples} samples",
            advice="run samples that the model knows, with --dataset or --input-range; or mend the model",
        )
    return Verdict(
        gate=GATE.name,
        outcome=Outcome.SAME,
        code="nothing_to_compare",
        message=f"what others are compared with: outputs of {samples.n_samples} samples hold no NaN",
    )


def _judge(record: Record, drifts: list[TensorDrift]) -> Verdict:
    """Return the verdict of the worst output: what roundings alone do excuses an output, not the one beside it."""
    farthest = sorted(drifts, key=lambda drift: (drift.n_reshaped, drift.median, drift.max_abs), reverse=True)
    found = [_judge_one(record, drift, drifts) for drift in farthest]
    return min(found, key=lambda verdict: WORST_FIRST.index(verdict.outcome))


def _judge_one(record: Record, worst: TensorDrift, drifts: list[TensorDrift]) -> Verdict:
    relative = worst.relative.array().astype(np.float64)
    accepted = record.tolerance.max_drift
    if accepted is None and record.case.is_source:
        accepted = FP32_DRIFT
    message = _told(worst, drifts)
    if accepted is None:
        return _verdict(worst, Outcome.SAME, "no_limit", f"{message}; --max-drift sets a limit")
    if (floor := ROUNDINGS * worst.rounding) > accepted:
        message = f"{message}; roundings alone move {worst.against} by {worst.rounding:.2%}"
        accepted = floor
    n_beyond = int((relative > accepted).sum())
    # The chance of so many, or so few, beyond the limit were it the median.
    p_beyond = below_floor_p(relative.size - n_beyond, relative.size, HALF)
    p_within = below_floor_p(n_beyond, relative.size, HALF)
    message = f"{message}; {n_beyond} beyond the accepted {accepted:.2%}"
    alpha = record.tolerance.alpha
    if p_beyond <= alpha:
        advice = "compare the layers' precisions, or keep some in float with --keep-float; --max-drift sets the limit"
        return _verdict(worst, Outcome.REGRESSED, "drift_beyond_limit", message, p=p_beyond, advice=advice)
    if worst.is_constant:  # it may show that an engine is far off, and not that it is right
        message = f"{message}; {worst.against} gives the same for every sample, so no more can be said"
        advice = "are these the trained weights? Else run samples that the model knows, with --dataset"
        return _verdict(worst, Outcome.INCONCLUSIVE, "constant_outputs", message, p=p_beyond, advice=advice)
    if p_within <= alpha:
        return _verdict(worst, Outcome.SAME, "within_limit", message, p=p_beyond)
    advice = "run more samples with --score-images, or a data set's with --dataset"
    return _verdict(worst, Outcome.INCONCLUSIVE, "too_few_samples", message, p=p_beyond, advice=advice)


def _told(worst: TensorDrift, drifts: list[TensorDrift]) -> str:
    parts = [f"median error {worst.median:.2%} of {worst.output} against {worst.against} on {worst.n_samples} samples"]
    relative = worst.relative.array()
    parts.append(f"largest {float(relative[worst.worst]):.2%} in sample {worst.worst}")
    if worst.agreement is not None:
        parts.append(f"the largest along its last axis agrees in {worst.agreement:.2%}")
    if worst.n_reshaped:
        parts.append(f"{worst.n_reshaped} of another shape")
    others = sorted((d for d in drifts if d is not worst), key=lambda drift: -drift.median)[:SHOWN_OTHERS]
    parts += [f"{drift.output} {drift.median:.2%}" for drift in others]
    return ", ".join(parts)


def _verdict(
    drift: TensorDrift, outcome: Outcome, code: str, message: str, *, p: float | None = None, advice: str = ""
) -> Verdict:
    return Verdict(
        gate=GATE.name,
        outcome=outcome,
        code=code,
        message=message,
        advice=advice,
        is_failure=outcome is Outcome.REGRESSED,
        value=drift.median if np.isfinite(drift.median) else None,
        p_value=p,
        p_test="" if p is None else "sign test of the median error",
    )


GATE = Gate(
    name="drift",
    summary="the outputs of any graph stay within --max-drift of FP32, and FP32's of the reference backend",
    needs=("samples", "samples_fp32", "samples_reference"),
    applies=applies,
    judge=judge,
    order=45,
    in_family=True,
    judges_outputs=True,
)

"""Gate: the outputs of any graph stay near those of FP32 on the same backend and on the reference backend.

It needs no labels. The unit is the sample: each has one relative error an output, the norm of what differs over the
norm of the reference. What is judged is their median, by a sign test against the accepted drift: the share of samples
that lie beyond it is above one half, or below it. Where roundings of its inputs alone move FP32 by more than is
accepted, as they do on noise that a model has no answer to, that much is accepted. Without a limit a lower precision is
shown alone, up to an error as large as the outputs themselves: such an engine does not compute the model.
Source: Conover, Practical Nonparametric Statistics, section 3.4.
"""

from __future__ import annotations

import math

import numpy as np

from harness.gates._gate import Candidate, Evidence, Gate
from harness.records import WORST_FIRST, Outcome, Record, SampleScores, TensorDrift, Verdict, percent
from harness.stats import below_floor_p

FP32_DRIFT = 0.01  # between FP32 engines: TF32 and other orders of addition stay below; another operator does not
UNLIKE = 1.0  # where nobody set a limit: zeros for all outputs would be as near
ROUNDINGS = 3.0  # times what roundings of its inputs do to FP32: those of all its layers add up
HALF = 0.5
TELLING = 0.5  # an error below this share of what samples differ by is of an engine that follows them
RETRAIN = "are these the trained weights? Else run samples that the model knows, with --dataset"
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
    message = _told(worst, drifts) + _split(record, worst)
    silent = _silence(worst, FP32_DRIFT if accepted is None else accepted)
    limit = UNLIKE if accepted is None else accepted
    if (floor := ROUNDINGS * worst.rounding) > limit:
        message = f"{message}; roundings alone move {worst.against} by {percent(worst.rounding)}"
        limit = floor
    n_beyond = int((relative > limit).sum())
    # The chance of so many, or so few, beyond the limit were it the median. That one output of several lies beyond may
    # be chance of any of them (Bonferroni); that all lie within is said only where each does.
    p_beyond = min(1.0, len(drifts) * below_floor_p(relative.size - n_beyond, relative.size, HALF))
    p_within = below_floor_p(n_beyond, relative.size, HALF)
    alpha = record.tolerance.alpha
    if accepted is not None and (n_beyond or not _is_identical(worst)):
        message = f"{message}; {n_beyond} beyond the accepted {percent(limit)}"
    if accepted is None and worst.median > limit:
        message = f"{message}; the error of {n_beyond} is larger than the outputs themselves"
    if silent:
        message = f"{message}; {silent}"
    if p_beyond <= alpha:
        code = "unlike_reference" if accepted is None else "drift_beyond_limit"
        advice = "compare the layers' precisions; --max-drift sets the limit"
        advice = f"{advice}; {RETRAIN}" if silent else advice
        return _verdict(worst, Outcome.REGRESSED, code, message, p=p_beyond, advice=advice)
    if silent:  # it may show that an engine is far off, and not that it is right
        return _verdict(worst, Outcome.INCONCLUSIVE, "constant_outputs", message, p=p_beyond, advice=RETRAIN)
    if accepted is None and worst.median <= limit:
        return _verdict(worst, Outcome.SAME, "no_limit", f"{message}; --max-drift sets a limit")
    if p_within <= alpha:
        return _verdict(worst, Outcome.SAME, "within_limit", message, p=p_beyond)
    if not n_beyond:
        enough = math.ceil(math.log(alpha, HALF))
        message = f"{message}; {enough} samples within {percent(limit)} are needed to tell it from chance"
    advice = "run more samples with --score-images, or a data set's with --dataset"
    return _verdict(worst, Outcome.INCONCLUSIVE, "too_few_samples", message, p=p_beyond, advice=advice)


def _silence(drift: TensorDrift, limit: float) -> str:
    """Say that a reference hardly differs from sample to sample, so that no engine is proved right by it; else "".

    An engine that gave every sample the same would be off by what the samples differ: within a limit that is no less.
    """
    if drift.spread is None or TELLING * drift.spread > min(drift.median, limit):
        return ""
    if drift.spread == 0:
        return f"{drift.against} gives the same for every sample, as an engine would that ignored its inputs"
    return f"{drift.against} differs by only {percent(drift.spread)} between samples, so no more can be said"


def _split(record: Record, worst: TensorDrift) -> str:
    """Say which part of an output's drift is its kernels' and not quantization's; "" where that is not known."""
    kernels = next((drift for drift in record.kernel_drifts if drift.output == worst.output), None)
    if kernels is None or not worst.median:
        return ""
    whose = "its kernels" if kernels.median > HALF * worst.median else "quantization"
    return f", its kernels alone {percent(kernels.median)} off the float emulation of its file: {whose}"


def _told(worst: TensorDrift, drifts: list[TensorDrift]) -> str:
    if all(_is_identical(drift) for drift in drifts):
        which = "outputs identical to those" if len(drifts) > 1 else f"{worst.output} identical to that"
        return f"{which} of {worst.against} on {_samples(worst.n_samples)}"
    parts = [
        f"median error {percent(worst.median)} of {worst.output} against {worst.against} on {_samples(worst.n_samples)}"
    ]
    relative = worst.relative.array()
    parts.append(f"largest {percent(float(relative[worst.worst]))} in sample {worst.worst}")
    if worst.agreement is not None:
        parts.append(f"the largest along its last axis agrees in {percent(worst.agreement)}")
    if worst.n_reshaped:
        parts.append(f"{worst.n_reshaped} of another shape")
    others = sorted((d for d in drifts if d is not worst), key=lambda drift: -drift.median)[:SHOWN_OTHERS]
    parts += [f"{drift.output} {percent(drift.median)}" for drift in others]
    return ", ".join(parts)


def _is_identical(drift: TensorDrift) -> bool:
    return drift.max_abs == 0 and not drift.n_reshaped and not drift.relative.array().any()


def _samples(n_samples: int) -> str:
    return "1 sample" if n_samples == 1 else f"{n_samples} samples"


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
    needs=("samples", "samples_fp32", "samples_reference", "samples_emulation"),
    applies=applies,
    judge=judge,
    order=45,
    in_family=True,
    judges_outputs=True,
)

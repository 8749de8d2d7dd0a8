"""How far the outputs of any graph are from another engine's, in words: made once here, printed everywhere."""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.records import Record, TensorDrift, percent
from harness.report.format import MISSING, format_number

SMALLEST = 1e-4  # of a drift told in per cent; below, its power of ten says more


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftView:
    """One output against one other engine."""

    output: str
    against: str
    median: str
    largest: str  # of a sample, with its place
    max_abs: str
    cosine: str
    agreement: str  # of the largest along the last axis
    rounding: str  # what roundings alone do to the other engine


def drift_views(record: Record) -> tuple[DriftView, ...]:
    """Return every output of a case against every engine that it was compared with, the emulation last."""
    return tuple(map(_view, (*record.tensor_drifts, *record.kernel_drifts)))


def drift_text(record: Record) -> str:
    """Return the drift of the farthest output, against FP32 of the same backend where there is one; "" for none."""
    if not record.tensor_drifts:
        return ""
    first = record.tensor_drifts[0].against
    worst = max((one for one in record.tensor_drifts if one.against == first), key=lambda one: one.median)
    return f"drift {share_text(worst.median)}"


def share_text(value: float) -> str:
    """Return a relative error: per cent, or a power of ten where it is small."""
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    return f"{value:.0e}" if value < SMALLEST else f"{100 * value:.2g}%" if value < 1 else f"{100 * value:.0f}%"


def _view(drift: TensorDrift) -> DriftView:
    relative = drift.relative.array()
    return DriftView(
        output=drift.output,
        against=drift.against,
        median=share_text(drift.median),
        largest=f"{share_text(float(relative[drift.worst]))} (sample {drift.worst} of {drift.n_samples})",
        max_abs=format_number(drift.max_abs) if math.isfinite(drift.max_abs) else "not finite",
        cosine=MISSING if drift.cosine is None else f"{drift.cosine:.6f}",
        agreement=MISSING if drift.agreement is None else percent(drift.agreement),
        rounding=share_text(drift.rounding) if drift.rounding else MISSING,
    )

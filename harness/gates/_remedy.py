"""What may be done about a loss by whoever prepares the model, said where it has an effect."""

from __future__ import annotations

from dataclasses import replace

from harness.records import Outcome, Record, Verdict

KEEP_FLOAT = "--keep-float leaves nodes in float by name"
LOSSES = ("loss_beyond_margin", "kernel_loss", "drift_beyond_limit")  # by what the precision does, as codes


def with_remedy(verdict: Verdict, record: Record) -> Verdict:
    """Return a verdict of a loss with how nodes are kept in float, where the case's recipe lets them be."""
    is_loss = verdict.outcome is Outcome.REGRESSED and verdict.code in LOSSES
    if not is_loss or record.artifact is None or not record.artifact.can_keep_float:
        return verdict
    return replace(verdict, advice="; ".join(part for part in (verdict.advice, KEEP_FLOAT) if part))

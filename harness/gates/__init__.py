"""Two measurements and a tolerance -> verdicts. Pure: no files, no clocks, no random numbers.

`accuracy`: gates of one run; `subjects`: what two runs or a baseline are compared by; `runs`: gates between runs;
`family`: what holds for all verdicts of a run.
"""

from harness.gates.accuracy import (
    judge_against_fp32,
    judge_against_reference_backend,
    judge_floor,
    judge_kernel_loss,
    loss_split,
)
from harness.gates.family import apply_rules, holm, judged_together
from harness.gates.runs import compare_runs, judge_latency, judge_subject, no_baseline, records_with_verdicts
from harness.gates.subjects import RoundMedians, Subject, engine_digest, subject_from_record

__all__ = [
    "RoundMedians",
    "Subject",
    "apply_rules",
    "compare_runs",
    "engine_digest",
    "holm",
    "judge_against_fp32",
    "judge_against_reference_backend",
    "judge_floor",
    "judge_kernel_loss",
    "judge_latency",
    "judge_subject",
    "judged_together",
    "loss_split",
    "no_baseline",
    "records_with_verdicts",
    "subject_from_record",
]

"""Statistics on NumPy and SciPy: plain functions, no files, no clocks, no random numbers.

SciPy is imported by the functions that use it: alone it would double the time of `pytest --collect-only`.
"""

from harness.stats.agreement import kappa_interval
from harness.stats.confusion import (
    ConfusionMove,
    confusion_matrix,
    flips_between,
    largest_confusion_moves,
    low_margin_agreement,
    low_margin_images,
)
from harness.stats.joint import joint_loss_p, smallest_joint_p
from harness.stats.latency import (
    LatencySummary,
    Ratio,
    ratio_of_rounds,
    ratio_of_runs,
    round_medians,
    summarize_latency,
)
from harness.stats.multiple import cases_that_could_alarm, holm_p
from harness.stats.paired import (
    detectable_loss,
    images_needed,
    loss_beyond_margin_p,
    loss_interval,
    loss_within_margin_p,
    mcnemar_p,
    mcnemar_power,
    score_statistic,
    smallest_flagged_loss,
    smallest_p,
)
from harness.stats.quantiles import median_interval, n_needed_for_quantile, quantile_interval, quantile_or_none
from harness.stats.rates import below_floor_p, clopper_pearson_interval, wilson_interval
from harness.stats.samples import (
    MeanChange,
    change_of_means,
    change_of_resamples,
    mean_interval,
    percentile_interval,
    sign_flip_p,
)
from harness.stats.sequential import SignTest

__all__ = [
    "ConfusionMove",
    "LatencySummary",
    "MeanChange",
    "Ratio",
    "SignTest",
    "below_floor_p",
    "cases_that_could_alarm",
    "change_of_means",
    "change_of_resamples",
    "clopper_pearson_interval",
    "confusion_matrix",
    "detectable_loss",
    "flips_between",
    "holm_p",
    "images_needed",
    "joint_loss_p",
    "kappa_interval",
    "largest_confusion_moves",
    "loss_beyond_margin_p",
    "loss_interval",
    "loss_within_margin_p",
    "low_margin_agreement",
    "low_margin_images",
    "mcnemar_p",
    "mcnemar_power",
    "mean_interval",
    "median_interval",
    "n_needed_for_quantile",
    "percentile_interval",
    "quantile_interval",
    "quantile_or_none",
    "ratio_of_rounds",
    "ratio_of_runs",
    "round_medians",
    "score_statistic",
    "sign_flip_p",
    "smallest_flagged_loss",
    "smallest_joint_p",
    "smallest_p",
    "summarize_latency",
    "wilson_interval",
]

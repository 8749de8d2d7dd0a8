"""Calls before the clock counts, until the time of a call no longer moves or the budget is spent."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.protocols import Timer
from harness.specs import TimingPlan

MIN_CALLS = 3  # OpenVINO's first call of a shape is 10-60 times slower, its second still 2 times
N_WINDOWS = 5  # that the asked time is divided into
BUDGET = 2  # times the asked time
STEADY_SHARE = 0.02  # two medians closer than this agree
COMPARED_WINDOWS = 2  # the medians of the last two windows against the two before: one alone is a matter of chance

NOT_STEADY = "not_steady"


class WarmUp(NamedTuple):
    """How an engine was warmed up."""

    n_calls: int
    call_ns: float  # the fastest of the last calls
    is_steady: bool  # False: the time still moved when the budget was spent


def warm_up(timer: Timer, plan: TimingPlan, now_ns: Callable[[], int]) -> WarmUp:
    """Run one timer for as long as asked, and on until it is steady, for twice as long at most.

    Steady: the median of the last two windows is within 2 % of that of the two before them. A window is a fifth of the
    time asked, and 3 calls at least. Where calls are so slow that there are fewer windows, the last two calls decide;
    where no warm-up is asked for, 3 calls run and nothing is decided. Raises: MeasurementError for a broken clock.
    """
    timer.calls_per_sample = 1
    started, medians = now_ns(), list[float]()
    n_calls = 0
    while True:
        window, samples = now_ns(), list[float]()
        while not samples or now_ns() - window < plan.warmup_ns / N_WINDOWS:
            samples += checked_samples(timer, MIN_CALLS).tolist()
        n_calls += len(samples)
        medians.append(float(np.median(samples)))
        spent = now_ns() - started
        if spent < plan.warmup_ns:
            continue
        is_steady = not plan.warmup_ns or _is_steady(medians, samples)
        if is_steady or spent >= BUDGET * plan.warmup_ns:
            return WarmUp(n_calls, min(samples[-MIN_CALLS:]), is_steady)


def checked_samples(timer: Timer, n_samples: int) -> NDArray[np.float64]:
    """Return float64[n_samples]: ns per call. Raises: MeasurementError for other than positive times, as many."""
    samples = timer.sample(n_samples)
    if samples.shape != (n_samples,) or not np.isfinite(samples).all() or (samples <= 0).any():
        raise MeasurementError(
            f"the {timer.clock} clock gave {samples[:3]} ns for {n_samples} samples of batch {timer.batch_size}; "
            "expected as many positive times as were asked for"
        )
    return samples


def _is_steady(medians: list[float], samples: list[float]) -> bool:
    if len(medians) < 2 * COMPARED_WINDOWS:
        last, before = samples[-1], samples[-2]
    else:
        last, before = (
            float(np.median(part))
            for part in (medians[-COMPARED_WINDOWS:], medians[-2 * COMPARED_WINDOWS : -COMPARED_WINDOWS])
        )
    return abs(last - before) <= STEADY_SHARE * before

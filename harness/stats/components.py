"""Where times scatter: between rounds, processes, builds and nights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.stats.quantiles import finite_samples

LEVELS = ("night", "build", "process", "round")


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedProcess:
    """The rounds of one process, and what it shares with others."""

    night: str
    build: str  # of its night: an engine that was built once
    logs: NDArray[np.float64]  # logarithms of the rounds' medians


@dataclass(frozen=True, slots=True, kw_only=True)
class VarianceComponents:
    """Standard deviations of logarithms, so fractions of the time; None where a level has one member only."""

    night: float | None
    build: float | None
    process: float | None
    round: float | None


def variance_components(processes: Sequence[TimedProcess]) -> VarianceComponents:
    """Return how much of the scatter each level adds: rounds in processes in builds in nights.

    Nested analysis of variance by the method of moments, for any numbers at each level; what comes out negative is 0.
    Raises: MeasurementError for no process, or one without rounds.
    Source: S. R. Searle, G. Casella, C. E. McCulloch, Variance Components (1992), chapter 5.
    """
    if not processes or any(process.logs.size == 0 for process in processes):
        raise MeasurementError("no rounds of a process: there is no scatter to take apart")
    values = np.concatenate([finite_samples(process.logs) for process in processes])
    groups = [np.zeros(values.size, np.int64), *_groups(processes)]
    variances: dict[int, float] = {}
    for level in range(len(LEVELS), 0, -1):  # from the rounds upwards: a mean square holds all components below it
        df = _n_groups(groups[level]) - _n_groups(groups[level - 1])
        if df < 1:
            continue
        square = _sum_of_squares(values, groups[level]) - _sum_of_squares(values, groups[level - 1])
        below = sum(
            variance * _coefficient(groups, level, other) for other, variance in variances.items() if other > level
        )
        variances[level] = (square - below) / _coefficient(groups, level, level)
    deviations = {
        name: math.sqrt(max(0.0, variances[level])) if level in variances else None
        for level, name in enumerate(LEVELS, 1)
    }
    return VarianceComponents(**deviations)


def _groups(processes: Sequence[TimedProcess]) -> list[NDArray[np.int64]]:
    """Return of each level int64[values]: which member of it a value belongs to."""
    sizes = [process.logs.size for process in processes]
    nights = _numbered([process.night for process in processes])
    builds = _numbered([(process.night, process.build) for process in processes])
    per_process = (nights, builds, list(range(len(processes))))
    of_levels = [np.repeat(np.asarray(numbers, np.int64), sizes) for numbers in per_process]
    return [*of_levels, np.arange(sum(sizes))]


def _numbered(names: Sequence[object]) -> list[int]:
    numbers: dict[object, int] = {}
    return [numbers.setdefault(name, len(numbers)) for name in names]


def _n_groups(group: NDArray[np.int64]) -> int:
    return int(group.max()) + 1


def _sum_of_squares(values: NDArray[np.float64], group: NDArray[np.int64]) -> float:
    sums, counts = np.bincount(group, values - values.mean()), np.bincount(group)
    return float((sums**2 / counts).sum())


def _coefficient(groups: Sequence[NDArray[np.int64]], level: int, other: int) -> float:
    """Return how often the variance of a lower (or the same) level is in the sum of squares of one."""
    counts = np.bincount(groups[other]).astype(np.float64)
    first = np.unique(groups[other], return_index=True)[1]  # a value of every member of the lower level

    def share(upper: int) -> float:
        member = groups[upper][first]
        return float((np.bincount(member, counts**2) / np.bincount(groups[upper])).sum())

    return share(level) - share(level - 1)

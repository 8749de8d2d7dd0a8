"""What a device type's calibration says of one case: its spread, what it can tell apart, and how often it was wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from harness.records import (
    INJECTED,
    CaseSamples,
    CaseSpread,
    Caught,
    TimingBasis,
    TimingCalibration,
    TimingSpread,
)
from harness.stats import clopper_pearson_interval
from harness.stats.components import TimedProcess, VarianceComponents, variance_components
from harness.stats.looking import LookSpread
from harness.stats.pairs import (
    LOOKS,
    PairsOutcome,
    Spread,
    judge_comparisons,
    pairs_spread,
    smallest_margin,
)

N_RESAMPLED = 1_000
SEED = 20_261_126  # of the draws: the same file gives the same numbers
MIN_PAIRS = 8  # fewer tell too little of their own scatter for a limit to rest on it


def spread_of_pairs(calibration: TimingCalibration, case_id: str, batch_size: int) -> Spread | None:
    """Return the spread of ratios of a case's pairs of unchanged engines, None where they were not measured."""
    samples = _samples_of(calibration, case_id, batch_size)
    ratios = _log_ratios(samples, 0)
    return pairs_spread(ratios) if ratios.size >= MIN_PAIRS else None


def look_spread(calibration: TimingCalibration, case_id: str, batch_size: int) -> LookSpread | None:
    """Return what the cheap look needs to know of a case, None where it was not calibrated.

    A stored time is of another night and another build: their scatter counts as far as it is known.
    """
    pairs, samples = spread_of_pairs(calibration, case_id, batch_size), _samples_of(calibration, case_id, batch_size)
    if pairs is None:
        return None
    parts = _components(samples)
    variance = sum((part or 0.0) ** 2 for part in (parts.process, parts.build, parts.night))
    times = Spread(sd=variance**0.5, n=max(2, sum(len(night.medians_ns) for _, night in samples)))
    return LookSpread(times=times, pairs=pairs)


def smallest_slowdown(calibration: TimingCalibration, case_id: str, batch_size: int) -> float | None:
    """Return the smallest accepted slowdown that a case supports here [fraction], None where it was not calibrated."""
    pairs = spread_of_pairs(calibration, case_id, batch_size)
    return None if pairs is None else smallest_margin(pairs, alpha=calibration.alpha)


def timing_basis(calibration: TimingCalibration | None, case_id: str) -> TimingBasis:
    """Return what latency verdicts on a case rest on: nothing where its type of device was not calibrated."""
    if calibration is None:
        return TimingBasis()
    sizes = sorted({case.batch_size for night in calibration.nights for case in night.cases if case.case_id == case_id})
    spreads = []
    for size in sizes:
        look, smallest = look_spread(calibration, case_id, size), smallest_slowdown(calibration, case_id, size)
        if look is not None and smallest is not None:
            spreads.append(
                TimingSpread(
                    batch_size=size,
                    times_sd=look.times.sd,
                    times_n=look.times.n,
                    pairs_sd=look.pairs.sd,
                    pairs_n=look.pairs.n,
                    smallest_slowdown=smallest,
                )
            )
    return TimingBasis(calibrated_at=calibration.nights[-1].measured_at, spreads=tuple(spreads))


def case_spreads(calibration: TimingCalibration, *, n_injected: int = len(INJECTED)) -> tuple[CaseSpread, ...]:
    """Return what is known of every calibrated case, in the order of their ids and batch sizes.

    `n_injected`: how many of INJECTED are looked at; 1 is false alarms alone, at a quarter of the time.
    """
    keys = sorted({(case.case_id, case.batch_size) for night in calibration.nights for case in night.cases})
    found = (_case_spread(calibration, *key, n_injected) for key in keys)
    return tuple(spread for spread in found if spread is not None)


def caught_together(spreads: tuple[CaseSpread, ...]) -> tuple[Caught, ...]:
    """Return the sums over cases of what was called slower, one of each injected slowdown."""
    sums = []
    for index, slowdown in enumerate(INJECTED):
        rows = [spread.caught[index] for spread in spreads if index < len(spread.caught)]
        total = Caught(slowdown=slowdown, n_tried=0, n_called=0, n_resampled=0, n_resampled_called=0)
        for row in rows:
            total = replace(
                total,
                n_tried=total.n_tried + row.n_tried,
                n_called=total.n_called + row.n_called,
                n_resampled=total.n_resampled + row.n_resampled,
                n_resampled_called=total.n_resampled_called + row.n_resampled_called,
            )
        sums.append(total)
    return tuple(sums)


def most_false_alarms(caught: Caught) -> float | None:
    """Return the rate that the false alarms of independent comparisons do not exclude, at 95 % [fraction].

    One-sided and exact: 0 of 100 bounds 3 %. None where no comparison is independent.
    """
    return clopper_pearson_interval(caught.n_called, caught.n_tried, 0.90)[1] if caught.n_tried else None


def _case_spread(calibration: TimingCalibration, case_id: str, batch_size: int, n_injected: int) -> CaseSpread | None:
    samples = _samples_of(calibration, case_id, batch_size)
    pairs = spread_of_pairs(calibration, case_id, batch_size)
    if pairs is None:
        return None
    parts = _components(samples)
    return CaseSpread(
        case_id=case_id,
        batch_size=batch_size,
        n_processes=sum(len(case.medians_ns) for _, case in samples),
        n_builds=sum(len(set(case.builds)) for _, case in samples),
        n_nights=len(samples),
        n_pairs=pairs.n,
        round_cv=float(np.median(np.concatenate([case.round_cvs for _, case in samples]))),
        process_cv=parts.process or 0.0,
        build_cv=parts.build,
        night_cv=parts.night,
        paired_cv=pairs.sd,
        smallest_slowdown=smallest_margin(pairs, alpha=calibration.alpha),
        caught=tuple(_caught(calibration, samples, index, pairs) for index in range(n_injected)),
    )


def _caught(
    calibration: TimingCalibration, samples: list[tuple[str, CaseSamples]], index: int, spread: Spread
) -> Caught:
    ratios = _log_ratios(samples, index)
    n_apart = ratios.size // LOOKS[-1]
    apart = ratios[: n_apart * LOOKS[-1]].reshape(n_apart, LOOKS[-1])
    drawn = _resampled(ratios, is_null=INJECTED[index] == 0)
    called = [_n_slower(rows, calibration, spread) for rows in (apart, drawn)]
    return Caught(
        slowdown=INJECTED[index],
        n_tried=len(apart),
        n_called=called[0],
        n_resampled=len(drawn),
        n_resampled_called=called[1],
    )


def _n_slower(rows: NDArray[np.float64], calibration: TimingCalibration, spread: Spread) -> int:
    if not len(rows):
        return 0
    outcomes, _ = judge_comparisons(rows, margin=calibration.max_slowdown, alpha=calibration.alpha, spread=spread)
    return outcomes.count(PairsOutcome.SLOWER)


def _resampled(ratios: NDArray[np.float64], *, is_null: bool) -> NDArray[np.float64]:
    """Return comparisons drawn from pairs; which of two unchanged engines is called the control is a coin's throw."""
    if ratios.size < LOOKS[-1]:
        return np.empty((0, LOOKS[-1]))
    rng = np.random.default_rng(SEED)
    drawn = rng.choice(ratios, (N_RESAMPLED, LOOKS[-1]))
    return drawn * rng.choice((-1.0, 1.0), drawn.shape) if is_null else drawn


def _samples_of(calibration: TimingCalibration, case_id: str, batch_size: int) -> list[tuple[str, CaseSamples]]:
    return [
        (night.measured_at, case)
        for night in calibration.nights
        for case in night.cases
        if (case.case_id, case.batch_size) == (case_id, batch_size)
    ]


def _log_ratios(samples: list[tuple[str, CaseSamples]], index: int) -> NDArray[np.float64]:
    return np.asarray([ratio for _, case in samples for ratio in case.log_ratios[index]], np.float64)


def _components(samples: list[tuple[str, CaseSamples]]) -> VarianceComponents:
    """Return the scatter of the processes' medians, so that of rounds stays out."""
    processes = [
        TimedProcess(night=night, build=str(build), logs=np.log([median_ns]))
        for night, case in samples
        for build, median_ns in zip(case.builds, case.medians_ns, strict=True)
    ]
    return variance_components(processes)

"""Times against accepted ones: a cheap look first, and where it finds a suspect, pairs of fresh processes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.gates._accuracy import incomparable
from harness.gates._subjects import RoundMedians
from harness.records import CPU, Outcome, Record, Replay, TimingBasis, TimingSpread, Verdict, percent, percent_range
from harness.stats.looking import Looked, LookSpread, look_once
from harness.stats.pairs import PairsJudged, PairsOutcome, Spread, judge_pairs

DEFAULT_SLOWDOWN = {True: 0.05, False: 0.02}  # accepted on a calibrated CPU, and on a calibrated accelerator
MIN_ROUNDS = 6  # fewer have no interval
TEST = "Student's t on pairs of processes"
LOOK_TEST = "look at one process"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimesContext:
    """What a comparison of times rests on, beside the times."""

    against: str  # the other side in words: "the baseline of 2026-11-20"
    margin: float | None  # accepted slowdown [fraction]; None: not gated
    alpha: float
    basis: TimingBasis = field(default_factory=TimingBasis)
    replay: Replay | None = None
    changed: tuple[str, ...] = ()  # recorded facts that differ: driver, versions, model, options, kernels ...
    changed_machine: tuple[str, ...] = ()  # those of them that the accepted engine would feel too: the driver ...
    is_same_engine: bool = False  # byte for byte
    different: tuple[str, ...] = ()  # what of the machines forbids the comparison
    is_beside: bool = False  # both sides are of tonight: pairs decide, whatever the machine did between the looks
    gate: str = "latency"


def accepted_slowdown(record: Record, batch_size: int) -> float | None:
    """Return the slowdown that is accepted [fraction]: the one asked for, else what a calibrated device supports.

    None where nothing was asked and this type of device, or this case on it, was not calibrated.
    """
    if record.tolerance.max_slowdown is not None:
        return record.tolerance.max_slowdown
    spread = record.timing_basis.of_batch(batch_size)
    if spread is None:
        return None
    return max(DEFAULT_SLOWDOWN[record.case.device == CPU], spread.smallest_slowdown)


def look_at(
    ours: RoundMedians,
    theirs: RoundMedians,
    *,
    margin: float,
    alpha: float,
    basis: TimingBasis,
    is_relative: bool = True,
) -> Looked:
    """Look at tonight's one process beside the stored one, relative to FP32 where both were timed in turn with it.

    Raises: MeasurementError for times that are no numbers.
    """
    has_arms = bool(ours.reference_medians_ns and theirs.reference_medians_ns)
    is_paired = is_relative and has_arms and ours.reference_case == theirs.reference_case
    return look_once(
        np.asarray(ours.medians_ns),
        np.asarray(theirs.medians_ns),
        margin=margin,
        alpha=alpha,
        ours_reference_ns=np.asarray(ours.reference_medians_ns) if is_paired else None,
        theirs_reference_ns=np.asarray(theirs.reference_medians_ns) if is_paired else None,
        spread=_look_spread(basis.of_batch(ours.batch_size)),
    )


def wants_replay(
    ours: RoundMedians,
    theirs: RoundMedians,
    *,
    margin: float,
    alpha: float,
    basis: TimingBasis,
    is_beside: bool = False,
) -> bool:
    """Tell whether pairs of processes must decide. Raises: MeasurementError for times that are no numbers."""
    if clock_differences(ours, theirs) or min(len(ours.medians_ns), len(theirs.medians_ns)) < MIN_ROUNDS:
        return False
    return _is_open(look_at(ours, theirs, margin=margin, alpha=alpha, basis=basis), is_beside=is_beside)


def _is_open(looked: Looked, *, is_beside: bool) -> bool:
    """Tell whether a look leaves it to pairs: a suspect, and of an upgrade what looks faster, which is news as well."""
    return looked.is_suspicious or (is_beside and looked.high < 1)


def judge_times(ours: RoundMedians, theirs: RoundMedians, context: TimesContext) -> Verdict:
    """Judge a time against an accepted one; see docs/latency.md.

    Raises: MeasurementError for times that are not positive numbers, or a margin that is not one.
    """
    different = (*context.different, *clock_differences(ours, theirs))
    if different:
        advice = "times are compared only on the same device, with the same clock, window and launch"
        found = incomparable(context.gate, different, against=context.against, advice=advice)
        return replace(found, batch_size=ours.batch_size)
    margin = context.margin
    if margin is not None and not margin >= 0:
        raise MeasurementError(f"max_slowdown {margin} is not a ratio less one of at least 0")
    told = _Told(ours, theirs, context)
    n_rounds = min(len(ours.medians_ns), len(theirs.medians_ns))
    if n_rounds < MIN_ROUNDS:
        rounds = f"{n_rounds} round{'s' if n_rounds > 1 else ''}"
        return told.verdict(Outcome.INCONCLUSIVE, "too_few_rounds", f"not gated: {rounds}", advice="time more rounds")
    if margin is None:
        return _ungated(told)
    return _gated(told, margin) if _sees_direction(context.basis) else _failed_itself(told)


def clock_differences(ours: RoundMedians, theirs: RoundMedians) -> tuple[str, ...]:
    """Return how two times were measured in different ways."""
    pairs = [
        (name, getattr(ours, name), getattr(theirs, name))
        for name in ("batch_size", "clock", "launch", "gated", "window")
    ]
    return tuple(f"{name.replace('_', ' ')} {a} and {b}" for name, a, b in pairs if a != b)


class _Told:
    """What every verdict on one time says: the two times, what is accepted, and whether alarms were measured."""

    def __init__(self, ours: RoundMedians, theirs: RoundMedians, context: TimesContext) -> None:
        self.ours, self.theirs, self.context = ours, theirs, context

    def look(self, *, is_relative: bool) -> Looked:
        """Look at the times, or at their ratios to FP32."""
        context = self.context
        margin, alpha, basis = context.margin or 0.0, context.alpha, context.basis
        return look_at(self.ours, self.theirs, margin=margin, alpha=alpha, basis=basis, is_relative=is_relative)

    def verdict(
        self,
        outcome: Outcome,
        code: str,
        note: str = "",
        *,
        advice: str = "",
        found: Looked | PairsJudged | None = None,
    ) -> Verdict:
        """Return a verdict with the numbers of what it was found by: a look at stored times, or pairs."""
        context = self.context
        margin = context.margin
        accepted = "" if margin is None else f"accepted: {percent(margin)} slower"
        unmeasured = "" if margin is None or context.basis.calibrated_at else "false-alarm rate not measured here"
        low, high = (None, None) if found is None else (found.low, found.high)
        parts = (self._change(found), accepted, note, unmeasured)
        p_value = None if margin is None or found is None else found.p_value
        return Verdict(
            gate=context.gate,
            outcome=outcome,
            code=code,
            batch_size=self.ours.batch_size,
            message=f"batch {self.ours.batch_size}: {'; '.join(part for part in parts if part)}",
            advice=advice,
            is_failure=outcome is Outcome.REGRESSED,
            value=float(np.median(self.ours.medians_ns)),
            baseline_value=float(np.median(self.theirs.medians_ns)),
            change_low=None if low is None else low - 1,
            change_high=None if high is None else high - 1,
            p_value=p_value,
            p_test="" if p_value is None else TEST if isinstance(found, PairsJudged) else LOOK_TEST,
            detectable=None if margin is None or found is None else found.detectable,
        )

    def _change(self, found: Looked | PairsJudged | None) -> str:
        """Return "2.10 % slower than the baseline of ... (1.80 to 2.40 %, 8 pairs of processes)"."""
        against = self.context.against
        if found is None or found.ratio is None or found.low is None or found.high is None:
            ratio = float(np.median(self.ours.medians_ns) / np.median(self.theirs.medians_ns))
            return f"{change_text(ratio, ratio, ratio)[0]} than {against}"
        change, interval = change_text(found.ratio, found.low, found.high)
        if isinstance(found, PairsJudged):
            return f"{change} than {against} timed again ({interval}, {found.n_pairs} pairs of processes)"
        arm = ", relative to FP32" if found.is_relative else ""
        return f"{change} than {against} ({interval}{arm}, one process each)"


def change_text(ratio: float, low: float, high: float) -> tuple[str, str]:
    """Return ("2.10 % slower", "1.80 to 2.40 %") of a ratio of times and its interval."""
    word, sign = ("slower", 1) if ratio >= 1 else ("faster", -1)
    ends = sorted(sign * (bound - 1) for bound in (low, high))
    return f"{percent(abs(ratio - 1))} {word}", percent_range(*ends)


def _look_spread(known: TimingSpread | None) -> LookSpread | None:
    if known is None:
        return None
    times, pairs = Spread(sd=known.times_sd, n=known.times_n), Spread(sd=known.pairs_sd, n=known.pairs_n)
    # Of ratios to FP32 between nights little is known; pairs scatter alike. Too small a value costs pairs, no alarms.
    return LookSpread(times=times, relative=pairs, pairs=pairs)


def judged_pairs(
    log_ratios: NDArray[np.float64], *, batch_size: int, margin: float, alpha: float, basis: TimingBasis
) -> PairsJudged:
    """Judge the pairs that there are so far, beside what was calibrated; see `stats.pairs.judge_pairs`.

    Raises: MeasurementError for ratios that are not numbers.
    """
    known = basis.of_batch(batch_size)
    spread = None if known is None else Spread(sd=known.pairs_sd, n=known.pairs_n)
    return judge_pairs(log_ratios, margin=margin, alpha=alpha, spread=spread)


def _sees_direction(basis: TimingBasis) -> bool:
    """Tell whether what was planted tonight landed on the right side; True where nothing was planted."""
    slower, faster = basis.planted_slower, basis.planted_faster
    return (slower is None or slower > 0) and (faster is None or faster < 0)


def _failed_itself(told: _Told) -> Verdict:
    verdict = told.verdict(
        Outcome.INCOMPARABLE,
        "failed_its_own_check",
        "a slowdown planted tonight was not seen as one: no time is judged",
        advice="look at the clock and at the timers of this backend; nothing that was timed tonight can be trusted",
    )
    return replace(verdict, is_failure=True)


def _gated(told: _Told, margin: float) -> Verdict:
    replay, looked = told.context.replay, told.look(is_relative=True)
    if replay is not None and replay.log_ratios is not None:
        return _by_pairs(told, replay, margin)
    if _is_open(looked, is_beside=told.context.is_beside):
        return _by_stored_times(told, margin)
    outcome, code = (Outcome.IMPROVED, "faster") if looked.high < 1 else (Outcome.SAME, "same_speed")
    note = f"a slowdown of {percent(looked.detectable)} would have been looked into"
    return told.verdict(outcome, code, note, found=looked)


def _ungated(told: _Told) -> Verdict:
    looked, note = told.look(is_relative=False), "not gated: run harness calibrate"
    if looked.high < 1:
        return told.verdict(Outcome.IMPROVED, "faster", note, found=looked)
    outcome, code = (Outcome.INCONCLUSIVE, "slower_not_gated") if looked.low > 1 else (Outcome.SAME, "same_speed")
    advice = "harness calibrate measures what this device can tell; or set --max-slowdown=5%"
    return told.verdict(outcome, code, note, advice=advice, found=looked)


def _by_pairs(told: _Told, replay: Replay, margin: float) -> Verdict:
    context = told.context
    if replay.log_ratios is None:
        raise MeasurementError("a replay without pairs decides nothing")
    ratios, size = replay.log_ratios.array().astype(np.float64), told.ours.batch_size
    pairs = judged_pairs(ratios, batch_size=size, margin=margin, alpha=replay.alpha, basis=context.basis)
    changed = f"changed since: {', '.join(context.changed)}" if context.changed else ""
    if pairs.outcome is PairsOutcome.SLOWER:
        if not (context.changed or context.is_beside):
            changed = "nothing recorded has changed but the engine's build"
        advice = "compare the layers of both engines in the report; if the change is wanted, accept it by name"
        return told.verdict(Outcome.REGRESSED, "slower", changed, advice=advice, found=pairs)
    if pairs.outcome in (PairsOutcome.OPEN, PairsOutcome.UNDECIDED):
        advice = "the pairs scatter too much to tell: a quieter machine, or a larger --max-slowdown"
        return told.verdict(Outcome.INCONCLUSIVE, "speed_unclear", changed, advice=advice, found=pairs)
    drift = _drift_of_machine(told, replay, margin)
    if drift is not None:
        return _by_machine(told, drift, pairs)
    outcome = Outcome.IMPROVED if pairs.outcome is PairsOutcome.FASTER else Outcome.SAME
    code = "faster" if outcome is Outcome.IMPROVED else "same_speed"
    return told.verdict(outcome, code, _would_have_been_seen(pairs), found=pairs)


def _would_have_been_seen(pairs: PairsJudged) -> str:
    return "" if pairs.detectable is None else f"a slowdown of {percent(pairs.detectable)} would have been seen"


def _drift_of_machine(told: _Told, replay: Replay, margin: float) -> Looked | None:
    """Return the look that finds the accepted engine itself slower tonight than when it was accepted, else None."""
    if replay.control_ns is None or told.context.is_beside:
        return None
    spread = _look_spread(told.context.basis.of_batch(told.ours.batch_size))
    control = replay.control_ns.array().astype(np.float64)
    stored = np.asarray(told.theirs.medians_ns)
    looked = look_once(control, stored, margin=margin, alpha=told.context.alpha, spread=spread)
    return looked if looked.low > 1 + margin else None


def _by_machine(told: _Told, drift: Looked, pairs: PairsJudged) -> Verdict:
    """Judge a night in which both engines are slower: what was recorded as changed is to blame, or the machine."""
    context, change = told.context, change_text(drift.ratio, drift.low, drift.high)[0]
    by = f"the accepted engine takes {change.replace('slower', 'longer')} too"
    if context.changed_machine:
        note = f"{by}; cause: {', '.join(context.changed_machine)}"
        advice = "both engines are slower since that change; accept it by name, or take it back"
        verdict = told.verdict(Outcome.REGRESSED, "slower_by_change", note, advice=advice, found=pairs)
        return replace(verdict, p_value=drift.p_value, p_test=LOOK_TEST)
    if context.is_same_engine and not context.changed:
        advice = "same engine, runtime, driver and options: look at clocks, temperature and other processes"
        return told.verdict(Outcome.INCONCLUSIVE, "machine", f"{by}; cause: the machine", advice=advice, found=pairs)
    changed = ", ".join(context.changed) or "the engine was built anew"
    advice = "the accepted engine is slower tonight too, so tonight's is not to blame alone; look at the machine first"
    return told.verdict(
        Outcome.INCONCLUSIVE, "both_slower", f"{by}; changed since: {changed}", advice=advice, found=pairs
    )


def _by_stored_times(told: _Told, margin: float) -> Verdict:
    """Judge a suspect whose accepted engine could not be timed again: stored times prove little."""
    context, looked = told.context, told.look(is_relative=False)
    reason = context.replay.reason if context.replay is not None else "no pairs of processes were measured"
    if context.is_beside:
        note, advice = f"not timed in pairs of processes: {reason}", "mend that, and compare the sides again"
        return told.verdict(Outcome.INCONCLUSIVE, "speed_unclear", note, advice=advice, found=looked)
    note = f"control not replayable: {reason}"
    if looked.low > 1 + margin and looked.p_value <= context.alpha and context.changed:
        advice = "run the accepted engine in its old runtime with --control-python=PATH before believing it"
        note = f"{note}; changed since: {', '.join(context.changed)}"
        return told.verdict(Outcome.REGRESSED, "slower_than_stored", note, advice=advice, found=looked)
    advice = "repeat the run; an old runtime is found with --control-python=PATH"
    return told.verdict(Outcome.INCONCLUSIVE, "speed_unclear", note, advice=advice, found=looked)

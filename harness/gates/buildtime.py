"""Gate: building an engine does not take longer than it did, beyond what the scatter of accepted builds explains."""

from __future__ import annotations

from harness.gates._gate import Evidence, Gate
from harness.gates._growth import Sides, change_text, no_number, not_gated, sides_of
from harness.records import FROM_CACHE, Outcome, Verdict
from harness.stats.one_more import MIN_VALUES, OneMore, compare_one_more


def judge(evidence: Evidence) -> tuple[Verdict, ...]:
    """Judge the one build of this run by the builds that were accepted; one from the cache is no build."""
    record = evidence.record
    margin = record.tolerance.max_build_slowdown
    if margin is None or record.engine is None:
        return ()
    if record.engine.cache == FROM_CACHE:
        return (not_gated(GATE.name, "from_cache", "engine came from the cache", advice="build anew with --rebuild"),)
    sides = sides_of(evidence, gate=GATE.name, margin=margin, what="build time")
    if sides is None or isinstance(sides, Verdict):
        return () if sides is None else (sides,)
    if not sides.ours.builds_ns:
        return (not_gated(GATE.name, "no_build_time", "the backend told no build time"),)
    if not sides.theirs.builds_ns:
        why = f"{sides.against} has no build time: its engine came from the cache"
        return (no_number(GATE.name, why, advice="accept a run that built it: --rebuild"),)
    return (_judge(sides, record.tolerance.alpha),)


def _judge(sides: Sides, alpha: float) -> Verdict:
    now, before = sides.ours.builds_ns[0], sides.theirs.builds_ns
    if len(before) < MIN_VALUES:
        return _without_scatter(sides, now, before)
    found = compare_one_more(now, before, margin=sides.margin, alpha=alpha)
    mean = now / found.ratio
    outcome, code, note, advice = Outcome.SAME, "build_time_kept", _would_have_failed(found), ""
    if found.ratio > 1 + sides.margin and found.p_value <= alpha:
        outcome, code, note = Outcome.REGRESSED, "slower_build", ""
        advice = "build again with --rebuild before acting on it: it is one build"
    elif found.ratio > 1 + sides.margin:
        outcome, code = Outcome.INCONCLUSIVE, "build_time_unclear"
        advice = "build again with --rebuild, or accept more builds: each makes their scatter better known"
    elif found.high < 1:
        outcome, code = Outcome.IMPROVED, "faster_build"
    told = _told(now, mean, f"the mean of {len(before)} builds accepted by {sides.against}", note)
    return sides.verdict(outcome, code, told, numbers=(now, mean), advice=advice, found=found)


def _without_scatter(sides: Sides, now: int, before: tuple[int, ...]) -> Verdict:
    """Judge by so few builds that nobody knows how far they scatter: what lies beyond is a question, no answer."""
    largest, n_more = max(before), MIN_VALUES - len(before)
    scatter = f"their scatter is known from {MIN_VALUES} on"
    told = _told(now, largest, f"the longest of {len(before)} builds accepted by {sides.against}", scatter)
    numbers = (float(now), float(largest))
    if now / largest <= 1 + sides.margin:
        return sides.verdict(Outcome.SAME, "build_time_kept", told, numbers=numbers)
    advice = f"accept runs that build it, with --rebuild if need be: {n_more} more, and a longer build can be judged"
    return sides.verdict(Outcome.INCONCLUSIVE, "too_few_builds", told, numbers=numbers, advice=advice)


def _told(now: float, before: float, what: str, note: str) -> str:
    told = f"build: {now / 1e6:,.1f} ms, {change_text(now / before)} than {before / 1e6:,.1f} ms, {what}"
    return f"{told}; {note}" if note else told


def _would_have_failed(found: OneMore) -> str:
    return f"one that takes {1 + found.detectable:.3g} times as long would have failed"


GATE = Gate(
    name="buildtime",
    summary="a build is not longer than the accepted ones by more than --max-build-slowdown, their scatter considered",
    needs=("engine",),
    applies=lambda candidate: True,
    judge=judge,
    order=80,
    in_family=True,
    reads_baseline=True,
    tolerance="max_build_slowdown",
)

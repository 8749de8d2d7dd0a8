"""What a night may take: shards in order of what they took before, with a deadline each, and within a budget. Pure.

Nothing that is planned is left out. What a budget takes away is rounds of times: each round more makes an interval
narrower, which is worth least where the verdict was farthest from being another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from harness.errors import ConfigError
from harness.gates.latency import GATE as LATENCY
from harness.records import Record
from harness.specs import TimingPlan
from harness.store.durations import Durations, ShardNight
from harness.store.shard_plans import PlannedShard

FEWEST_ROUNDS = 6  # fewer have no interval
SECONDS_A_MINUTE = 60
TIMES_LONGEST = 3.0  # a shard that takes so much longer than it ever did hangs
LEAST_DEADLINE_S = 1_800.0  # of a shard: known nights took engines from a cache that an upgrade empties
DECIDES_NOTHING = 1e6  # clearness of times that no gate judges
MAX_NAMED = 5  # shards that lost rounds


def arranged(
    shards: Sequence[PlannedShard], durations: Durations, *, minutes: float | None
) -> tuple[list[PlannedShard], list[str]]:
    """Return the shards of one type of device, the longest first, and what was dropped for the budget, in words.

    `minutes`: of that device, all of its cards together; None: as many as it takes. A shard that no night has measured
    comes first, for it may be the longest, and counts as much as the median of the others.
    Raises: ConfigError for a budget that does not hold them with the fewest rounds that can be judged.
    """
    expected = [_with_expectations(shard, durations) for shard in shards]
    expected.sort(key=lambda shard: (shard.expected_s > 0, -shard.expected_s))
    if minutes is None or not expected:
        return expected, []
    known = [shard.expected_s for shard in expected if shard.expected_s]
    device = expected[0].device
    if not known:
        return expected, [f"{device}: no night has measured its shards, so {minutes:g} minutes cannot be kept yet"]
    n_new = len(expected) - len(known)
    needed_s = sum(known) + n_new * median(known)
    found, dropped = _within(expected, durations, over_s=needed_s - minutes * SECONDS_A_MINUTE, minutes=minutes)
    return found, _in_words(device, dropped, minutes=minutes, n_new=n_new)


def clearness_of(records: Sequence[Record]) -> float:
    """Return how far the least clear time of some cases was from being looked into, in widths of its interval.

    0: pairs of processes had to decide, or there is nothing yet that it could be compared with.
    """
    gaps = [DECIDES_NOTHING]
    for record in records:
        for verdict in record.verdicts:
            if verdict.gate != LATENCY.name:
                continue
            low, high, limit = verdict.change_low, verdict.change_high, verdict.detectable
            if low is None or high is None or record.replays:
                gaps.append(0.0)
            elif limit is not None and high > low > -1:
                width = math.log1p(high) - math.log1p(low)
                gaps.append(max(0.0, (math.log1p(limit) - math.log1p(high)) / width))
    return min(gaps)


def rounds_of(shard: PlannedShard) -> int:
    """Return the rounds that each time of a shard is taken over."""
    return int(shard.run.get("timing_rounds", TimingPlan().n_rounds))


def _round_s(shard: PlannedShard) -> float:
    """Return what one round more costs a shard [s]: of every case and batch size, in turn with FP32."""
    sizes = shard.run.get("batch_size", TimingPlan().batch_sizes)
    n_sizes = len(sizes) if isinstance(sizes, list | tuple) else 1
    return len(shard.cases) * n_sizes * 2 * TimingPlan().round_ns / 1e9


def _seconds(night: ShardNight, shard: PlannedShard) -> float:
    """Return what a night would have taken with the rounds that are planned now."""
    return max(1.0, night.seconds + (rounds_of(shard) - night.rounds) * _round_s(shard))


def _with_expectations(shard: PlannedShard, durations: Durations) -> PlannedShard:
    nights = durations.of(shard.device_type, shard.model)
    if not nights:
        return shard
    seconds = [_seconds(night, shard) for night in nights]
    deadline_s = max(LEAST_DEADLINE_S, TIMES_LONGEST * max(seconds))
    return replace(shard, expected_s=round(median(seconds), 1), deadline_s=round(deadline_s))


def _within(
    shards: Sequence[PlannedShard], durations: Durations, *, over_s: float, minutes: float
) -> tuple[list[PlannedShard], list[tuple[PlannedShard, int]]]:
    """Take rounds from shards, the clearest first, until nothing is over; return (shard, its rounds before) too."""
    clearness = {
        shard.number: nights[-1].clearness if (nights := durations.of(shard.device_type, shard.model)) else 0.0
        for shard in shards
    }
    kept: dict[int, PlannedShard] = {shard.number: shard for shard in shards}
    dropped: list[tuple[PlannedShard, int]] = []
    for shard in sorted(shards, key=lambda shard: -clearness[shard.number]):
        n_rounds, round_s = rounds_of(shard), _round_s(shard)
        n_fewer = min(n_rounds - FEWEST_ROUNDS, math.ceil(over_s / round_s))
        if over_s <= 0 or n_fewer <= 0:
            continue
        run = {**shard.run, "timing_rounds": n_rounds - n_fewer}
        fewer = replace(shard, run=run, expected_s=round(max(1.0, shard.expected_s - n_fewer * round_s), 1))
        kept[shard.number] = fewer
        dropped.append((fewer, n_rounds))
        over_s -= n_fewer * round_s
    if over_s > 0:
        least = minutes + over_s / SECONDS_A_MINUTE
        raise ConfigError(
            f"{shards[0].device}: its shards take {least:.1f} minutes with the fewest rounds that can be judged "
            f"({FEWEST_ROUNDS}), and its budget is {minutes:g}; give it more, or leave out models"
        )
    return [kept[shard.number] for shard in shards], dropped


def _in_words(device: str, dropped: Sequence[tuple[PlannedShard, int]], *, minutes: float, n_new: int) -> list[str]:
    told = [f"{device}: {n_new} shards that no night has measured count as the median of the others"] if n_new else []
    if not dropped:
        return told
    n_rounds = sum(before - rounds_of(shard) for shard, before in dropped)
    named = [f"{shard.model} {before} -> {rounds_of(shard)}" for shard, before in dropped[:MAX_NAMED]]
    more = f", and {len(dropped) - MAX_NAMED} more" if len(dropped) > MAX_NAMED else ""
    return [
        *told,
        f"{device}: {n_rounds} rounds of times dropped to keep {minutes:g} minutes, where verdicts were clearest: "
        f"{', '.join(named)}{more}",
    ]

"""A night's budget takes rounds where verdicts are clearest, says so, and leaves no case out."""

from dataclasses import replace

import pytest
from comparison_records import latency_with
from fleet_records import TYPES, by_shard, night, plan_of
from test_merge_command import merge, write_shards

from harness.errors import ConfigError, DataError
from harness.fleet.budget import DECIDES_NOTHING, FEWEST_ROUNDS, arranged, clearness_of, rounds_of
from harness.fleet.plan_command import arranged_plan, plan_lines
from harness.records import Outcome, Verdict
from harness.store.durations import Durations, ShardNight, read_durations, write_durations
from harness.store.nights import FOLDER

MODELS = ("calm", "edgy", "long", "new")
TYPE = TYPES["small"].device_type
ROUND_S = 2 * 2 * 2 * 0.02  # cases, batch sizes, arms, seconds


def shards_of(models=MODELS):
    return list(plan_of(by_shard(night(models))).of_device("small"))


def durations_of(**nights):
    return Durations(shards={TYPE: nights})


def took(*seconds, clearness=1.0, rounds=20):
    return tuple(ShardNight(seconds=one, rounds=rounds, clearness=clearness) for one in seconds)


KNOWN = durations_of(
    calm=took(60.0, 62.0, 61.0, clearness=9.0), edgy=took(40.0, clearness=0.0), long=took(100.0, 400.0, 98.0)
)


def test_the_longest_shards_begin_and_new_ones_before_them_with_deadlines_from_what_they_took():
    shards, dropped = arranged(shards_of(), KNOWN, minutes=None)
    assert [(shard.model, shard.expected_s) for shard in shards] == [
        ("new", 0.0),
        ("long", 100.0),
        ("calm", 61.0),
        ("edgy", 40.0),
    ]
    assert [shard.deadline_s for shard in shards] == [0.0, 1800.0, 1800.0, 1800.0]
    assert dropped == []


def test_a_plan_is_numbered_in_that_order_on_every_type_of_device():
    plan = arranged_plan(plan_of(by_shard(night(MODELS))), KNOWN, {})
    assert [shard.number for shard in plan.shards] == list(range(8))
    assert [shard.model for shard in plan.of_device("small")] == ["new", "long", "calm", "edgy"]
    assert [shard.model for shard in plan.of_device("large")] == list(MODELS), "nothing is known of it"
    assert plan_lines(plan)[1] == (
        "small: about 3 device minutes of the 3 that were measured; none should take more than 30"
    )


def test_rounds_are_dropped_where_the_verdict_is_clearest_and_only_as_many_as_must_be():
    whole_s = 61.0 + 40.0 + 100.0
    shards, (told,) = arranged(shards_of(MODELS[:3]), KNOWN, minutes=(whole_s - 2.7) / 60)
    rounds = {shard.model: rounds_of(shard) for shard in shards}
    assert rounds == {"long": 17, "calm": FEWEST_ROUNDS, "edgy": 20}
    assert sum(shard.expected_s for shard in shards) <= whole_s - 2.7
    assert told.startswith("small: 17 rounds of times dropped to keep 3.305 minutes, where verdicts were clearest: ")
    assert told.endswith("calm 20 -> 6, long 20 -> 17")
    without, _ = arranged(shards_of(MODELS[:3]), KNOWN, minutes=None)
    assert [shard.cases for shard in shards] == [shard.cases for shard in without]


def test_what_took_less_because_of_a_budget_is_not_thought_to_be_short():
    fewer = durations_of(calm=took(61.0 - 14 * ROUND_S, rounds=6))
    ((shard,), _) = arranged(shards_of(("calm",)), fewer, minutes=None)
    assert shard.expected_s == 61.0


def test_a_budget_that_holds_no_night_is_refused_and_never_drops_a_case():
    with pytest.raises(ConfigError, match=r"small: its shards take 3\.2 minutes with .* its budget is 1;"):
        arranged(shards_of(MODELS[:3]), KNOWN, minutes=1)


def test_new_shards_count_as_the_median_and_without_any_night_nothing_can_be_kept():
    found, told = arranged(shards_of(), KNOWN, minutes=(61 + 40 + 100 + 61) / 60)
    assert told == ["small: 1 shards that no night has measured count as the median of the others"]
    assert len(found) == 4
    found, told = arranged(shards_of(), Durations(), minutes=1)
    assert told == ["small: no night has measured its shards, so 1 minutes cannot be kept yet"]
    assert [rounds_of(shard) for shard in found] == [20] * 4


def latency_verdict(low, high, detectable):
    return Verdict(
        gate="latency",
        outcome=Outcome.SAME,
        code="same_speed",
        message="",
        change_low=low,
        change_high=high,
        detectable=detectable,
    )


@pytest.mark.parametrize(
    ("verdicts", "clearness"),
    [
        ([], DECIDES_NOTHING),
        ([latency_verdict(-0.01, 0.01, 0.05)], 1.94),
        ([latency_verdict(-0.01, 0.01, 0.05), latency_verdict(0.0, 0.045, 0.05)], 0.11),
        ([latency_verdict(0.02, 0.06, 0.05)], 0.0),
        ([latency_verdict(None, None, None)], 0.0),  # no baseline yet: tonight's times become it
        ([latency_verdict(-0.01, 0.01, None)], DECIDES_NOTHING),  # not gated
    ],
)
def test_a_time_is_clear_that_is_far_from_being_looked_into(verdicts, clearness):
    record = replace(night()[0], verdicts=tuple(verdicts))
    assert clearness_of([record]) == pytest.approx(clearness, abs=0.01)


def test_a_merged_night_is_what_the_next_plan_is_made_by(tmp_path):
    records = [replace(record, latencies=(latency_with(),)) for record in night()]
    write_shards(tmp_path, records)
    assert merge(tmp_path, tmp_path / "shards").exit_code == 0
    known = read_durations(tmp_path / "reports" / FOLDER)
    (one,) = known.of(TYPE, "mlp")
    assert (one.seconds, one.rounds, one.clearness) == (600.0, 20, 0.0)
    merge(tmp_path, tmp_path / "shards", name="again")
    assert len(read_durations(tmp_path / "reports" / FOLDER).of(TYPE, "mlp")) == 2


def test_a_damaged_file_is_named_and_costs_no_night(tmp_path):
    write_durations(tmp_path / "reports" / FOLDER, KNOWN)
    path = tmp_path / "reports" / FOLDER / "durations.json"
    path.write_text(path.read_text().replace("62.0", "63.0"))
    with pytest.raises(DataError, match=r"durations.json: the file is damaged"):
        read_durations(tmp_path / "reports" / FOLDER)
    write_shards(tmp_path, night())
    merged = merge(tmp_path, tmp_path / "shards")
    assert merged.exit_code == 0
    assert "what the shards took is not kept: " in merged.output

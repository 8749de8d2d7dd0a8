"""Shards merge to one run: whatever their cut, order and copies, and nothing that is missing can pass."""

import random
from dataclasses import replace

import pytest
from fleet_records import GATES, TYPES, N, by_shard, case_record, night, plan_of, shard_run
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import DataError
from harness.fleet.header import _worst_drill, merged_header
from harness.fleet.merging import merge_shards
from harness.gates import JudgeOptions, judge_records, list_gates
from harness.records import FireDrill, Outcome, PackedArray, RecordKey, SampleScores, ShardOrigin, Status
from harness.specs import Precision
from harness.store.shard_plans import UnplannedCase

OPTIONS = JudgeOptions()
GATES_OF_IMAGES = tuple(name for name in GATES if name not in ("metric", "drift", "buildtime"))


def ledger(records):
    """What a night concluded: every case's verdicts, and why it did not pass."""
    judged = judge_records(records, {}, OPTIONS)
    return {
        record.key: (record.status, record.reason, record.loss_split, record.verdicts)
        for record in judged
        if not record.is_reference
    }


def merged_ledger(plan, shards):
    return ledger(merge_shards(plan, shards, list_gates()).records)


@st.composite
def cut_nights(draw):
    """A night with losses, and the shards of any cut of it, in any order, some of them twice or tried again."""
    lost = {(model, device): draw(st.integers(0, 60)) for model in ("lenet5", "mlp") for device in TYPES}
    records = night(wrong=lambda model, device: range(lost[model, device]))
    groups = {}
    for record in records:
        part = draw(st.integers(0, 2))
        groups.setdefault((record.environment.device_type, part), []).append(record)
    shards = []
    for number, group in enumerate(groups.values()):
        # FP32 that another shard measured as a case was measured here too, only to compare with.
        there = {record.case for record in group}
        beside = [
            replace(record, is_reference=True)
            for record in records
            if record.case.precision is Precision.FP32
            and record.case not in there
            and record.environment.device_type == group[0].environment.device_type
        ]
        for attempt in range(1, draw(st.integers(1, 2)) + 1):
            shards += [shard_run(number, [*group, *beside], attempt=attempt)] * draw(st.integers(1, 2))
    return records, plan_of(list(groups.values())), draw(st.permutations(shards))


@given(cut=cut_nights())
@settings(max_examples=40, deadline=None)
def test_any_cut_order_and_duplication_merges_to_the_same_ledger(cut):
    records, plan, shards = cut
    merged = merge_shards(plan, shards, list_gates())
    assert ledger(merged.records) == ledger(records)
    assert not merged.missing
    n_cases = sum(len([r for r in shard.records if not r.is_reference]) for shard in shards)
    assert merged.n_duplicates == n_cases - len(records)
    again = list(shards)
    random.Random(0).shuffle(again)
    other = merge_shards(plan, again, list_gates())
    assert other.records == merged.records
    assert merged_header(plan, other, "night") == merged_header(plan, merged, "night")


def whole_night(**changes):
    groups = by_shard(night(**changes))
    return plan_of(groups), [shard_run(number, group) for number, group in enumerate(groups)]


def test_a_shard_that_never_came_is_an_error_of_each_of_its_cases():
    plan, shards = whole_night()
    merged = merge_shards(plan, shards[1:], list_gates())
    verdicts = ledger(merged.records)
    assert [key.case_id for key in merged.missing] == ["lenet5-ort-fp32", "lenet5-ort-int8"]
    for key in merged.missing:
        assert key.device_type == TYPES["small"].device_type
        assert verdicts[key][:2] == (Status.ERROR, "shard 0 never came (small, lenet5)")
    assert sum(status is Status.PASSED for status, *_ in verdicts.values()) == 6
    assert "2 planned cases never came" in merged.lines


def test_a_case_that_its_shard_lacks_is_an_error_too():
    plan, shards = whole_night()
    shards[2] = replace(shards[2], records=shards[2].records[:1])
    (key,) = merge_shards(plan, shards, list_gates()).missing
    assert merged_ledger(plan, shards)[key][1] == "shard 2 came without this case (large, lenet5)"


def other_images(record):
    return replace(record, accuracy=replace(record.accuracy, fingerprint="e" * 64))


def other_samples(record):
    scores = SampleScores(task="raw", source="seeded", fingerprint="e" * 64, ids=("0",))
    return replace(record, accuracy=None, samples=scores)


def other_file(record):
    return replace(record, artifact=replace(record.artifact, source_sha256="e" * 64))


def elsewhere(record):
    return replace(record, environment=replace(record.environment, cpu_isa="amx"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: replace(s, run=replace(s.run, shard=None)), "it was run without --shard"),
        (lambda s: with_origin(s, plan="e" * 64), "it is of another plan (eeeeeeee, not dddddddd)"),
        (lambda s: with_origin(s, number=99), "the plan has no shard 99"),
        (lambda s: with_commit(s, "0123456"), "it was run at commit 0123456, the plan is of a60ce33"),
        (lambda s: with_commit(s, "a60ce33+"), "it was run at commit a60ce33+, the plan is of a60ce33"),
        (lambda s: with_commit(s, ""), "it was run at commit none"),
        (lambda s: replace(s, run=replace(s.run, strict=True)), "strict verdicts"),
        (lambda s: replace(s, run=replace(s.run, baseline="ignore")), "--baseline"),
        (lambda s: with_records(s, other_images), "lenet5-ort-fp32 scored other images (eeeeeeee) than planned (ffff"),
        (
            lambda s: with_records(s, other_samples),
            "lenet5-ort-fp32 scored other samples (eeeeeeee) than planned",
        ),
        (lambda s: with_records(s, other_file), "lenet5-ort-fp32 ran another file of lenet5 (eeeeeeee) than planned ("),
        (lambda s: with_records(s, elsewhere), "it ran on Test CPU, amx, 2 CPUs, planned on Test CPU, avx512_vnni"),
        (
            lambda s: with_records(s, lambda r: replace(r, case=replace(r.case, model="own"))),
            "own-ort-fp32 is not planned",
        ),
    ],
)
def test_a_foreign_shard_is_refused_and_what_it_was_to_bring_is_red(change, says):
    plan, shards = whole_night()
    shards[0] = change(shards[0])
    merged = merge_shards(plan, shards, list_gates())
    assert list(merged.refused) == ["shards/0-1"]
    assert says in merged.refused["shards/0-1"]
    assert len(merged.missing) == 2
    told = {record.error for record in merged.records if record.key in merged.missing}
    assert all("shard 0 was refused: " in text or "shard 0 never came" in text for text in told)
    assert any("refused: shards/0-1: " in line for line in merged.lines)


def with_origin(shard, **changes):
    return replace(shard, run=replace(shard.run, shard=replace(shard.run.shard, **changes)))


def with_option(shard, flag, text):
    return replace(shard, run=replace(shard.run, options={**shard.run.options, flag: text}))


def with_commit(shard, commit):
    return replace(shard, run=replace(shard.run, environment=replace(shard.run.environment, commit=commit)))


def with_records(shard, change):
    return replace(shard, records=tuple(change(record) for record in shard.records))


def test_a_commit_that_another_repository_abbreviates_is_the_same():
    plan, shards = whole_night()
    shards = [with_commit(shard, "a60ce3356ddd") for shard in shards]
    assert not merge_shards(plan, shards, list_gates()).refused


def test_when_every_shard_is_refused_nothing_is_merged():
    plan, shards = whole_night()
    with pytest.raises(DataError, match=r"no shard can be merged: shards/0-1: it is of another plan"):
        merge_shards(plan, [with_origin(shard, plan="0" * 64) for shard in shards], list_gates())
    with pytest.raises(DataError, match="there is none"):
        merge_shards(plan, [], list_gates())


def test_a_red_try_is_not_made_good_by_trying_again():
    plan, shards = whole_night()
    red = with_records(shards[0], lambda r: replace(r, error="the worker crashed"))
    again = shard_run(0, shards[0].records, attempt=2)
    for order in ([red, again], [again, red]):
        merged = merge_shards(plan, [*order, *shards[1:]], list_gates())
        assert [record.shard.attempt for record in merged.records[:2]] != [2, 2]
        statuses = [status for status, *_ in merged_ledger(plan, [*order, *shards[1:]]).values()]
        assert statuses.count(Status.ERROR) == 2


def cut_short(shard):
    return replace(shard, run=replace(shard.run, finished_at=""))


def test_a_gate_that_is_for_no_case_of_a_shard_is_not_missed_there():
    """One of other kinds of models, one that a tolerance leaves off."""
    plan, shards = whole_night()
    one = replace(shards[0], run=replace(shards[0].run, due_gates=GATES_OF_IMAGES, gates=GATES_OF_IMAGES))
    told = merged_ledger(plan, [one, *shards[1:]])
    assert not any("without gate" in reason for _, reason, *_ in told.values())


def test_what_does_not_run_on_a_machine_though_it_did_is_told_by_the_merged_run():
    """A case that is planned nowhere any more, and has a baseline of the times there."""
    plan, shards = whole_night()
    case = replace(shards[0].records[0].case, backend="openvino")
    gone = replace(
        case_record("lenet5", Precision.FP32, "small"),
        case=case,
        accuracy=None,
        absent="backend openvino cannot run here",
        baseline_parts=("times",),
    )
    shards[0] = replace(shards[0], records=(*shards[0].records, gone))
    told = merged_ledger(plan, shards)
    assert told[gone.key][0] is Status.FAILED
    assert "expected, did not run: backend openvino cannot run here" in told[gone.key][1]
    there = replace(gone, case=shards[0].records[0].case)
    shards[1] = replace(shards[1], records=(*shards[1].records, there))
    assert merged_ledger(plan, shards)[there.key][0] is Status.PASSED, "another shard has it"


def some_tests_only(shard):
    return with_origin(shard, is_whole=False)


def some_suites_only(shard):
    return replace(shard, run=replace(shard.run, gates=tuple(name for name in GATES if name != "latency")))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (cut_short, "shard 0 was not run to its end"),
        (some_tests_only, "shard 0 was not run to its end"),
        (some_suites_only, "shard 0 was run without gate latency"),
    ],
)
def test_of_two_tries_the_one_that_ran_to_its_end_counts_and_half_a_one_never_passes(change, why):
    plan, shards = whole_night()
    again = shard_run(0, shards[0].records, attempt=2)
    merged = merge_shards(plan, [change(shards[0]), again, *shards[1:]], list_gates())
    tries = {record.shard.attempt for record in merged.records if record.shard.number == 0}
    assert tries == {2}
    alone = merged_ledger(plan, [change(shards[0]), *shards[1:]])
    assert [reason for status, reason, *_ in alone.values() if status is Status.ERROR] == [why, why]


def test_a_real_case_goes_before_one_that_was_measured_to_compare_with():
    fp32, int8 = (case_record("mlp", precision, "small") for precision in (Precision.FP32, Precision.INT8))
    beside = replace(fp32, is_reference=True)
    plan = plan_of([[fp32], [int8]])
    merged = merge_shards(plan, [shard_run(1, [int8, beside]), shard_run(0, [fp32])], list_gates())
    assert [(record.case.id, record.is_reference) for record in merged.records] == [
        ("mlp-ort-fp32", False),
        ("mlp-ort-int8", False),
    ]
    alone = merge_shards(plan_of([[int8]]), [shard_run(0, [int8, beside])], list_gates())
    assert [record.is_reference for record in alone.records] == [False, True]


def test_shards_that_hold_other_baselines_of_one_case_are_not_mixed():
    plan, shards = whole_night()
    one, other = {"times/x/a.json": "1" * 64}, {"times/x/a.json": "2" * 64}
    shards = [replace(shard, baselines=one) for shard in shards]
    shards[2] = replace(shards[2], baselines=other)
    merged = merge_shards(plan, shards, list_gates())
    assert merged.refused == {"shards/2-1": "its baseline times/x/a.json is another than that of shards/0-1"}
    assert len(merged.missing) == 2


def smallest_loss_that_regresses_alone():
    for n_lost in range(10, 200):
        records = night(("m0",), wrong=lambda model, device, n=n_lost: range(n))[:2]
        outcomes = {verdict.outcome for *_, verdicts in ledger(records).values() for verdict in verdicts}
        if Outcome.REGRESSED in outcomes:
            return n_lost
    raise AssertionError


def test_verdicts_are_those_of_one_family_and_not_of_the_shards():
    """A loss that stands out in a shard of one model does not among many models that moved nearly as much."""
    n_lost = smallest_loss_that_regresses_alone()
    models = [f"m{index}" for index in range(30)]
    records = night(models, wrong=lambda model, device: range(n_lost if (model, device) == ("m0", "small") else 12))
    groups = by_shard(records)
    plan, shards = plan_of(groups), [shard_run(number, group) for number, group in enumerate(groups)]
    together = merged_ledger(plan, shards)
    assert together == ledger(records)
    assert {status for status, *_ in ledger(groups[0]).values()} == {Status.PASSED, Status.FAILED}
    assert {status for status, *_ in together.values()} == {Status.PASSED}


def test_the_header_says_what_all_shards_have_in_common():
    plan, shards = whole_night()
    shards = [with_option(shard, "--report-dir", "/here") for shard in shards]
    run = merged_header(plan, merge_shards(plan, shards, list_gates()), "night")
    assert (run.id, run.command, run.n_shards) == ("night", "harness merge", 4)
    assert run.options == {"--score-images": str(N)}
    assert (run.environment.n_cpus, run.environment.cpu_model) == (0, "Test CPU")
    assert run.environment.machine == "2 types of device"
    assert run.finished_at == "2026-11-21T01:10:00+00:00"
    assert run.gates == tuple(sorted(GATES))


def test_a_merged_record_says_where_it_is_from():
    plan, shards = whole_night()
    (record, *_) = merge_shards(plan, shards, list_gates()).records
    assert isinstance(record.shard, ShardOrigin)
    assert record.shard.host == "node"
    assert isinstance(record.accuracy.margins, PackedArray)


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        (("green", "green"), "green"),
        (("green", "red"), "red"),
        (("green", None), None),
    ],
)
def test_a_merged_night_tells_the_drill_that_proves_least(kept, told):
    drills = {
        "green": FireDrill(at="2026-12-01", version="1", n_plants=2, n_red=2),
        "red": FireDrill(at="2026-12-01", version="1", n_plants=2, n_red=1, missed=("x",)),
        None: None,
    }
    assert _worst_drill([drills[name] for name in kept]) == drills[told]


def test_a_case_with_accepted_times_that_no_shard_was_to_run_is_red():
    """A model that was taken from the fleet is missed as one that a single run lacks."""
    records = night()
    gone = UnplannedCase(
        case=replace(records[0].case, model="resnet9"),
        device_type=records[0].environment.device_type,
        reason="model resnet9 is not among the models any more",
    )
    brought = UnplannedCase(case=records[0].case, device_type=records[0].environment.device_type, reason="none has it")
    groups = by_shard(records)
    plan = plan_of(groups, unplanned=(gone, brought))
    merged = merge_shards(plan, [shard_run(number, group) for number, group in enumerate(groups)], list_gates())
    (record,) = [record for record in judge_records(merged.records, {}, OPTIONS) if record.case.model == "resnet9"]
    assert record.status is Status.FAILED
    assert record.key == RecordKey(gone.device_type, gone.case.id)
    (verdict,) = record.verdicts
    assert (verdict.gate, verdict.is_failure) == ("presence", True)
    assert verdict.message == f"expected, did not run: {gone.reason}; its baseline holds times"
    assert len(merged.records) == len(records) + 1

"""The gates of costs: build time, engine size and memory against what was accepted; a missing number never passes."""

from dataclasses import replace

import numpy as np
import pytest
from comparison_records import ENVIRONMENT, latency_with, record_with
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import ConfigError
from harness.gates import Costs, Gate, JudgeOptions, compare_runs, find_gate, judge_records, subject_from_record
from harness.records import EngineFacts, Outcome, Status
from harness.specs import Tolerance
from harness.stats.one_more import MIN_VALUES

GATES = {"buildtime": "max_build_slowdown", "enginesize": "max_engine_growth", "memory": "max_memory_growth"}
FACTS = EngineFacts(
    build_ns=100_000_000,
    batch_sizes=(1, 100),
    engine_bytes=1_000_000,
    host_peak_bytes=200_000_000,
    cache="miss",
    options={"threads": "1"},
)
BUILDS = tuple(int(100_000_000 * factor) for factor in (1.0, 1.03, 0.97, 1.01, 0.99, 1.02, 0.98))
LATENCIES = (latency_with(),)


def record(margin=0.1, *, environment=ENVIRONMENT, device="cpu", **facts):
    made = record_with(
        latencies=LATENCIES,
        status=Status.NOT_JUDGED,
        environment=environment,
        engine=replace(FACTS, **facts),
        tolerance=Tolerance(**dict.fromkeys(GATES.values(), margin)),
    )
    return replace(made, case=replace(made.case, device=device))


def accepted(builds=BUILDS, *, without=False, **changes):
    """The baseline of a record, with costs of some builds, or `without` any."""
    given = record(environment=changes.pop("environment", ENVIRONMENT), device=changes.pop("device", "cpu"))
    subject = replace(subject_from_record(given, "the baseline of 2026-11-20"), is_baseline=True)
    costs = None if without else replace(subject.costs, builds_ns=builds, **changes)
    return replace(subject, costs=costs)


def judged(gate, ours, stored, **options):
    baselines = {} if stored is None else {ours.key: stored}
    (found,) = judge_records([ours], baselines, JudgeOptions(gates=frozenset({gate}), **options))
    assert not found.error, found.error
    return found.verdicts


def one(gate, ours, stored, **options):
    (verdict,) = judged(gate, ours, stored, **options)
    return verdict


# -- off, and what there is not


@pytest.mark.parametrize("gate", GATES)
def test_a_gate_is_off_until_its_tolerance_is_set(gate):
    assert judged(gate, record(None), accepted()) == ()
    off = replace(record(), tolerance=replace(record().tolerance, **{GATES[gate]: None}))
    assert judged(gate, off, accepted()) == ()
    on = replace(record(None), tolerance=Tolerance(**{GATES[gate]: 0.0}))
    assert judged(gate, on, accepted()) != ()
    assert not find_gate(gate).is_on(Tolerance())


@pytest.mark.parametrize("gate", GATES)
def test_a_case_that_was_not_built_has_no_verdict(gate):
    assert judged(gate, replace(record(), engine=None), accepted()) == ()


@pytest.mark.parametrize("gate", GATES)
def test_without_a_baseline_or_one_of_costs_nothing_passes(gate):
    for stored, code in ((None, "no_baseline"), (accepted(without=True), "no_number_stored")):
        verdict = one(gate, record(), stored)
        assert (verdict.outcome, verdict.code) == (Outcome.NO_BASELINE, code)
        assert not verdict.is_failure
        assert "harness baseline accept latest --case lenet5-ort-fp32" in verdict.advice
        assert one(gate, record(), stored, baseline="require").is_failure
    assert one(gate, record(), accepted(without=True)).message.startswith(
        "not gated: the baseline of 2026-11-20 has no "
    )


@pytest.mark.parametrize("gate", GATES)
def test_another_type_of_device_or_other_batch_sizes_are_not_compared(gate):
    elsewhere = replace(ENVIRONMENT, cpu_model="Other CPU", device_name="Other CPU")
    for stored in (accepted(environment=elsewhere), accepted(batch_sizes=(1,))):
        verdict = one(gate, record(), stored)
        assert (verdict.outcome, verdict.code) == (Outcome.INCOMPARABLE, "incomparable")
    assert "batch sizes of the engine 1 100 and 1" in verdict.message


MISSING = {
    "buildtime": ({"build_ns": 0}, {"builds": ()}),
    "enginesize": ({"engine_bytes": None}, {"engine_bytes": None}),
    "memory": ({"host_peak_bytes": None}, {"host_peak_bytes": None}),
}


@pytest.mark.parametrize("gate", GATES)
def test_a_number_that_is_missing_on_either_side_is_not_gated(gate):
    tonight, before = MISSING[gate]
    verdict = one(gate, record(**tonight), accepted())
    assert (verdict.outcome, verdict.is_failure) == (Outcome.INCOMPARABLE, False)
    assert verdict.message.startswith("not gated: ")
    assert one(gate, record(**tonight), accepted(), baseline="require").is_failure
    verdict = one(gate, record(), accepted(**before))
    assert (verdict.outcome, verdict.code) == (Outcome.NO_BASELINE, "no_number_stored")
    assert verdict.message.startswith("not gated: the baseline of 2026-11-20 has no ")


@pytest.mark.parametrize("gate", ["enginesize", "memory"])
def test_a_size_of_nothing_is_an_error(gate):
    sizes = {"engine_bytes": 0, "host_peak_bytes": 0}
    (found,) = judge_records([record(**sizes)], {record().key: accepted()}, JudgeOptions(gates=frozenset({gate})))
    assert found.status is Status.ERROR
    assert "expected more than 0" in found.error or "expected more than 0" in found.reason


# -- build time


@pytest.mark.parametrize(
    ("build_ms", "outcome", "code"),
    [
        (100, Outcome.SAME, "build_time_kept"),
        (109, Outcome.SAME, "build_time_kept"),  # within what is accepted
        (115, Outcome.INCONCLUSIVE, "build_time_unclear"),  # beyond it, and no farther than builds scatter
        (160, Outcome.REGRESSED, "slower_build"),
        (70, Outcome.IMPROVED, "faster_build"),
    ],
)
def test_one_build_is_judged_by_the_scatter_of_accepted_ones(build_ms, outcome, code):
    verdict = one("buildtime", record(build_ns=build_ms * 1_000_000), accepted())
    assert (verdict.outcome, verdict.code) == (outcome, code)
    assert verdict.is_failure is (outcome is Outcome.REGRESSED)
    assert f"build: {build_ms}.0 ms, " in verdict.message
    assert "than 100.0 ms, the mean of 7 builds accepted by the baseline of 2026-11-20" in verdict.message
    assert "accepted: 10.00 % more" in verdict.message
    assert verdict.p_value is not None
    assert verdict.detectable > 0.1
    assert bool(verdict.advice) is (outcome in (Outcome.REGRESSED, Outcome.INCONCLUSIVE))


@pytest.mark.parametrize("n", [1, 2, MIN_VALUES - 1])
def test_so_few_builds_have_no_scatter_and_so_alarm_nobody(n):
    far = one("buildtime", record(build_ns=900_000_000), accepted(BUILDS[:n]))
    assert (far.outcome, far.code, far.is_failure) == (Outcome.INCONCLUSIVE, "too_few_builds", False)
    assert f"the longest of {n} builds accepted by" in far.message
    assert f"{MIN_VALUES - n} more" in far.advice
    assert one("buildtime", record(build_ns=900_000_000), accepted(BUILDS[:n]), strict=True).is_failure
    near = one("buildtime", record(build_ns=105_000_000), accepted(BUILDS[:n]))
    assert (near.outcome, near.code) == (Outcome.SAME, "build_time_kept")


def test_an_engine_from_the_cache_was_not_built_tonight_and_never_passes():
    for baseline in ("auto", "require"):
        verdict = one("buildtime", record(cache="hit"), accepted(), baseline=baseline, strict=True)
        assert (verdict.outcome, verdict.code) == (Outcome.INCOMPARABLE, "from_cache")
        assert verdict.message == "not gated: engine came from the cache"
        assert not verdict.is_failure
    assert subject_from_record(record(cache="hit"), "x").costs.builds_ns == ()
    for state in ("none", "miss", "rebuilt"):
        assert subject_from_record(record(cache=state), "x").costs.builds_ns == (FACTS.build_ns,)


def test_slow_builds_of_a_night_share_one_false_alarm_rate():
    alpha = record().tolerance.alpha
    stored = accepted()
    # A build whose p-value lies between alpha / 3 and alpha: REGRESSED alone, and not among three.
    p_values = {ms: one("buildtime", record(build_ns=ms * 1_000_000), stored).p_value for ms in range(115, 200)}
    build_ms = next(ms for ms, p_value in p_values.items() if alpha / 3 < p_value <= alpha)
    slow = record(build_ns=build_ms * 1_000_000)
    assert one("buildtime", slow, stored).outcome is Outcome.REGRESSED
    others = [replace(record(), case=replace(slow.case, model=name)) for name in ("mlp", "other")]
    records = [slow, *others]
    found = judge_records(records, {r.key: stored for r in records}, JudgeOptions(gates=frozenset({"buildtime"})))
    assert [r.verdicts[0].code for r in found] == ["not_among_many", "build_time_kept", "build_time_kept"]


@given(
    factor=st.floats(0.2, 5.0),
    margin=st.floats(0, 2),
    spread=st.floats(0.001, 0.5),
    n=st.integers(1, 12),
)
def test_a_build_within_what_is_accepted_never_fails_and_a_failing_one_is_significant(factor, margin, spread, n):
    scatter = np.exp(spread * np.random.default_rng(n).standard_normal(n))
    builds = tuple(int(1e8 * one_of) for one_of in scatter)
    mean = float(np.exp(np.log(builds).mean()))
    verdict = one("buildtime", record(margin, build_ns=int(mean * factor)), accepted(builds))
    if factor <= 1 + margin and n >= MIN_VALUES:
        assert verdict.outcome in (Outcome.SAME, Outcome.IMPROVED)
    if verdict.is_failure:
        assert n >= MIN_VALUES
        assert factor > 1 + margin
        assert verdict.p_value <= record().tolerance.alpha


# -- sizes

SIZES = {
    "enginesize": ("engine_bytes", 1_000_000, ("size_kept", "smaller_engine", "larger_engine")),
    "memory": ("host_peak_bytes", 200_000_000, ("memory_kept", "less_memory", "more_memory")),
}


@pytest.mark.parametrize("gate", SIZES)
@pytest.mark.parametrize(
    ("factor", "place", "outcome"),
    [
        (1.0, 0, Outcome.SAME),
        (1.1, 0, Outcome.SAME),
        (0.95, 0, Outcome.SAME),
        (1.11, 2, Outcome.REGRESSED),
        (0.5, 1, Outcome.IMPROVED),
    ],
)
def test_a_size_is_judged_by_its_ratio(gate, factor, place, outcome):
    name, before, codes = SIZES[gate]
    now = round(before * factor)
    verdict = one(gate, record(**{name: now}), accepted())
    assert (verdict.outcome, verdict.code, verdict.is_failure) == (outcome, codes[place], outcome is Outcome.REGRESSED)
    assert (verdict.value, verdict.baseline_value) == (now, before)
    assert f"{now:,} bytes" in verdict.message
    assert f"{before:,} bytes" in verdict.message or now == before
    assert "accepted: 10.00 % more" in verdict.message
    assert ("harness baseline accept latest" in verdict.advice) is (outcome is Outcome.REGRESSED)


@pytest.mark.parametrize("gate", SIZES)
def test_no_growth_at_all_may_be_accepted(gate):
    name, before, codes = SIZES[gate]
    assert one(gate, record(0.0), accepted()).code == codes[0]
    assert one(gate, record(0.0, **{name: before + 1}), accepted()).code == codes[2]
    assert one(gate, record(0.0, **{name: before - 1}), accepted()).code == codes[1]


def test_what_has_changed_since_is_named_with_a_growth():
    grown = record(engine_bytes=2_000_000, options={"threads": "4"})
    assert one("enginesize", grown, accepted()).message.endswith("changed since: threads 1 -> 4")
    grown = record(engine_bytes=2_000_000)
    assert one("enginesize", grown, accepted()).message.endswith("nothing else that is recorded has changed")


@given(now=st.integers(1, 10**12), before=st.integers(1, 10**12), margin=st.floats(0, 10))
def test_a_size_fails_where_and_only_where_it_grew_by_more_than_is_accepted(now, before, margin):
    verdict = one("enginesize", record(margin, engine_bytes=now), accepted(engine_bytes=before))
    assert verdict.is_failure is (now / before > 1 + margin)


# -- memory


def test_peaks_over_other_work_are_not_compared():
    other = replace(record(), latencies=(latency_with(), latency_with(batch_size=4)))
    verdict = one("memory", other, accepted())
    assert (verdict.outcome, verdict.code) == (Outcome.INCOMPARABLE, "other_work")
    did = "converted the model, built the engine, timed batch"
    assert f"({did} 1, 4, layers)" in verdict.message
    assert f"({did} 1, layers)" in verdict.message


def test_what_came_from_a_cache_was_other_work():
    kept = replace(record(), artifact=replace(record().artifact, cache_hit=True))
    for other in (kept, record(cache="hit")):
        assert one("memory", other, accepted()).code == "other_work"
    source = record().artifact.source_sha256
    as_given = [replace(record(), artifact=replace(record().artifact, sha256=source, cache_hit=hit)) for hit in (0, 1)]
    first, second = (subject_from_record(of, "x").costs.peak_over for of in as_given)
    assert first == second == ("built the engine", "timed batch 1", "layers"), (
        "the model's own file is converted in nothing"
    )


def test_on_an_accelerator_a_contexts_memory_is_judged_too():
    gpu = replace(ENVIRONMENT, device="cuda:0", device_name="A Card")
    stored = accepted(environment=gpu, device="cuda:0", device_memory_bytes=4_096)
    codes = {None: "no_memory", 4_096: "memory_kept", 8_192: "more_memory", 1_024: "less_memory"}
    for size, code in codes.items():
        host, device = judged("memory", record(environment=gpu, device="cuda:0", device_memory_bytes=size), stored)
        assert (host.code, device.code) == ("memory_kept", code)
    without = replace(stored, costs=replace(stored.costs, device_memory_bytes=None))
    ours = record(environment=gpu, device="cuda:0", device_memory_bytes=4_096)
    assert [verdict.code for verdict in judged("memory", ours, without)] == ["memory_kept", "no_number_stored"]


# -- between runs, and the gates themselves


def test_two_runs_are_compared_by_the_later_ones_tolerances():
    found = compare_runs([record(None)], [record(engine_bytes=2_000_000)], names=("run A", "run B"))
    of_gates = {verdict.gate: verdict for verdict in found.records[0].verdicts}
    assert of_gates["enginesize"].code == "larger_engine"
    assert "accept" not in of_gates["enginesize"].advice
    assert of_gates["buildtime"].code == "build_time_kept"
    assert "enginesize" not in {
        v.gate for v in compare_runs([record()], [record(None)], names=("A", "B")).records[0].verdicts
    }


def test_a_gate_of_an_unknown_tolerance_is_refused():
    with pytest.raises(ConfigError, match="max_slowdwn"):
        Gate(name="mine", summary="s", needs=(), applies=bool, judge=bool, tolerance="max_slowdwn")


def test_costs_of_nothing_are_none():
    assert subject_from_record(replace(record(), engine=None), "x").costs is None
    assert isinstance(subject_from_record(record(), "x").costs, Costs)

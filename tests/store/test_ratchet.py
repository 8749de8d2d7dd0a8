"""Accepted changes add up against the first baseline, within a budget; a new one begins with a reason."""

from dataclasses import replace

import numpy as np
import pytest
from comparison_records import ENVIRONMENT, accuracy_with, latency_with, record_with
from typer.testing import CliRunner

from harness.errors import BaselineError, ConfigError, DataError
from harness.records import MetricScore, PackedArray, TimingBasis, TimingSpread
from harness.run.accepting import accepted_lines
from harness.specs import Precision, Tolerance
from harness.store.baselines import BaselineStore, baseline_lines
from harness.store.ratchet import (
    MAX_KEPT,
    TOP1,
    Accepted,
    beyond_budget,
    history_of,
    levels_of_metric,
    lost_since_start,
    start_of,
)

ID = "lenet5-ort-int8"
N = 10_000


def night(lost, *, ns=100.0, fingerprint="f" * 64, **tolerance):
    """A record that lost images of 10,000, and takes so long."""
    return record_with(
        replace(accuracy_with(n=N, wrong=range(100 + lost)), fingerprint=fingerprint),
        precision=Precision.INT8,
        latencies=(latency_with((ns,) * 20),),
        tolerance=Tolerance(**tolerance),
    )


@pytest.fixture
def store(tmp_path):
    return BaselineStore(tmp_path / "baselines")


def accept(store, record, *, day=1, **given):
    return store.accept([record], case_ids=[ID], accepted_by="me", accepted_at=f"2026-11-{day:02}T01:00:00Z", **given)


def history(store, kind="predictions"):
    (path,) = [path for path in store.paths() if kind in path.parts]
    return store.read(path).history


def test_small_losses_are_accepted_until_they_add_up_beyond_three_times_the_accepted_one(store):
    for step in range(4):  # 0, 0.5, 1.0 and 1.5 points: the budget is spent, not exceeded
        accept(store, night(50 * step), day=1 + step)
    with pytest.raises(BaselineError, match=r"add up to a loss of 1.51 points of top-1 since 2026-11-01, now 97.49 %"):
        accept(store, night(151))
    with pytest.raises(BaselineError, match=r"the budget is 1.50 points; .* --case lenet5-ort-int8 --new-budget"):
        accept(store, night(151))
    assert [round(step.rates[TOP1], 4) for step in history(store)] == [0.99, 0.985, 0.98, 0.975]


def test_what_is_refused_writes_nothing(store):
    accept(store, night(0))
    before = [path.read_bytes() for path in store.paths()]
    with pytest.raises(BaselineError, match="budget"):
        accept(store, night(500))
    assert [path.read_bytes() for path in store.paths()] == before


def test_a_gain_gives_back_what_was_lost(store):
    for step, lost in enumerate((0, 100, 0, 100, 150)):
        accept(store, night(lost), day=1 + step)


def test_a_new_budget_begins_with_a_reason_that_stays(store):
    accept(store, night(0))
    accept(store, night(500), day=2, new_budget=True, reason="the pruned model")
    accept(store, night(600), day=3)
    steps = history(store)
    assert [(step.starts_budget, step.reason) for step in steps] == [
        (True, ""),
        (True, "the pruned model"),
        (False, ""),
    ]
    told = "\n".join(baseline_lines(store, ID))
    assert "accepted 2026-11-02 by me: top-1 94.00 % (budget begins; the pruned model)" in told
    assert "changed since the budget began: -1.00 points of top-1" in told
    with pytest.raises(BaselineError, match="since 2026-11-02"):
        accept(store, night(651))


def test_a_budget_of_ones_own_is_kept(store):
    accept(store, night(0))
    with pytest.raises(BaselineError, match=r"the budget is 0\.20 points"):
        accept(store, night(21, drop_budget=0.002))
    accept(store, night(20, drop_budget=0.002))
    accept(store, night(400, max_drop=0.02))


def test_slowdowns_add_up_where_times_are_gated(store):
    for step, ns in enumerate((100.0, 104.0, 108.0, 112.0)):
        accept(store, night(0, ns=ns, max_slowdown=0.05), day=1 + step)
    with pytest.raises(BaselineError, match=r"host clock, call \[ns\]: .* 16\.00 % more .* is 15\.00 %"):
        accept(store, night(0, ns=116.0, max_slowdown=0.05))
    accept(store, night(0, ns=116.0, slowdown_budget=0.2))
    accept(store, night(0, ns=300.0))  # nobody asked for a limit, and the device is not calibrated


def test_a_calibrated_device_has_a_budget_too():
    spread = TimingSpread(batch_size=1, times_sd=0.003, times_n=40, pairs_sd=0.001, pairs_n=40, smallest_slowdown=0.004)
    record = replace(night(0), timing_basis=TimingBasis(calibrated_at="2026-11-01", spreads=(spread,)))
    name = "batch 1, compute, host clock, call [ns]"
    steps = [Accepted(at="2026-11-01", by="", costs={name: 100.0}, starts_budget=True)]
    assert not beyond_budget(record, [*steps, Accepted(at="2026-11-02", by="", costs={name: 114.0})])
    assert "the budget is 15.00 %" in beyond_budget(record, [*steps, Accepted(at="x", by="", costs={name: 116.0})])


def test_a_change_of_images_adds_nothing_and_what_was_lost_before_still_counts(store):
    accept(store, night(0))
    accept(store, night(100), day=2)
    accept(store, night(900, fingerprint="e" * 64), day=3)
    accept(store, night(950, fingerprint="e" * 64), day=4)
    with pytest.raises(BaselineError, match=r"a loss of 1\.60 points"):
        accept(store, night(960, fingerprint="e" * 64))


def test_times_in_another_way_are_not_added_up():
    one, other = {"batch 1, compute": 100.0}, {"batch 1, host": 300.0}
    steps = [Accepted(at="", by="", costs=one, starts_budget=True), Accepted(at="", by="", costs=other)]
    assert lost_since_start(steps) == {}


def test_a_baseline_of_before_there_were_histories_is_the_first(store):
    from harness.store.baseline_files import json_from_baseline

    accept(store, night(0))
    for path in store.paths():
        path.write_bytes(json_from_baseline(replace(store.read(path), history=())))
    with pytest.raises(BaselineError, match=r"add up to a loss of 2\.00 points"):
        accept(store, night(200))
    accept(store, night(100), day=2)
    assert len(history(store)) == 2


def test_an_equal_level_adds_no_step_and_an_old_history_is_trimmed_but_for_its_start():
    steps = ()
    for number in range(3 * MAX_KEPT):
        now = Accepted(at=str(number), by="", rates={TOP1: 0.9 + 0.001 * (number % 2)}, images="f")
        steps = history_of(history_of(steps, now, reason="", starts_budget=False), now, reason="", starts_budget=False)
    assert len(steps) <= MAX_KEPT + 1
    assert (start_of(steps), steps[0].at, steps[-1].at) == (steps[0], "0", str(3 * MAX_KEPT - 1))
    assert lost_since_start(steps)[TOP1] == pytest.approx(-0.001)


@pytest.mark.parametrize(
    "levels",
    [
        {"rates": {TOP1: float("nan")}},
        {"costs": {"batch 1": 0.0}},
        {"costs": {"batch 1": -1.0}},
        {"costs": {"batch 1": float("inf")}},
    ],
)
def test_levels_that_are_none_are_refused(levels):
    with pytest.raises(DataError, match="accepted level"):
        Accepted(at="", by="", **levels)


@pytest.mark.parametrize(
    ("value", "kinds", "levels"),
    [
        (0.8, {}, ({"m": 0.8}, {})),
        (0.3, {"higher_is_better": False}, ({"1 - m": 0.7}, {})),
        (4.0, {"higher_is_better": False, "is_fraction": False}, ({}, {"m": 4.0})),
        (4.0, {"is_fraction": False}, ({}, {"1 / m": 0.25})),
        (0.0, {"is_fraction": False}, ({}, {})),
        (float("nan"), {}, ({}, {})),
    ],
)
def test_a_metric_has_a_level_in_which_worse_is_less_or_costs_more(value, kinds, levels):
    values = PackedArray.of(np.zeros(1))
    assert (
        levels_of_metric(MetricScore(name="m", value=value, low=None, high=None, n_samples=1, values=values, **kinds))
        == levels
    )


def test_a_new_budget_needs_a_reason(store):
    with pytest.raises(ConfigError, match="--new-budget: say why with --reason=TEXT"):
        accepted_lines(store, [night(0)], case_ids=[ID], by="me", engine_cache="", new_budget=True, reason=" ")


def test_a_run_that_updates_baselines_names_the_case_whose_budget_is_spent(store, tmp_path):
    from harness.options.values import HarnessOptions
    from harness.run.accepting import baseline_notes

    accept(store, night(0))
    notes = baseline_notes(
        store,
        [replace(night(400), environment=ENVIRONMENT, timing_only=True)],
        options=HarnessOptions(update_baselines=True, engine_cache=str(tmp_path), root=str(tmp_path)),
        clean=True,
    )
    assert "baselines: wrote those of 0 cases" in notes
    told = "baselines: not written: lenet5-ort-int8: accepted changes add up to a loss of 4.00 points"
    assert told in " ".join(notes)


def test_the_command_takes_a_new_budget_and_its_reason():
    from harness.cli import app

    told = CliRunner().invoke(app, ["baseline", "accept", "--help"], env={"COLUMNS": "200"}).output
    assert "--new-budget" in told
    assert "--reason" in told

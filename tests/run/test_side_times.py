"""Times of two sides: what is timed in pairs, each engine under its own interpreter, and what is not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from comparison_records import ENVIRONMENT, accuracy_with, latency_with, record_with

from harness.measure.arms import TimerFacts
from harness.options.values import HarnessOptions
from harness.protocols import no_progress
from harness.records import CalibrationNight, CaseSamples, EngineFacts, Status, TimingCalibration
from harness.run import replaying
from harness.run.case_worker import WorkerSettings
from harness.run.pairing import Arm, PairTimes
from harness.run.side_times import times_of_sides
from harness.specs import Case, DatasetRequest, Precision, StageLimits, TimingPlan, Tolerance
from harness.store.timing_calibrations import save_calibration
from harness.worker.requests import CaseRequest

VERSIONS = ({"onnxruntime": "1.30.0"}, {"onnxruntime": "1.32.0"})
PYTHONS = ("/old/python", "/new/python")


def record_of(side, scale=1.0, *, precision=Precision.FP32, accuracy=None, margin=0.05, **changes):
    noise = np.random.default_rng(side).lognormal(0, 0.001, 20)
    record = record_with(
        accuracy or accuracy_with(),
        precision=precision,
        latencies=(latency_with(1e5 * scale * noise, reference_rounds_ns=None, reference_case=""),),
        environment=replace(ENVIRONMENT, versions=VERSIONS[side]),
        tolerance=Tolerance(max_slowdown=margin),
        engine=EngineFacts(build_ns=1, engine_bytes=1, versions=VERSIONS[side]),
        status=Status.NOT_JUDGED,
    )
    return replace(record, **changes)


@pytest.fixture
def arms(bundled):
    def make(side, records):
        settings = WorkerSettings(
            log_dir=Path("logs"),
            python=PYTHONS[side],
            extension_dirs=(),
            limits=StageLimits(),
            progress=lambda label: no_progress,
        )
        request = CaseRequest(
            case=Case(model="lenet5", backend="ort", precision=Precision.FP32, recipe="none"),
            model=bundled("mlp"),
            data=DatasetRequest(),
            build=None,
            timing=TimingPlan(batch_sizes=(1,)),
        )
        return {one.case.id: Arm(request=request, settings=settings, name=one.case.id) for one in records}

    return make


@pytest.fixture
def pairs(monkeypatch):
    """Fake pairs in which the candidate takes `ratio`; returns what was asked, without the gate's own check."""
    asked = []

    def set_up(ratio):
        rng = np.random.default_rng(5)

        def time_pair(candidate, control, *, n_rounds, candidate_first=True):
            if candidate.slowdown is None:
                asked.append((candidate, control, candidate_first))
                times = ratio * np.exp(0.001 * rng.standard_normal())
            else:
                times = (1 + candidate.slowdown) / (1 + control.slowdown)
            facts = TimerFacts(
                batch_size=1,
                clock="host",
                launch="call",
                gated=False,
                window="compute",
                calls_per_sample=1,
                samples_per_round=3,
            )
            control_ns = np.full((n_rounds, 3), 1e5)
            return (PairTimes(facts=facts, candidate_ns=times * control_ns, control_ns=control_ns),)

        monkeypatch.setattr(replaying, "time_pair", time_pair)
        return asked

    return set_up


@pytest.fixture
def compared(tmp_path, arms):
    """Return `compared(before, after) -> (side B's records, what was told)`."""

    def run(before, after, **changes):
        told = []
        options = HarnessOptions(baseline_dir=str(tmp_path / "baselines"))
        both = tuple(changes.get("arms", (arms(0, before), arms(1, after))))
        return times_of_sides(before, after, arms=both, options=options, note=told.append), told

    return run


def test_a_suspect_is_timed_in_pairs_under_both_interpreters(pairs, compared):
    asked = pairs(1.3)
    (record,), told = compared([record_of(0)], [record_of(1, 1.3)])
    (candidate, control, is_first), *others = asked
    assert (candidate.settings.python, control.settings.python) == ("/new/python", "/old/python")
    assert control.versions == {"onnxruntime": "1.30.0"}
    assert candidate.request.artifact == control.request.artifact == record.artifact
    assert [is_first, *(first for *_, first in others)] == [True, False, True, False]
    (replay,) = record.replays
    assert np.exp(replay.log_ratios.array()) == pytest.approx(1.3, rel=0.01)
    assert replay.control_versions == {"onnxruntime": "1.30.0"}
    assert told == ["lenet5-ort-fp32: batch 1 may have changed: timed in pairs of processes"]


def test_what_does_not_look_slower_costs_no_pairs(pairs, compared):
    asked = pairs(1.0)
    (record,), told = compared([record_of(0)], [record_of(1)])
    assert (asked, told, record.replays) == ([], [], ())
    assert record.timing_basis.planted_slower == pytest.approx(np.log(1.25))


def test_what_looks_faster_is_timed_in_pairs_too(pairs, compared):
    """One process each says little on a machine that others use, and a gain is news as well."""
    asked = pairs(0.8)
    (record,), _ = compared([record_of(0)], [record_of(1, 0.8)])
    assert len(asked) == 4
    assert np.exp(record.replays[0].log_ratios.array()) == pytest.approx(0.8, rel=0.01)


def test_lost_images_cost_no_pairs(pairs, compared):
    """Their times are void, whatever they are."""
    asked = pairs(1.3)
    wrong = accuracy_with(wrong=range(30))
    (record,), _ = compared([record_of(0)], [record_of(1, 1.3, accuracy=wrong)])
    assert (asked, record.replays) == ([], ())


def test_without_a_limit_nothing_is_timed_again(pairs, compared):
    asked = pairs(1.3)
    (record,), _ = compared([record_of(0)], [record_of(1, 1.3, margin=None)])
    assert (asked, record.replays) == ([], ())


def test_a_calibrated_machine_gates_without_a_limit(pairs, compared, tmp_path):
    """As in a night: the calibration beside the baselines says which slowdown is accepted."""
    asked = pairs(1.3)
    before, after = record_of(0), record_of(1, 1.3, margin=None)
    quiet = tuple(tuple(0.001 * (index % 3 - 1) + shift for index in range(16)) for shift in (0.0, 0.01, 0.02, 0.05))
    samples = CaseSamples(
        case_id=after.case.id,
        batch_size=1,
        builds=(0,) * 32,
        medians_ns=tuple(1e5 * (1 + 0.001 * (index % 5)) for index in range(32)),
        round_cvs=(0.001,) * 32,
        log_ratios=quiet,
    )
    night = CalibrationNight(measured_at="2026-11-20T02:00:00+00:00", driver="", versions={}, cases=(samples,))
    device_type = after.environment.device_type
    calibration = TimingCalibration(device_type=device_type, max_slowdown=0.02, alpha=0.001, nights=(night,))
    save_calibration(tmp_path / "baselines", calibration)
    (record,), _ = compared([before], [after])
    assert len(asked) == 4
    assert record.timing_basis.calibrated_at


def test_a_case_that_one_side_could_not_time_is_left_alone(pairs, compared):
    asked = pairs(1.3)
    broken = (record_of(0, error="it broke"), record_of(0, latencies=()))
    for before in broken:
        (record,), _ = compared([before], [record_of(1, 1.3)])
        assert (asked, record.replays) == ([], ())
    (record,), _ = compared([record_of(0)], [record_of(1, 1.3, error="it broke")])
    assert (asked, record.replays) == ([], ())


def test_sides_without_a_common_case_have_nothing_to_time(pairs, compared):
    asked = pairs(1.3)
    after = record_of(1, 1.3, precision=Precision.INT8)
    assert compared([record_of(0)], [after])[0] == [after]
    assert asked == []


def test_alpha_is_shared_among_all_times_that_are_compared(pairs, compared):
    pairs(1.3)
    chosen = list(Precision)[:3]
    before = [record_of(0, precision=precision) for precision in chosen]
    after = [record_of(1, 1.3, precision=precision) for precision in chosen]
    found, _ = compared(before, after)
    assert [replay.alpha for record in found for replay in record.replays] == [after[0].tolerance.alpha / 3] * 3

"""When the accepted engine is timed again, how often, and what hinders it."""

import dataclasses
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from comparison_records import ENVIRONMENT, latency_with, record_with

from harness.errors import WorkerDied
from harness.gates import subject_from_record
from harness.measure.arms import TimerFacts
from harness.options.values import HarnessOptions
from harness.records import PackedArray, Status
from harness.run import replaying
from harness.run.pairing import PairTimes
from harness.run.replaying import Replaying
from harness.specs import Case, DatasetRequest, Precision, TimingPlan, Tolerance
from harness.store.cache import sha256_of_file
from harness.store.controls import ControlStore
from harness.worker.requests import CaseRequest


@dataclasses.dataclass(frozen=True)
class FakeArm:
    request: CaseRequest
    settings: object
    name: str
    versions: dict = dataclasses.field(default_factory=dict)
    slowdown: float | None = None


@dataclasses.dataclass(frozen=True)
class Settings:
    python: str = "python-of-tonight"


@pytest.fixture
def accepted(tmp_path):
    """An accepted record whose engine is kept, and its stored side."""
    model = tmp_path / "lenet5.onnx"
    model.write_bytes(b"the accepted model")
    record = timed_record()
    record = replace(record, artifact=replace(record.artifact, onnx_path=str(model), sha256=sha256_of_file(model)))
    assert ControlStore(tmp_path / "cache").keep(record) == ""
    return record


def timed_record(scale=1.0, sizes=(1, 100), **changes):
    noise = np.random.default_rng(4).lognormal(0, 0.001, 20)
    latencies = [
        latency_with(1e5 * size * scale * noise, batch_size=size, reference_rounds_ns=None, reference_case="")
        for size in sizes
    ]
    record = record_with(latencies=latencies, tolerance=Tolerance(max_slowdown=0.1), **changes)
    return replace(record, status=Status.NOT_JUDGED)


@pytest.fixture
def pairs(monkeypatch):
    """Fake pairs of processes: tonight's engine takes `ratio` at each batch size; what was asked is kept."""
    asked = []

    def set_up(ratio, sd=0.001, fails_at=None):
        rng = np.random.default_rng(5)

        def time_pair(candidate, control, *, n_rounds, candidate_first=True):
            planted = candidate.slowdown is not None
            asked.append((planted, candidate, control, candidate_first))
            if fails_at is not None and sum(not one[0] for one in asked) > fails_at:
                raise WorkerDied("lenet5-ort-fp32 (control): killed by signal 9 during time")
            found = []
            for size in candidate.request.timing.batch_sizes:
                times = ratio.get(size, 1.0) * np.exp(sd * rng.standard_normal())
                if planted:
                    times = (1 + candidate.slowdown) / (1 + control.slowdown)
                facts = TimerFacts(
                    batch_size=size,
                    clock="host",
                    launch="call",
                    gated=False,
                    window="compute",
                    calls_per_sample=1,
                    samples_per_round=3,
                )
                control_ns = np.full((n_rounds, 3), 1e5 * size)
                found.append(PairTimes(facts=facts, candidate_ns=times * control_ns, control_ns=control_ns))
            return tuple(found)

        monkeypatch.setattr(replaying, "time_pair", time_pair)
        return asked

    return set_up


@pytest.fixture
def replay(tmp_path, accepted, bundled):
    def run(record, *, stored=None, share_of_night=1.0, **options):
        options = HarnessOptions(
            engine_cache=str(tmp_path / "cache"), baseline_dir=str(tmp_path / "baselines"), **options
        )
        request = CaseRequest(
            case=Case(model="lenet5", backend="ort", precision=Precision.FP32, recipe="none"),
            model=bundled("mlp"),
            data=DatasetRequest(),
            build=None,
            timing=TimingPlan(batch_sizes=(1, 100)),
        )
        arms = {record.case.id: FakeArm(request=request, settings=Settings(), name="case")}
        baselines = {record.key: subject_from_record(stored or accepted, "the baseline")}
        return Replaying(options, share_of_night=share_of_night).added_to([record], baselines, arms)[0]

    return run


def real(asked):
    return [one for one in asked if not one[0]]


def test_an_unsuspicious_case_costs_no_pairs_but_the_gate_is_tried(pairs, replay):
    asked = pairs({})
    record = replay(timed_record())
    assert (record.replays, real(asked)) == ((), [])
    assert record.timing_basis.planted_slower == pytest.approx(np.log(1.25))
    assert record.timing_basis.planted_faster == pytest.approx(-np.log(1.25))


def test_pairs_of_a_shard_go_on_until_they_tell_among_all_cases_of_the_night(pairs, replay):
    pairs({1: 1.5}, sd=0.01)
    alone, of_fleet = (replay(timed_record(1.5), share_of_night=share) for share in (1.0, 0.001))
    assert of_fleet.replays[0].alpha == alone.replays[0].alpha / 1000
    assert of_fleet.replays[0].log_ratios.shape > alone.replays[0].log_ratios.shape


def test_only_what_is_suspicious_and_open_is_timed_again_in_turn(pairs, replay, accepted):
    asked = pairs({1: 1.5, 100: 1.115}, sd=0.01)
    record = replay(timed_record(1.5))
    one, hundred = record.replays
    assert (one.batch_size, hundred.batch_size, one.alpha) == (1, 100, record.tolerance.alpha / 2)
    assert one.log_ratios.shape < hundred.log_ratios.shape, "the clear one was decided first"
    assert [first for *_, first in real(asked)] == [index % 2 == 0 for index in range(len(real(asked)))]
    assert real(asked)[-1][1].request.timing.batch_sizes == (100,)
    control = real(asked)[0][2]
    assert Path(control.request.artifact.onnx_path).read_bytes() == b"the accepted model"
    assert one.control_sha256 == accepted.artifact.sha256


def test_pairs_that_never_decide_end(pairs, replay):
    asked = pairs({1: 1.1, 100: 1.1}, sd=0.05)
    replay(timed_record(1.5))
    assert len(real(asked)) == 16


def test_time_for_pairs_ends(pairs, replay, monkeypatch):
    monkeypatch.setattr(replaying, "BUDGET_NS", -1)
    asked = pairs({})
    record = replay(timed_record(1.5))
    assert real(asked) == []
    assert [one.log_ratios.shape for one in record.replays] == [(0,), (0,)]


def test_a_lost_engine_file_is_the_reason(pairs, replay, accepted):
    pairs({})
    gone = replace(accepted, artifact=replace(accepted.artifact, sha256="9" * 64))
    record = replay(timed_record(1.5), stored=gone)
    assert {one.reason for one in record.replays} == {"the accepted engine's file is gone"}


def test_a_damaged_engine_file_is_the_reason(pairs, replay, tmp_path):
    pairs({})
    for path in (tmp_path / "cache").rglob("lenet5.onnx"):
        path.chmod(0o600)
        path.write_bytes(b"damaged")
    (reason,) = {one.reason for one in replay(timed_record(1.5)).replays}
    assert reason.startswith("the accepted engine's file was damaged")


def test_another_runtime_needs_the_old_one(pairs, replay):
    asked = pairs({1: 1.5, 100: 1.5})
    versions = {**ENVIRONMENT.versions, "onnxruntime": "99.0"}
    newer = timed_record(1.5, environment=replace(ENVIRONMENT, versions=versions))
    (reason,) = {one.reason for one in replay(newer).replays}
    assert reason == f"runtime changed: onnxruntime {ENVIRONMENT.versions['onnxruntime']} -> 99.0"
    record = replay(newer, control_python="/old/python")
    assert all(one.log_ratios.shape[0] for one in record.replays)
    _, candidate, control, _ = real(asked)[-1]
    assert (candidate.settings.python, control.settings.python) == ("python-of-tonight", "/old/python")
    assert control.versions == {"onnxruntime": ENVIRONMENT.versions["onnxruntime"]}


def test_a_process_that_dies_is_the_reason(pairs, replay):
    pairs({1: 1.5}, fails_at=2)
    (reason,) = {one.reason for one in replay(timed_record(1.5)).replays}
    assert reason == "lenet5-ort-fp32 (control): killed by signal 9 during time"


def test_without_a_limit_nothing_is_timed_again(pairs, replay):
    asked = pairs({})
    record = replay(replace(timed_record(1.5), tolerance=Tolerance()))
    assert (asked, record.replays) == ([], ())


def test_the_kept_engine_is_the_one_that_was_timed(tmp_path, accepted):
    store = ControlStore(tmp_path / "other")
    Path(accepted.artifact.onnx_path).write_bytes(b"changed meanwhile")
    assert "is not the file it was timed with" in store.keep(accepted)
    assert store.find(accepted.artifact.sha256) == "the accepted engine's file is gone"
    assert store.find("") == "the baseline names no engine file"
    assert store.keep(replace(accepted, latencies=())) == "it was not timed"


def test_a_ratio_of_stored_pairs_is_what_the_processes_gave(pairs, replay):
    pairs({1: 1.5, 100: 1.5}, sd=0.0)
    one, _ = replay(timed_record(1.5)).replays
    assert np.exp(one.log_ratios.array()) == pytest.approx(1.5)
    assert isinstance(one.candidate_ns, PackedArray)
    assert one.candidate_ns.array() / one.control_ns.array() == pytest.approx(1.5)

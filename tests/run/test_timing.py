"""Engines whose times depend on what their process did before: each is timed in a process of its own, in turn."""

import json
import os
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from harness.errors import HarnessError, WorkerDied
from harness.machine.environment import collect_environment
from harness.protocols import no_progress
from harness.run.case import CaseRun
from harness.run.case_worker import WorkerSettings
from harness.run.pairing import Arm, time_pair
from harness.run.timing import time_alone
from harness.specs import BuildOptions, Case, DatasetRequest, Precision, StageLimits, TimingPlan, Tolerance
from harness.worker.requests import CaseRequest

FAKES = str(Path(__file__).parents[1] / "fakes")
ROUNDS = 6
LOADED = {"load", "sample", "close"}  # nothing was built, nothing inferred


@pytest.fixture
def settings(tmp_path):
    return WorkerSettings(
        log_dir=tmp_path / "logs",
        python=sys.executable,
        extension_dirs=(FAKES,),
        limits=StageLimits(),
        progress=lambda label: no_progress,
    )


@pytest.fixture
def request_of(bundled, tmp_path, monkeypatch):
    monkeypatch.setenv("NN_FAKE_LOG", str(tmp_path / "events.jsonl"))

    def make(precision="fp16", batch_sizes=(1, 3), **build):
        recipe = "none" if precision == "fp32" else "cast"
        return CaseRequest(
            case=Case(model="mlp", backend="fake-afresh", precision=Precision(precision), recipe=recipe),
            model=bundled("mlp"),
            data=DatasetRequest(score_images=150),
            build=BuildOptions(cache_dir=str(tmp_path / "cache"), **build),
            timing=TimingPlan(batch_sizes=batch_sizes, n_rounds=ROUNDS, round_ns=100_000, warmup_ns=0),
            outputs_path=str(tmp_path / "outputs.f32"),
        )

    return make


@pytest.fixture
def case_of(request_of, settings):
    opened = []

    def make(*words, **build):
        opened.append(CaseRun(request_of(*words, **build), name="case", tolerance=Tolerance(), settings=settings))
        return opened[-1]

    yield make
    for case in opened:
        case.close()


@pytest.fixture
def events(tmp_path):
    """What every process did, in order."""

    def read():
        return [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]

    return read


def timed_by(events):
    """Return the processes that timed, by precision, once it is shown that each held one engine and only timed it."""
    found = {}
    for event in events:
        if event["what"] == "sample":
            found.setdefault(event["precision"], set()).add(event["pid"])
    pids = [pid for of_precision in found.values() for pid in of_precision]
    assert len(pids) == len(set(pids)), "two engines were timed in one process"
    for pid in pids:
        done = [(event["what"], event["precision"]) for event in events if event["pid"] == pid]
        assert len({precision for _, precision in done}) == 1
        assert {what for what, _ in done} <= LOADED
        assert [what for what, _ in done].count("load") == 1
    return found


def test_each_engine_is_timed_alone_in_a_fresh_process_and_they_take_turns(case_of, events):
    case = case_of()
    case.accuracy()
    scored_in = {event["pid"] for event in events()}
    latencies = case.latencies()
    told = events()
    by_precision = timed_by(told)
    (ours,), (theirs,) = by_precision["fp16"], by_precision["fp32"]
    assert not {ours, theirs} & {*scored_in, os.getpid()}
    samples = [event for event in told if event["what"] == "sample"]
    assert all(first["to_ns"] <= then["from_ns"] for first, then in pairwise(samples)), "two timed at once"
    assert [latency.batch_size for latency in latencies] == [1, 3]
    for latency in latencies:
        n, m = latency.rounds_ns.shape[1], latency.reference_rounds_ns.shape[1]
        rounds = "".join("ab"[event["pid"] == theirs] for event in samples if event["n"] in (n, m))
        assert "abba" * (ROUNDS // 2) in rounds
        assert (latency.rounds_ns.shape[0], latency.reference_rounds_ns.shape[0]) == (ROUNDS, ROUNDS)
        assert latency.reference_case == "mlp-fake-afresh-fp32"
        assert (np.diff(latency.started_ns.array()) > 0).all()
        assert latency.cpu_ns > 0 < latency.wall_ns
        assert latency.audit.clock == "host"
        assert latency.conditions.n_cpus >= 1
        assert (latency.void, latency.clock, latency.launch) == ("", "host", "call")
    record = case.record(environment=collect_environment(), recorded_at="", command="")
    assert record.engine.cache == "miss", "it was built for this case"
    case.layers()
    assert {event["pid"] for event in events()} == {ours, theirs, *scored_in}, "the case's worker was kept"


def test_fp32_itself_has_no_arm_beside_it(case_of, events):
    (latency, _) = case_of("fp32").latencies()
    assert timed_by(events()).keys() == {"fp32"}
    assert (latency.reference_rounds_ns, latency.reference_case) == (None, "")


@pytest.mark.parametrize(
    ("precision", "arm", "fault", "kind", "told"),
    [
        ("fp32", "fp32", "segfault", WorkerDied, r"crashed \(SIGSEGV\) during time"),
        ("fp16", "timed", "exception", HarnessError, "RuntimeError"),
    ],
)
def test_a_fault_names_its_arm(case_of, monkeypatch, precision, arm, fault, kind, told):
    monkeypatch.setenv("NN_FAKE_FAULT", f"{precision}:{fault}")
    case = case_of()
    with pytest.raises(kind, match=rf"mlp-fake-afresh-{precision} \(case-{arm}\): .*{told}"):
        case.latencies()
    assert case.failure is not None


def test_a_time_of_wrong_outputs_is_void(case_of, monkeypatch):
    monkeypatch.setenv("NN_FAKE_FAULT", "fp16:wrong")
    case = case_of()
    case.accuracy()
    assert all("before timing are not those that were scored" in latency.void for latency in case.latencies())


def test_a_model_timed_alone_is_built_once_though_all_is_to_be_rebuilt(request_of, settings, events):
    request = request_of(batch_sizes=(2,), rebuild=True)
    request = replace(request, model=replace(request.model, timing_only=True), outputs_path="")
    (latency,) = time_alone(request, settings).latencies
    assert latency.reference_rounds_ns is not None
    assert timed_by(events()).keys() == {"fp16", "fp32"}
    assert [event["precision"] for event in events() if event["what"] == "build"] == ["fp16", "fp32"]


def test_a_pair_whose_first_process_had_to_build_times_in_fresh_ones(request_of, settings, events):
    ours, theirs = (Arm(request=request_of(), settings=settings, name=name) for name in ("ours", "theirs"))
    time_pair(ours, theirs, n_rounds=1)
    told = events()
    (builder,) = {event["pid"] for event in told if event["what"] == "build"}
    timed = {event["pid"] for event in told if event["what"] == "sample"}
    assert (len(timed), builder in timed) == (2, False)


def test_a_case_that_was_taken_over_is_timed_in_fresh_processes_too(case_of, events):
    case = case_of()
    case.prepare()
    record = case.record(environment=collect_environment(), recorded_at="", command="")
    case.close()
    resumed = CaseRun(case._request, name="case", tolerance=Tolerance(), settings=case.arm().settings, kept=record)
    assert len(resumed.latencies()) == 2
    resumed.close()
    assert timed_by(events()).keys() == {"fp16", "fp32"}

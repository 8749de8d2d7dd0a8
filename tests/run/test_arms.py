"""An arm in a worker gives what an arm in this process gives: the same Latency, over the wire."""

from dataclasses import replace
from types import SimpleNamespace

import msgspec
import pytest
from timed_works import FINE, SLOWED, Clock, FakeCard, Work

from harness.errors import ConfigError
from harness.machine import conditions
from harness.measure import audits
from harness.measure.arms import LocalArm
from harness.measure.latency import measure_latency
from harness.records import ClockAudit
from harness.run.arms import Arm, OpenArm, RemoteArm
from harness.specs import BuildOptions, Case, DatasetRequest, ModelSpec, Precision, TimingPlan
from harness.worker.process import _error_from_reply
from harness.worker.requests import CaseRequest
from harness.worker.service import Service, _answer
from harness.worker.timers import OpenArms

PLAN = TimingPlan(n_rounds=8, round_ns=100_000, warmup_ns=100_000, energy_loops=2)
NET = ModelSpec(
    name="net", onnx_path="net.onnx", sha256="", input_name="in", input_shape=(4,), output_name="out", num_classes=10
)
REQUEST = CaseRequest(
    case=Case(model="net", backend="ort", precision=Precision.FP16, recipe="cast"),
    model=NET,
    data=DatasetRequest(),
    build=BuildOptions(),
    timing=PLAN,
)


class Wire:
    """A worker whose service is in this process; everything goes through JSON all the same."""

    def __init__(self, arm):
        case = SimpleNamespace(request=REQUEST, engine=SimpleNamespace(facts=SimpleNamespace(options={})))
        self.service = Service(lambda name: None)
        self.service._arms = OpenArms(case)
        self.service._arms._arms = {arm.facts.batch_size: arm}

    def call(self, name, value, kind):
        raw = msgspec.Raw(msgspec.json.encode(value))
        answer = msgspec.json.decode(msgspec.json.encode(_answer(self.service, name, raw, lambda done, total: None)))
        if "error" in answer:
            raise _error_from_reply(answer["error"])
        return msgspec.json.decode(msgspec.json.encode(answer["result"]), type=kind)


class Graph(Work):
    """A timer that can go without its graph."""

    clock, launch, gated = "host", "graph", True

    def lower(self, *, graph, gate):
        self.launch, self.gated = "graph" if graph else "enqueue", gate

    def enqueue_ns(self):
        return 9_500.0


def remote(arm):
    process = OpenArm(Wire(arm), Arm(request=REQUEST, settings=None, name="ours"))
    return RemoteArm(process, arm.facts)


def measured(monkeypatch, wrap, *, slowed=(2, 5), seen=None):
    monkeypatch.setitem(audits._AUDITS, "host", ClockAudit(clock="host", quantum_ns=1.0, empty_ns=2.0, drift=0.0))
    clock = Clock()
    sources = conditions.Sources(cpu=lambda family: None, allowed=lambda: 1, load=lambda: 0.5, n_cpus=2)
    card = FakeCard([SLOWED if index in slowed else FINE for index in range(8)], clock=clock)
    seen = [] if seen is None else seen

    def arm_of(work):
        return LocalArm(
            work,
            PLAN,
            watch=conditions.Watch(card, sources=sources),
            look=lambda timer, when: seen.append((timer is ours, when)),
            void=lambda: "it was wrong",
            min_ns=1,
            now_ns=clock.now_ns,
            cpu_now_ns=clock.cpu_ns,
        )

    ours, theirs = Graph(clock, lambda n: 10_000 + n % 7, 2.0), Work(clock, lambda n: 20_000 + n % 5)
    theirs.launch = "enqueue"
    theirs.gated = True
    arms = [wrap(arm_of(ours)), wrap(arm_of(theirs))]
    latency = measure_latency(arms, PLAN, reference_case="net-fp32")
    return latency, arms[0].void()


def test_an_arm_over_the_wire_gives_the_same_latency(monkeypatch):
    seen = {local: [] for local in (True, False)}
    here = measured(monkeypatch, lambda arm: arm, seen=seen[True])
    there = measured(monkeypatch, remote, seen=seen[False])
    starts = [latency.started_ns for latency, _ in (here, there)]  # by the parent's own clock
    assert starts[0].shape == starts[1].shape
    assert replace(here[0], started_ns=None) == replace(there[0], started_ns=None)
    assert here[1] == there[1] == "it was wrong"
    assert seen[True] == seen[False] == [(True, "before timing"), (True, "after timing")]


def test_rounds_that_the_card_was_throttled_in_are_dropped_of_both_arms(monkeypatch):
    latency, _ = measured(monkeypatch, remote)
    assert (latency.n_discarded_rounds, len(latency.rounds_ns.array())) == (2, 6)
    assert len(latency.reference_rounds_ns.array()) == len(latency.started_ns.array()) == 6
    assert latency.conditions.card.throttle_reasons == ("hw_thermal_slowdown",)
    assert latency.energy.source == "counter"
    assert len(latency.energy.mj_per_image) == len(latency.energy.reference_mj_per_image) == 2


def test_arms_in_workers_are_lowered_to_what_both_can(monkeypatch):
    latency, _ = measured(monkeypatch, remote)
    assert (latency.launch, latency.gated) == (latency.reference_launch, latency.reference_gated) == ("enqueue", True)
    assert (latency.enqueue_ns, "enqueue_bound" in latency.flags) == (9_500.0, True)


def test_what_is_no_step_is_refused(monkeypatch):
    arm = remote(LocalArm(Work(Clock(), lambda n: 1_000), PLAN, min_ns=1))
    with pytest.raises(ConfigError, match=r"net-ort-fp16 \(ours\): '_look' is no step of being timed"):
        arm._step("_look", str)
    with pytest.raises(ConfigError, match="batch 3 has no timer in this worker"):
        arm._process.step(3, "round", str)

"""Many changes of one cause are one line, and noise is none."""

import math
from dataclasses import replace

import numpy as np
import pytest
from comparison_records import ENVIRONMENT, accuracy_with, record_with

from harness.fleet.causes import joint_causes
from harness.records import Outcome, ShardOrigin, Status, Verdict
from harness.specs import Case, Precision

ACCURACY = accuracy_with(n=1_000)
DEVICES = {  # name -> compute capability
    "NVIDIA A100": "8.0",
    "NVIDIA L4": "8.9",
    "NVIDIA H100": "9.0",
    "NVIDIA H200": "9.0",
}


def latency_verdict(ratio):
    return Verdict(
        gate="latency",
        outcome=Outcome.INCONCLUSIVE,
        code="slower_not_gated",
        message="",
        value=ratio,
        baseline_value=1.0,
    )


def baseline_verdict(lost):
    counts = {"n_lost": max(lost, 0), "n_gained": max(-lost, 0)}
    return Verdict(gate="baseline", outcome=Outcome.SAME, code="changed_predictions", message="", **counts)


def night(*, slow=lambda record: 1.0, lost=lambda record: 0, noise=0.005, seed=0, n_models=15, status=None):
    """A night of some models on four types of GPU, two cards each."""
    generator = np.random.default_rng(seed)
    records = []
    for device, capability in DEVICES.items():
        for number in range(n_models):
            for precision in (Precision.FP32, Precision.INT8):
                environment = replace(
                    ENVIRONMENT, device="cuda:0", device_name=device, compute_capability=capability, driver="580.82"
                )
                recipe = "none" if precision is Precision.FP32 else "qdq-minmax"
                case = Case(model=f"m{number}", backend="trt", precision=precision, recipe=recipe, device="cuda:0")
                card = f"GPU-{device[-4:].strip()}-{number % 2}"
                origin = ShardOrigin(plan="d", number=number, host=f"host{number % 3}", device_uuids={"cuda:0": card})
                record = replace(record_with(ACCURACY, environment=environment), case=case, shard=origin)
                ratio = slow(record) * math.exp(generator.normal(0, noise))
                verdicts = (latency_verdict(ratio), baseline_verdict(lost(record)))
                ended = status(record) if status else Status.PASSED
                records.append(replace(record, verdicts=verdicts, status=ended, reason="gone" if status else ""))
    return records


def told(records):
    return [(cause.kind, cause.group, cause.name, len(cause.records)) for cause in joint_causes(records)]


@pytest.mark.parametrize(
    ("is_slow", "cause"),
    [
        (lambda r: r.environment.compute_capability == "9.0", ("compute capability", "9.0", 60)),
        (lambda r: r.environment.device_name == "NVIDIA L4", ("device type", "NVIDIA L4", 30)),
        (lambda r: r.shard.device_uuids["cuda:0"] == "GPU-H100-1", ("card", "GPU-H100-1", 14)),
        (lambda r: r.case.precision is Precision.INT8, ("precision", "int8", 60)),
        (lambda r: r.shard.host == "host2", ("host", "host2", 40)),
        (lambda r: True, ("", "all", 120)),
    ],
)
def test_a_planted_cause_is_one_line_and_named(is_slow, cause):
    records = night(slow=lambda record: 1.05 if is_slow(record) else 1.0)
    assert told(records) == [("time", *cause)]
    (found,) = joint_causes(records)
    assert found.change == pytest.approx(math.log(1.05), abs=0.005)
    assert f"slower on all {cause[2]} cases" in found.sentence


def test_two_causes_are_two_lines():
    def slow(record):
        return {"NVIDIA A100": 1.08, "NVIDIA H200": 0.9}.get(record.environment.device_name, 1.0)

    found = joint_causes(night(slow=slow))
    assert [(cause.name, cause.sentence.split(" on ")[0].split("% ")[1]) for cause in found] == [
        ("NVIDIA A100", "slower"),
        ("NVIDIA H200", "faster"),
    ]


def test_lost_images_are_a_cause_too():
    records = night(lost=lambda record: 3 if record.case.precision is Precision.INT8 else 0)
    (found,) = joint_causes(records)
    assert (found.kind, found.name) == ("top-1", "int8")
    assert found.sentence.startswith("0.3 points of top-1 lost on all 60 cases of precision int8 (p = ")


def test_one_slow_case_is_its_own_business():
    assert told(night(slow=lambda record: 1.5 if record.case.id == "m3-trt-int8" else 1.0)) == []


def test_nights_of_nothing_but_noise_have_no_cause():
    assert sum(bool(told(night(noise=0.02, seed=seed))) for seed in range(200)) <= 1


def test_a_change_that_is_sure_and_small_is_no_cause():
    assert told(night(slow=lambda record: 1.004, noise=0.001)) == []


def test_errors_are_told_together_with_their_reason():
    def status(record):
        return Status.ERROR if record.environment.device_name == "NVIDIA L4" else Status.PASSED

    found = [cause for cause in joint_causes(night(status=status)) if cause.kind == "error"]
    assert [cause.sentence for cause in found] == ["error on all 30 cases of device type NVIDIA L4: gone"]
    everything = joint_causes(night(status=lambda record: Status.ERROR))
    assert everything[0].sentence == "error on all 120 cases: gone"


def test_unjudged_and_incomparable_times_say_nothing():
    records = [
        replace(r, verdicts=tuple(replace(v, outcome=Outcome.INCOMPARABLE) for v in r.verdicts))
        for r in night(slow=lambda record: 1.5)
    ]
    assert told(records) == []
    assert joint_causes([]) == ()
    assert joint_causes([replace(r, is_reference=True) for r in night(slow=lambda record: 1.5)]) == ()

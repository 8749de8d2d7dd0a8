"""How fast each engine is, in turn with FP32 and against its baseline; the samples reach pytest-benchmark."""

import pytest

pytestmark = pytest.mark.latency


def test_latency(latency, case_run, benchmark):
    benchmark.pedantic(lambda: None, rounds=min(latency.rounds_ns.array().size, 1000))
    benchmark.extra_info.update(case=case_run.case.id, clock=latency.clock, window=latency.window)
    assert (latency.rounds_ns.array() > 0).all()


@pytest.mark.gate("speedup")
def test_speed_up_over_fp32(verdict):
    assert verdict.ok, verdict.message


@pytest.mark.gate("latency")
def test_latency_against_baseline(verdict):
    assert verdict.ok, verdict.message

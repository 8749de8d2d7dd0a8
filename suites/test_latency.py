"""How fast each engine is, in turn with FP32 and against last night; the samples reach pytest-benchmark."""

import pytest

pytestmark = pytest.mark.latency


def test_latency(latency, case_run, benchmark):
    benchmark.pedantic(lambda: None, rounds=min(latency.rounds_ns.array().size, 1000))
    benchmark.extra_info.update(case=case_run.case.id, clock=latency.clock, window=latency.window)
    verdict = case_run.judge_latency(latency.batch_size)
    assert verdict.ok, verdict.message

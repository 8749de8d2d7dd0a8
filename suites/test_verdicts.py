"""What each case lost: against FP32, the reference backend, its own emulation, and last night.

These run after all measurements: the cases of a run share one false-alarm rate.
"""

import pytest


@pytest.mark.accuracy
@pytest.mark.gates("fp32")
@pytest.mark.precisions("fp16", "bf16", "int8")
def test_accuracy_against_fp32(judged_run):
    assert not judged_run.failures("fp32")


@pytest.mark.accuracy
@pytest.mark.gates("reference")
def test_accuracy_against_reference_backend(judged_run):
    assert not judged_run.failures("reference")


@pytest.mark.accuracy
@pytest.mark.gates("kernel")
@pytest.mark.precisions("int8")
@pytest.mark.needs_qdq
def test_kernels_against_emulation(judged_run):
    assert not judged_run.failures("kernel")


@pytest.mark.accuracy
@pytest.mark.gates("baseline")
def test_accuracy_against_baseline(judged_run):
    assert not judged_run.failures("baseline")


@pytest.mark.latency
@pytest.mark.gates("latency")
def test_latency_against_baseline(judged_run):
    assert not judged_run.failures("latency")

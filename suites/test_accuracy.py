"""What each precision does to accuracy: against a floor, FP32, its own emulation, and last night."""

import pytest

pytestmark = pytest.mark.accuracy


def test_accuracy(case_run):
    verdict = case_run.judge_floor()
    assert verdict.ok, verdict.message


@pytest.mark.precisions("fp16", "int8")
def test_accuracy_against_fp32(case_run):
    verdict = case_run.judge_against_fp32()
    assert verdict.ok, verdict.message


def test_accuracy_against_reference_backend(case_run):
    verdict = case_run.judge_against_reference_backend()
    assert verdict.ok, verdict.message


@pytest.mark.precisions("int8")
@pytest.mark.needs_qdq
def test_kernels_against_emulation(case_run):
    verdict = case_run.judge_kernels()
    assert verdict.ok, verdict.message


def test_accuracy_against_baseline(case_run):
    verdict = case_run.judge_against_baseline()
    assert verdict.ok, verdict.message

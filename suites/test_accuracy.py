"""How much each engine gets right: of all images, against FP32, the reference backend, its emulation, its baseline."""

import pytest

pytestmark = pytest.mark.accuracy


@pytest.mark.gate("chance")
def test_better_than_chance(verdict):
    assert verdict.ok, verdict.message


@pytest.mark.gate("floor")
def test_accuracy(verdict):
    assert verdict.ok, verdict.message


@pytest.mark.gate("fp32")
def test_accuracy_against_fp32(verdict):
    assert verdict.ok, verdict.message


@pytest.mark.gate("reference")
def test_accuracy_against_reference_backend(verdict):
    assert verdict.ok, verdict.message


@pytest.mark.gate("kernel")
def test_kernels_against_emulation(verdict):
    assert verdict.ok, verdict.message


@pytest.mark.gate("baseline")
def test_accuracy_against_baseline(verdict):
    assert verdict.ok, verdict.message

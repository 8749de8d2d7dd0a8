"""How well each engine does by its task's metric: against FP32, the reference backend, and its baseline."""

import pytest

pytestmark = pytest.mark.accuracy


@pytest.mark.gate("metric")
def test_metric_against_fp32(verdict):
    assert verdict.ok, verdict.message


@pytest.mark.gate("metric_baseline")
def test_metric_against_baseline(verdict):
    assert verdict.ok, verdict.message

"""How far the outputs of a model of any graph are from FP32's, sample by sample; no labels are needed."""

import pytest

pytestmark = pytest.mark.drift


@pytest.mark.gate("drift")
def test_drift(verdict):
    assert verdict.ok, verdict.message

"""An image's result does not depend on its neighbours, its slot in the batch, or the batch's size."""

import pytest


@pytest.mark.invariance
@pytest.mark.gate("invariance")
def test_invariance(verdict):
    assert verdict.ok, verdict.message

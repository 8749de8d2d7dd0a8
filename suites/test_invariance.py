"""An image's result does not depend on its neighbours, its slot in the batch, or the batch's size."""

import pytest

pytestmark = pytest.mark.invariance


def test_invariance(case_run):
    assert not [verdict.message for verdict in case_run.invariance() if not verdict.ok]

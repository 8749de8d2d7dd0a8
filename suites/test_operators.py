"""Which operators a runtime computes right, each in nets of its own; only with -m operators."""

import pytest

pytestmark = pytest.mark.operators


def test_operators(operator_verdict):
    assert not operator_verdict, "\n".join(operator_verdict)

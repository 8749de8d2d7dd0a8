"""Every engine says what it ran in. Comes last of a case: profiling disturbs whatever is timed after it."""

import pytest

pytestmark = pytest.mark.build


def test_effective_precision(case_run):
    """What a runtime does not tell is said to be unknown in the case's row; `--require-precision` makes that red."""
    assert case_run.layers().layers, f"{case_run.case.id}: the runtime named no layer, so what ran is unknown"


@pytest.mark.gate("precision")
def test_precision_as_asked(verdict):
    assert verdict.ok, verdict.message

"""Every engine says what it ran in. Comes last of a case: profiling disturbs whatever is timed after it."""

import pytest

pytestmark = pytest.mark.build


def test_effective_precision(case_run):
    report = case_run.layers()
    assert report.layers, f"{case_run.case.id}: the runtime named no layer, so what ran is unknown"
    assert report.effective_precision.main != "unknown"


@pytest.mark.gate("precision")
def test_precision_as_asked(verdict):
    assert verdict.ok, verdict.message

"""Images a second with several inferences at once, each with the outputs that were scored; only with --throughput."""

import pytest

pytestmark = pytest.mark.throughput


def test_throughput(case_run):
    report = case_run.throughput()
    if report.why_not:
        pytest.skip(report.why_not)
    assert all((one.rounds_images_per_s.array() > 0).all() for one in report.found)

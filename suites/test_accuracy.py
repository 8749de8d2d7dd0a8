"""The images that every engine gets right are enough of all images."""

import pytest

pytestmark = pytest.mark.accuracy


def test_accuracy(case_run):
    verdict = case_run.judge_floor()
    assert verdict.ok, verdict.message

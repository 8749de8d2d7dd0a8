"""Every engine builds from its prepared model."""

import pytest

pytestmark = pytest.mark.build


def test_build(case_run):
    prepared = case_run.prepare()
    assert prepared.engine.build_ns > 0

"""Every engine builds from its prepared model, or loads from its file where it was built before."""

import pytest

pytestmark = pytest.mark.build


def test_build(case_run):
    prepared = case_run.prepare()
    is_given = case_run.model.engine is not None
    assert (prepared.engine.load_ns if is_given else prepared.engine.build_ns) > 0

"""Every engine builds from its prepared model, or loads from its file where it was built before."""

import pytest

pytestmark = pytest.mark.build


def test_build(case_run):
    engine = case_run.prepare().engine
    is_loaded = case_run.model.engine is not None and engine.load_ns is not None
    assert (engine.load_ns if is_loaded else engine.build_ns) > 0

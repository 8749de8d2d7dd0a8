"""What each engine costs once, against its accepted baseline; each is on where its tolerance is set."""

import pytest

pytestmark = pytest.mark.build


@pytest.mark.gate("buildtime")
def test_build_time(verdict):
    assert verdict.ok, verdict.message


@pytest.mark.gate("enginesize")
def test_engine_size(verdict):
    assert verdict.ok, verdict.message


@pytest.mark.gate("memory")
def test_memory(verdict):
    assert verdict.ok, verdict.message

"""Every backend that loads keeps every clause."""

import os

import pytest
from fake import FakeBackend

from harness.backends import list_backends, load_backend
from harness.testing import CLAUSES, Nets

# Each needs a package of its own.
EXTRAS = ("executorch", "litert", "mnn", "ncnn", "opencv", "tensorflow", "torch", "tract", "tvm")
CPU_BACKENDS = ("fake", "openvino", "ort", "ort-emulation", *EXTRAS)
REQUIRED = os.environ.get("HARNESS_REQUIRE_BACKENDS", "").split(",")  # those that may not be skipped


@pytest.fixture(scope="session")
def nets(tmp_path_factory):
    return Nets(tmp_path_factory.mktemp("nets"))


@pytest.fixture(scope="session", params=CPU_BACKENDS)
def backend(request):
    chosen = FakeBackend() if request.param == "fake" else load_backend(request.param)
    found = chosen.probe()
    if not found.usable:
        assert request.param not in REQUIRED, found.reason
        pytest.skip(f"{request.param}: {found.reason}")
    return chosen


@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.__name__)
def test_contract(clause, backend, nets):
    clause(backend, nets)


def test_reference_backends_are_not_listed():
    assert {"ort", "openvino"} <= set(list_backends())
    assert "ort-emulation" not in list_backends()

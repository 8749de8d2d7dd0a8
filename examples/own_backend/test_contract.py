"""Every clause of the contract holds of the backend."""

import pytest
from my_backend.backend import BACKEND

from harness.testing import CLAUSES, Nets


@pytest.fixture(scope="session")
def nets(tmp_path_factory):
    return Nets(tmp_path_factory.mktemp("nets"))


@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.__name__)
def test_contract(clause, nets):
    clause(BACKEND, nets)

"""Each clause can fail: a fake broken in just that way breaks it, and no other fault hides it."""

import pytest
from fake import FakeBackend

from harness.testing import CLAUSES, Nets

# A fault that has no clause of its own name breaks this one.
CLAUSE_OF_FAULT = {"previous_result": "wrong_shape_refused"}
# The reference evaluator has one engine for all batches, so no fault of the fake breaks it.
UNBREAKABLE = ("other_batch_agrees",)
BY_NAME = {clause.__name__: clause for clause in CLAUSES}
# Faults whose own exception is what breaks the clause: an error of the runtime escapes as it is.
ESCAPING = {
    "closing_twice_is_fine": RuntimeError,
    "empty_batch_refused": ValueError,
    "missing_file_is_build_error": FileNotFoundError,
    "wrong_named_inputs_refused": RuntimeError,
    "wrong_rank_refused": ValueError,
}
FAULTS = (*(name for name in BY_NAME if name not in UNBREAKABLE), *CLAUSE_OF_FAULT)


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    return Nets(tmp_path_factory.mktemp("nets"))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_backend_broken_in_this_way_fails(fault, nets):
    clause = BY_NAME[CLAUSE_OF_FAULT.get(fault, fault)]
    with pytest.raises(ESCAPING.get(fault, (AssertionError, pytest.fail.Exception))):
        clause(FakeBackend(fault), nets)

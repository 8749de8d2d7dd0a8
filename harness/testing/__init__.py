"""What a plug-in's own tests use: the contract that every backend keeps. Needs pytest and onnx.

@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.__name__)
def test_contract(clause, tmp_path):
    clause(MyBackend(), Nets(tmp_path))
"""

import pytest

pytest.register_assert_rewrite("harness.testing.contract")

from harness.testing.contract import CLAUSES, Clause, Nets  # noqa: E402 - after it is known that asserts are rewritten

__all__ = ["CLAUSES", "Clause", "Nets"]

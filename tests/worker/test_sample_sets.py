"""The samples of a model of any graph have a fingerprint that knows every bit of inputs and targets."""

import hashlib

import numpy as np
import pytest

from harness.protocols import Sample
from harness.worker.sample_sets import digest_sample

MASK = np.zeros((64, 64), np.uint8)  # NumPy's text of it leaves out most


def fingerprint(**changes):
    known = {"id": "a", "inputs": {"x": np.arange(3.0)}, "target": {"mask": MASK, "labels": [1, 2]}}
    digest = hashlib.sha256()
    digest_sample(digest, Sample(**{**known, **changes}))
    return digest.hexdigest()


def changed(array, place):
    other = array.copy()
    other[place] += 1
    return other


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "b"},
        {"inputs": {"x": np.arange(3.0, dtype=np.float32)}},
        {"inputs": {"y": np.arange(3.0)}},
        {"inputs": {"x": changed(np.arange(3.0), 2)}},
        {"target": {"mask": changed(MASK, (32, 32)), "labels": [1, 2]}},
        {"target": {"mask": MASK, "labels": [1, 3]}},
        {"target": None},
    ],
)
def test_every_change_is_another_fingerprint(changes):
    assert fingerprint(**changes) != fingerprint()


def test_a_target_with_numbers_for_keys_has_one_too():
    of = [{"categories": names} for names in ({1: "cat", 10: "dog"}, {1: "cat", 10: "cow"}, {10: "dog", 1: "cat"})]
    first, other, turned = (fingerprint(target=target) for target in of)
    assert first != other
    assert first == turned

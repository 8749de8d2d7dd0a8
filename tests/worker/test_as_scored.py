"""A timed engine is held against the outputs that were scored."""

from types import SimpleNamespace

import numpy as np
import pytest

from harness.specs import Precision
from harness.worker.measuring import _is_as_scored

SCORED = np.random.default_rng(1).random((30, 10)).astype(np.float32)


def case_of(tmp_path, answer, *, rows=30, n_images=30):
    path = tmp_path / "outputs.f32"
    SCORED[:rows].tofile(path)
    request = SimpleNamespace(
        outputs_path=str(path),
        model=SimpleNamespace(num_classes=10),
        data=SimpleNamespace(scored=SimpleNamespace(n_images=n_images)),
        case=SimpleNamespace(precision=Precision.FP32),
    )
    return SimpleNamespace(request=request, engine=SimpleNamespace(infer=answer))


@pytest.mark.parametrize("batch", [1, 8, 30, 64])
def test_the_same_outputs_are_known_at_every_batch_size(tmp_path, batch):
    images = np.zeros((batch, 4), np.float32)
    case = case_of(tmp_path, lambda images: SCORED[np.arange(len(images)) % 30])
    assert _is_as_scored(case, images)


@pytest.mark.parametrize("fault", [lambda o: o[::-1], lambda o: o + np.float32(0.01), np.zeros_like])
def test_other_outputs_are_seen(tmp_path, fault):
    case = case_of(tmp_path, lambda images: fault(SCORED[: len(images)]))
    assert not _is_as_scored(case, np.zeros((8, 4), np.float32))


def test_where_nothing_was_scored_there_is_nothing_to_compare(tmp_path):
    wrong = case_of(tmp_path, lambda images: np.zeros((len(images), 10), np.float32), rows=12)
    assert _is_as_scored(wrong, np.zeros((8, 4), np.float32)), "scoring ended early"
    wrong.request.outputs_path = str(tmp_path / "none")
    assert _is_as_scored(wrong, np.zeros((8, 4), np.float32))

"""Bad calibration images are refused: ONNX Runtime's calibrators take most of them without a word."""

import numpy as np
import pytest
from onnx_nets import ArraySet, images

from harness.errors import DataError
from harness.precision import check_calibration
from harness.precision.calibration import CheckedCalibration, implied_range
from harness.specs import ModelSpec


@pytest.fixture
def card(spec):
    return lambda **changes: ModelSpec(
        **{
            "name": "tiny",
            "onnx_path": "tiny.onnx",
            "sha256": "0" * 64,
            "input_name": "image",
            "input_shape": (1, 8, 8),
            "output_name": "probabilities",
            "num_classes": 10,
            **changes,
        }
    )


def spoiled(value, index=13):
    batch = images(20)
    batch[index, 0, 2, 3] = value
    return batch


def constant(value, index=13):
    batch = images(20)
    batch[index] = value
    return batch


def test_good_images_are_counted(card):
    assert check_calibration(ArraySet(images(25)).batches(10), card()) == 25


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (spoiled(np.nan), "calibration image 13 holds nan"),
        (spoiled(np.inf), "calibration image 13 holds inf"),
        (constant(0.0), r"calibration image 13 is constant \(all 0\)"),
        (constant(0.7), r"calibration image 13 is constant \(all 0\.7\)"),
        (np.zeros((5, 1, 8, 8), np.float32), "image 0 is constant"),
        (images(20) * 255, r"span .*, but the card of tiny implies 0\.\.1 \(wrong scale\)"),
        (images(20) / 255, r"implies 0\.\.1 \(scaled twice, or blank\)"),
        (images(20) - 3, "wrong scale"),
        (np.repeat(images(1), 6, axis=0), "all 6 calibration images are the same"),
        (images(20).astype(np.float64), "batch of float64"),
        (images(20)[:, :, :7], r"expected float32\[N, 1, 8, 8\]"),
    ],
)
def test_bad_images_are_refused(card, batch, message):
    with pytest.raises(DataError, match=message):
        check_calibration(ArraySet(batch).batches(8), card())


def test_an_empty_set_is_refused(card):
    with pytest.raises(DataError, match="empty"):
        check_calibration(iter(()), card())


def test_the_range_follows_the_card(card):
    assert implied_range(card()) == (0.0, 1.0)
    assert implied_range(card(scale=1.0)) == (0.0, 255.0)
    assert implied_range(card(mean=(0.5,), std=(0.5,))) == (-1.0, 1.0)
    low, high = implied_range(card(mean=(0.4, 0.5), std=(0.2, 0.25)))
    assert (low, high) == (pytest.approx(-2.0), pytest.approx(3.0))
    assert check_calibration(ArraySet(images(20) * 255).batches(8), card(scale=1.0)) == 20


def test_a_checked_set_yields_the_same_batches_and_checks(card):
    checked = CheckedCalibration(ArraySet(images(25)), card())
    assert (checked.n_images, checked.fingerprint) == (25, "array")
    np.testing.assert_array_equal(np.concatenate(list(checked.batches(10))), images(25))
    with pytest.raises(DataError, match="holds nan"):
        list(CheckedCalibration(ArraySet(spoiled(np.nan)), card()).batches(10))


def test_a_set_that_ends_early_is_refused(card):
    short = ArraySet(images(25))
    short.n_images = 30
    with pytest.raises(DataError, match="25 of 30"):
        list(CheckedCalibration(short, card()).batches(10))

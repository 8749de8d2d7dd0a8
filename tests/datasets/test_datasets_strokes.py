"""Strokes: the same bytes everywhere, any range, balanced and separate splits."""

import hashlib

import numpy as np
import pytest

from harness.datasets import open_dataset
from harness.datasets._glyphs import GLYPHS, N_CONTROLS, WEIGHT_BITS, glyph_controls, pen_weights
from harness.datasets.strokes import BLOCK, BUMP_MAX, N_POINTS, Strokes, _bump_table
from harness.errors import DataError

# Made with NumPy 2.4.6 on CPython 3.11; the same with NumPy 1.26.0 on 3.10 and 2.5.5 on 3.13, and with OpenBLAS'
# kernels for SSE3, AVX2 and AVX-512. A change here changes every stored accuracy and baseline.
PINNED = [
    ("test", 0, 1000, "3cbb36bf5c48b488c7a00fce1f862dadb804d662f59cf05406e3c578197a257e"),
    ("train", 0, 1000, "1e60f00c01d8aa19920fd7d549e0e65aa1cdad0dfad44702f836c2e374020070"),
    ("train", 123_980, 124_020, "2812b572d4b00c17ef21a4c90bdc471bbf7d8ddb38b0663d1ddcdc49473c4c95"),
]


@pytest.mark.parametrize(("split", "first", "stop", "sha256"), PINNED)
def test_bytes_are_the_same_on_every_machine(split, first, stop, sha256):
    pixels, labels = Strokes(split=split).read(first, stop)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (stop - first, 28, 28)
    assert labels.dtype == np.int64
    assert hashlib.sha256(pixels.tobytes() + labels.astype("<i8").tobytes()).hexdigest() == sha256


def test_a_range_reads_the_same_however_it_is_cut():
    whole_pixels, whole_labels = Strokes().read(1950, 3030)
    source = Strokes()
    for first, stop in ((1999, 2001), (1950, 1951), (2990, 3030), (2500, 2500)):
        pixels, labels = source.read(first, stop)
        np.testing.assert_array_equal(pixels, whole_pixels[first - 1950 : stop - 1950])
        np.testing.assert_array_equal(labels, whole_labels[first - 1950 : stop - 1950])


def test_each_block_is_balanced_and_shuffled():
    _, labels = Strokes().read(0, 2 * BLOCK)
    for block in (labels[:BLOCK], labels[BLOCK:]):
        assert np.bincount(block).tolist() == [BLOCK // 10] * 10
    assert not np.array_equal(labels[:BLOCK], labels[BLOCK:])
    assert np.abs(np.diff(labels[:100])).max() > 1


def test_no_image_is_in_both_splits_or_twice():
    images = np.concatenate([Strokes(split=split).read(0, 2 * BLOCK)[0] for split in ("train", "test")])
    assert len({image.tobytes() for image in images}) == len(images)


def test_seed_changes_the_images():
    assert not np.array_equal(Strokes(seed=1).read(0, 10)[0], Strokes(seed=2).read(0, 10)[0])


def test_images_vary_and_use_the_whole_scale():
    pixels, _ = Strokes().read(0, BLOCK)
    assert pixels.min() == 0
    assert pixels.max() == 255
    ink = pixels.reshape(BLOCK, -1).mean(axis=1)
    assert ink.min() > 5  # no image is empty
    assert ink.std() > 8  # thin and thick, faint and strong


def test_what_is_read_belongs_to_the_caller():
    source = Strokes()
    pixels, labels = source.read(0, 20)
    expected = pixels.copy()
    pixels[:], labels[:] = 0, 0
    np.testing.assert_array_equal(source.read(0, 20)[0], expected)


def test_sums_of_bumps_are_exact_in_float32():
    table = _bump_table()
    assert np.array_equal(table, np.floor(table))
    assert table.max() == BUMP_MAX
    assert not table[:, -1].any()
    assert N_POINTS * BUMP_MAX**2 < 2**24


def test_every_digit_has_several_glyphs_and_every_glyph_keeps_to_its_box():
    assert {glyph.digit for glyph in GLYPHS} == set(range(10))
    assert min(np.bincount([glyph.digit for glyph in GLYPHS])) >= 3
    for glyph in GLYPHS:
        assert len(glyph.controls) <= N_CONTROLS
        weights = pen_weights(glyph)
        # Weights sum to one but for rounding down, so a shifted glyph is the same glyph elsewhere.
        assert np.abs(weights.sum(axis=1) - (1 << WEIGHT_BITS)).max() <= 4
        points = (weights @ glyph_controls(glyph)) >> WEIGHT_BITS
        assert np.abs(points).max() <= 60


@pytest.mark.parametrize(("first", "stop"), [(-1, 5), (5, 4), (9_999_990, 10_000_001)])
def test_a_range_outside_is_refused(first, stop):
    with pytest.raises(DataError, match="strokes/test"):
        Strokes().read(first, stop)


def test_unknown_split_names_the_known_ones():
    with pytest.raises(DataError, match="train, test"):
        open_dataset("strokes", split="validation")

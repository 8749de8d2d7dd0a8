"""What records say in words, and what they refuse to unpack."""

import zlib

import pytest

from harness.errors import DataError
from harness.records import PackedArray, percent, points


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (0.0, "0.00 %"),
        (1.0, "100.00 %"),
        (0.9915, "99.15 %"),
        (0.05, "5.00 %"),
        (0.0001, "0.01 %"),
        (0.00001, "0.001 %"),
        (3.2e-7, "3.2e-05 %"),
        (-0.00001, "-0.001 %"),
        (0.99999, "99.999 %"),
        (1.00001, "100.001 %"),
        (11.135, "1113.50 %"),
        (float("inf"), "inf %"),
        (float("nan"), "nan %"),
    ],
)
def test_a_fraction_that_is_neither_0_nor_1_is_not_told_as_one(fraction, text):
    assert percent(fraction) == text


@pytest.mark.parametrize(
    ("fraction", "text"), [(0.0, "0.00 points"), (0.00002, "0.002 points"), (0.94, "94.00 points")]
)
def test_points_have_two_digits_that_count(fraction, text):
    assert points(fraction) == text


@pytest.mark.parametrize("shape", [(0, 10**30), (0, 2**62, 2**62), (1,) * 70])
def test_an_array_of_nothing_cannot_be_told_as_more_than_there_can_be_of_it(shape):
    data = b"" if 0 in shape else b"x"
    with pytest.raises(DataError, match="a packed array"):
        PackedArray(dtype="|u1", shape=shape, data=zlib.compress(data)).array()

"""Numbers to text: units, digits that the interval allows, signs, and what a missing number looks like."""

import math

import pytest

from harness.report import format as f

NB = f.NO_BREAK


@pytest.mark.parametrize(
    ("value", "interval", "text"),
    [
        (20_312.4, (20_250, 20_380), "20.31 µs"),
        (20_312.4, (20_100, 20_500), "20.3 µs"),
        (20_312.4, (18_000, 22_600), "20 µs"),
        (123_456, (80_000, 160_000), "120 µs"),
        (2_612_000, (1_900_000, 3_400_000), "2.6 ms"),  # at least two digits
        (20_312.4, (None, None), "20.3 µs"),
        (61e6, (None, None), "61.0 ms"),
        (999.2, (None, None), "999 ns"),
        (1.5e9, (None, None), "1.50 s"),
        (0.0, (None, None), "0.00 ns"),
        (20_312.456789, (20_312.456788, 20_312.456790), "20.3125 µs"),  # never more than six
    ],
)
def test_times_carry_the_digits_of_their_interval(value, interval, text):
    assert f.format_time(value, low_ns=interval[0], high_ns=interval[1]) == text.replace(" ", NB)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (f.format_time_interval(20_312.4, 20_100, 20_500), "20.1 to 20.5~µs"),
        (f.format_fraction(0.9912, n=10_000), "99.12~%"),
        (f.format_fraction(0.991, n=1_000), "99.1~%"),
        (f.format_fraction(0.99, n=7), "99~%"),
        (f.format_fraction(1.0, n=60_000), "100.000~%"),
        (f.format_fraction_interval(0.98491, 0.98934, n=10_000), "98.49 to 98.93~%"),
        (f.format_fraction_interval(0.98491, 0.98934, n=10_000, short=True), "98.49–98.93"),
        (f.format_points(-0.0014, n=10_000), "−0.14~points"),
        (f.format_points(0.0002, n=10_000), "+0.02~points"),
        (f.format_points(0.0, n=10_000), "0.00~points"),
        (f.format_ratio(1.7423, low=1.72, high=1.77), "1.74×"),
        (f.format_ratio_interval(1.7423, 1.72, 1.77), "1.72 to 1.77×"),
        (f.format_ratio_interval(1.7423, 1.72, 1.77, short=True), "1.72–1.77"),
        (f.format_change(1.034), "+3.4~%"),
        (f.format_change(0.9), "−10.0~%"),
        (f.format_change(12.0), "+1,100~%"),
        (f.format_change(1.00012), "+0.012~%"),
        (f.format_change(1.0), "0.0~%"),
        (f.format_bytes(1_700_000), "1.62~MiB"),
        (f.format_bytes(0), "0~bytes"),
        (f.format_bytes(2**30), "1.00~GiB"),
        (f.format_length(41), "41~s"),
        (f.format_length(281), "4~min 41~s"),
        (f.format_length(7_500), "2~h 05~min"),
        (f.format_p(0.00012), "p = 0.0001"),
        (f.format_p(0.0123), "p = 0.01"),
        (f.format_p(1.0), "p = 1.00"),
        (f.format_p(1e-9), "p < 0.000001"),
        (f.format_p(0.0), "p < 0.000001"),
        (f.format_count(12_345), "12,345"),
        (f.format_number(-1234.5), "−1,230"),
        (f.format_when("2026-11-20T02:14:07Z"), "2026-11-20 02:14 UTC"),
        (f.format_when("2026-11-20T03:14:07+01:00"), "2026-11-20 02:14 UTC"),
        (f.format_when("<b>yesterday</b>"), "<b>yesterday</b>"),
        (f.plural(1, "case"), "1 case"),
        (f.plural(1_200, "case"), "1,200 cases"),
    ],
)
def test_forms(call, text):
    assert call == text.replace("~", NB)


@pytest.mark.parametrize(
    ("lost", "gained", "text"),
    [
        (14, 0, "14 images lost, none gained"),
        (1, 0, "1 image lost, none gained"),
        (0, 1, "no image lost, 1 gained"),
        (0, 0, "no image lost or gained"),
        (5, 4, "5 images lost, 4 gained"),
        (None, 4, f.MISSING),
    ],
)
def test_images(lost, gained, text):
    assert f.format_images(lost, gained) == text


@pytest.mark.parametrize(
    "form",
    [
        f.format_number,
        f.format_time,
        f.format_fraction,
        f.format_points,
        f.format_ratio,
        f.format_change,
        f.format_bytes,
        f.format_length,
    ],
)
def test_a_missing_or_broken_number_never_looks_like_one(form):
    assert form(None) == f.MISSING
    assert form(math.nan) == "not a number"
    assert form(math.inf) == "infinite"
    assert form(-math.inf) == "−infinite"


def test_half_an_interval_is_no_interval():
    assert f.format_time_interval(1.0, None, 2.0) == f.MISSING
    assert f.format_fraction_interval(0.1, math.nan) == f.MISSING
    assert f.format_ratio_interval(1.0, 0.9, None) == f.MISSING
    assert f.format_p(None) == f.MISSING
    assert f.format_p(math.nan) == f.MISSING

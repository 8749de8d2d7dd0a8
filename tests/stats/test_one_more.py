"""One more value beside those before: against SciPy's own t-test of it, by simulation, and at its edges."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.errors import MeasurementError
from harness.stats.one_more import MIN_SD, MIN_VALUES, compare_one_more

ALPHA = 0.001
TIMES = st.floats(1e3, 1e12)


def test_the_p_value_is_that_of_a_t_test_with_a_second_sample_of_one():
    before, value = [100.0, 110.0, 95.0, 104.0, 99.0], 131.0
    found = compare_one_more(value, before, margin=0.0, alpha=ALPHA)
    # A pooled t-test of samples of 5 and 1 takes its scatter from the five alone.
    expected = stats.ttest_ind([math.log(value)], np.log(before), alternative="greater")
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.ratio == pytest.approx(value / stats.gmean(before))


@pytest.mark.parametrize("n", [MIN_VALUES, 20])
@pytest.mark.parametrize("margin", [0.0, 0.2])
def test_false_alarms_come_as_often_as_alpha_says_where_the_growth_is_just_what_is_accepted(n, margin):
    rng, alpha, n_nights = np.random.default_rng(n), 0.05, 2_000
    logs = 0.08 * rng.standard_normal((n_nights, n + 1))
    p_values = [
        compare_one_more((1 + margin) * math.exp(now), np.exp(before), margin=margin, alpha=alpha).p_value
        for now, *before in logs
    ]
    low, high = stats.binom.ppf([0.0005, 0.9995], n_nights, alpha)
    assert low <= sum(p <= alpha for p in p_values) <= high


@given(before=st.lists(TIMES, min_size=MIN_VALUES, max_size=8), value=TIMES, margin=st.floats(0, 5))
def test_what_would_have_been_seen_is_where_the_p_value_crosses_alpha(before, value, margin):
    found = compare_one_more(value, before, margin=margin, alpha=ALPHA)
    assert found.low <= found.ratio <= found.high
    assert found.detectable >= margin
    crosses = found.ratio / (1 + found.detectable)
    assert (found.p_value <= ALPHA) is (crosses >= 1) or crosses == pytest.approx(1, rel=1e-6)


@given(before=st.lists(TIMES, min_size=MIN_VALUES, max_size=8), value=TIMES, factor=st.floats(1, 10))
def test_a_longer_value_is_never_less_suspicious_and_a_larger_margin_never_more(before, value, factor):
    first = compare_one_more(value, before, margin=0.1, alpha=ALPHA)
    assert compare_one_more(value * factor, before, margin=0.1, alpha=ALPHA).p_value <= first.p_value * (1 + 1e-9)
    assert compare_one_more(value, before, margin=0.1 * factor, alpha=ALPHA).p_value >= first.p_value * (1 - 1e-9)


def test_values_that_agree_by_luck_have_a_scatter_all_the_same():
    found = compare_one_more(100.0 * (1 + MIN_SD), [100.0] * 5, margin=0.0, alpha=ALPHA)
    assert found.p_value > ALPHA
    assert compare_one_more(110.0, [100.0] * 5, margin=0.0, alpha=ALPHA).p_value <= ALPHA


@pytest.mark.parametrize(
    ("value", "before", "margin", "says"),
    [
        (1.0, [1.0] * (MIN_VALUES - 1), 0.0, "4 values have no spread"),
        (math.nan, [1.0] * MIN_VALUES, 0.0, "expected positive numbers"),
        (1.0, [1.0, math.inf, 1.0, 1.0, 1.0], 0.0, "expected positive numbers"),
        (0.0, [1.0] * MIN_VALUES, 0.0, "expected positive numbers"),
        (1.0, [1.0] * MIN_VALUES, -0.1, "is not a fraction"),
        (1.0, [1.0] * MIN_VALUES, math.nan, "is not a fraction"),
    ],
)
def test_what_is_no_number_has_no_answer(value, before, margin, says):
    with pytest.raises(MeasurementError, match=says):
        compare_one_more(value, before, margin=margin, alpha=ALPHA)
    with pytest.raises(MeasurementError, match="alpha"):
        compare_one_more(1.0, [1.0] * MIN_VALUES, margin=0.0, alpha=0.0)


@pytest.mark.parametrize(("n", "fails_from"), [(5, 2.19), (8, 1.66), (20, 1.44)])
def test_the_docs_say_from_where_on_a_build_fails(n, fails_from):
    logs = np.linspace(-1, 1, n)
    before = np.exp(0.1 * logs / logs.std(ddof=1))
    found = compare_one_more(1.0, before, margin=0.0, alpha=ALPHA)
    assert round(1 + found.detectable, 2) == fails_from
    text = (Path(__file__).parents[2] / "docs/costs.md").read_text().split()
    assert f"{fails_from:.2f} with {n}" in " ".join(text).replace(" times as long", "")

"""Ranges of activations: pure functions of streamed values."""

import numpy as np
import pytest

from harness.errors import BuildError
from harness.precision.ranges import (
    MAX_CLIPPED_SHARE,
    LargestValue,
    MagnitudeHistogram,
    entropy_threshold,
    percentile_threshold,
)


def histogram_of(values, n_bins=2048, pieces=1):
    histogram = MagnitudeHistogram(float(np.abs(values).max()), n_bins)
    for part in np.array_split(np.asarray(values, np.float32), pieces):
        histogram.update(part)
    return histogram


def heavy_tailed(seed=0, n=50_000):
    generator = np.random.default_rng(seed)
    return np.concatenate([generator.standard_normal(n), [40.0]])


def test_largest_is_of_magnitudes_and_keeps_nan():
    largest = LargestValue()
    largest.update(np.array([[1.0, -3.0]], np.float32))
    largest.update(np.array([2.0], np.float32))
    largest.update(np.empty((0, 4), np.float32))
    assert largest.largest == 3.0
    largest.update(np.array([np.nan, 1.0], np.float32))
    assert np.isnan(largest.largest)


def test_counts_agree_with_numpy_whatever_the_pieces():
    values = heavy_tailed()
    whole, pieces = histogram_of(values), histogram_of(values, pieces=7)
    np.testing.assert_array_equal(whole.counts, pieces.counts)
    assert whole.counts.sum() == values.size
    reference, _ = np.histogram(np.abs(values), bins=2048, range=(0, 40.0))
    assert np.abs(whole.counts - reference).sum() <= 4  # float32 at bin edges


def test_a_tensor_of_zeros_has_threshold_zero():
    histogram = MagnitudeHistogram(0.0)
    histogram.update(np.zeros(5, np.float32))
    assert (percentile_threshold(histogram), entropy_threshold(histogram)) == (0.0, 0.0)


@pytest.mark.parametrize("threshold", [percentile_threshold, entropy_threshold])
def test_an_empty_histogram_is_an_error(threshold):
    with pytest.raises(BuildError, match="no calibration image was counted"):
        threshold(MagnitudeHistogram(1.0))


def test_percentile_agrees_with_numpy_within_a_bin():
    values = heavy_tailed()
    for percentile in (50.0, 99.0, 99.99):
        expected = np.percentile(np.abs(values), percentile, method="inverted_cdf")
        found = percentile_threshold(histogram_of(values), percentile)
        assert 0 <= found - expected <= 40.0 / 2048
    assert percentile_threshold(histogram_of(values), 100.0) == 40.0


def test_entropy_clips_a_lonely_outlier_and_keeps_an_even_spread():
    assert entropy_threshold(histogram_of(heavy_tailed())) < 10.0
    even = np.linspace(0, 1, 100_000)
    assert entropy_threshold(histogram_of(even)) > 0.95


def test_entropy_agrees_with_a_direct_search():
    """The same search written as loops over bins, on a small histogram."""
    values = np.abs(np.random.default_rng(3).standard_normal(4_000)) ** 1.5
    histogram = histogram_of(values, n_bins=64)
    n_levels = 8
    counts = histogram.counts.astype(float)
    counts[0] = counts[1]
    fewest = max(n_levels, 1 + next(i for i in range(1, 64) if within(histogram.counts, i)))
    divergences = {kept: direct_divergence(counts, kept, n_levels) for kept in range(fewest, 65)}
    best = max(kept for kept, value in divergences.items() if value == min(divergences.values()))
    assert entropy_threshold(histogram, n_levels) == pytest.approx(histogram.edge(best), abs=1e-12)


def within(counts, last):
    return counts[1 : last + 1].sum() >= (1 - MAX_CLIPPED_SHARE) * counts[1:].sum()


def direct_divergence(counts, kept, n_levels):
    level_of = [max(level for level in range(n_levels) if level * kept // n_levels <= i) for i in range(kept)]
    p = [counts[i] for i in range(kept)]
    p[-1] += sum(counts[kept:])
    q = []
    for i in range(kept):
        peers = [counts[j] for j in range(kept) if level_of[j] == level_of[i] and counts[j] > 0]
        q.append(sum(peers) / len(peers) if counts[i] > 0 else 0.0)
    if any(a > 0 and b <= 0 for a, b in zip(p, q, strict=True)):
        return np.inf
    pairs = [(a / sum(p), b / sum(q)) for a, b in zip(p, q, strict=True) if a > 0]
    return sum(a * np.log(a / b) for a, b in pairs)


def test_spikes_do_not_clip_the_rest():
    """Flat backgrounds: most values are four constants near zero, a sixth lies evenly up to the end."""
    spikes = np.repeat([0.05, 0.11, 0.23, 0.41], 20_000)
    spread = np.random.default_rng(1).uniform(0, 6, 16_000)
    threshold = entropy_threshold(histogram_of(np.concatenate([np.zeros(90_000), spikes, spread])))
    clipped = (spread > threshold).sum() / (spikes.size + spread.size)
    assert clipped <= MAX_CLIPPED_SHARE

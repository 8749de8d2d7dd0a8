"""One test for many engines on the same images: did they lose together what none of them lost alone?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError

MAX_EXACT = 20_000  # sum of net changes up to which the distribution is computed, not approximated


def joint_loss_p(net: NDArray[np.integer]) -> float:
    """Return the two-sided p-value of the sign-flip test that images were not lost more than gained.

    net: int[N], of each image how many engines lost it, less how many gained it. Without a real change the sign of
    each image's net change is a fair coin, whatever the engines have in common: an image that all of them lose counts
    once, with its weight. Exact by convolution; above MAX_EXACT net changes by the normal approximation, which is then
    of the same two digits.
    Raises: MeasurementError for another shape.
    Source: R. A. Fisher, The Design of Experiments (1935), section 21; E. S. Edgington, Randomization Tests (1980).
    """
    from scipy import stats

    if net.ndim != 1:
        raise MeasurementError(f"net changes of shape {net.shape}; expected one number an image")
    sizes, counts = np.unique(np.abs(net[net != 0]), return_counts=True)
    if not sizes.size:
        return 1.0
    observed, largest = abs(int(net.sum())), int((sizes * counts).sum())
    if largest > MAX_EXACT:
        deviation = float(np.sqrt((sizes.astype(np.float64) ** 2 * counts).sum()))
        return min(1.0, 2 * float(stats.norm.sf((observed - 1) / deviation)))
    chances = np.ones(1)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        # Sums of `count` signs, times `size`: size * (2 B - count), with B of them positive.
        step = np.zeros(2 * size * count + 1)
        step[:: 2 * size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        chances = np.convolve(chances, step)
    return min(1.0, 2 * float(chances[largest + observed :].sum()))


def smallest_joint_p(net: NDArray[np.integer]) -> float:
    """Return the smallest p-value that as many changed images could have given."""
    return min(1.0, 2.0 ** (1 - int(np.count_nonzero(net))))

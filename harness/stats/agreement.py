"""Agreement of two ratings beyond chance."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError


def kappa_interval(table: NDArray[np.int64], confidence: float) -> tuple[float, float, float]:
    """Return Cohen's kappa of a table of counts int64[K, K], and its interval: (kappa, low, high).

    1 is full agreement, 0 what chance gives with these margins. The interval is the large-sample one.
    Raises: MeasurementError for no counts, or when either side has one class only: kappa is undefined then.
    Source: J. L. Fleiss, J. Cohen, B. S. Everitt, Psychological Bulletin 72 (1969) 323.
    """
    from scipy.special import ndtri

    n = int(table.sum())
    if n == 0:
        raise MeasurementError("no images: there is no agreement to tell")
    shares = table / n
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    agreed, by_chance = float(np.trace(shares)), float(rows @ columns)
    if by_chance >= 1 or max(rows.max(), columns.max()) == 1:
        raise MeasurementError("labels or predictions are all of one class: agreement beyond chance is undefined")
    kappa = (agreed - by_chance) / (1 - by_chance)
    weights = (1 - (rows[:, None] + columns[None, :]).T * (1 - kappa)).diagonal()
    on_diagonal = float((shares.diagonal() * weights**2).sum())
    crossed = (columns[:, None] + rows[None, :]) ** 2 * shares
    off_diagonal = (1 - kappa) ** 2 * float(crossed.sum() - crossed.trace())
    variance = (on_diagonal + off_diagonal - (kappa - by_chance * (1 - kappa)) ** 2) / (n * (1 - by_chance) ** 2)
    half = float(ndtri((1 + confidence) / 2)) * math.sqrt(max(variance, 0.0))
    return kappa, kappa - half, kappa + half

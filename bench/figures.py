"""Figures from many samples: percentiles, and a slope that a few odd samples do not bend. Knows no units."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values`, one or more, that at least `share` percent, 0 to 100, of them do not exceed."""
    return float(np.percentile(np.asarray(values, float), share, method="inverted_cdf"))


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """How fast the values grow: the median of the slopes between all pairs of samples (Theil and Sen's estimate).

    Args:
        times: increasing, two or more.
    """
    x, y = np.asarray(times, float), np.asarray(values, float)
    first, second = np.triu_indices(len(x), k=1)
    return statistics.median(((y[second] - y[first]) / (x[second] - x[first])).tolist())

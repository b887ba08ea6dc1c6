"""How likely a box is right, from how sure the model is of its four numbers.

A box counts as right where its overlap with the truth (intersection over union) is a half or more, as in Acc@0.5. Taken for the
truth is a box whose four numbers are drawn from the coordinates' distributions, each by itself; the probability that the written
box overlaps it by a half is then a finite sum, worked out without sampling. What this does not know: that the true numbers may
hang together in other ways than through the written ones, and whether the model is as sure as it should be. `score_calibration`
in the model package's manifest corrects the latter where it was measured.
"""

from __future__ import annotations

import math

import numpy as np

from mobilevlm_ros.runtime.geometry import Box
from mobilevlm_ros.runtime.manifest import ScoreCalibration

MOST_SPANS = 400
"""How many (shared, true) lengths along one axis are looked at, the likeliest; the nano model loses 0.0003 by it at most."""

_NEGLIGIBLE = 1e-5
_TINY = 1e-9


def overlap_probability(distributions: np.ndarray, box: Box) -> float:
    """The probability, 0 to 1, that `box` overlaps a box drawn from `distributions` by a half or more.

    Args:
        distributions: float64 [4, 101], for x1, y1, x2, y2 the probability of each hundredth.
        box: in 0 to 1, its corners in order and on hundredths.
    """
    x_shared, x_true, x_mass = _spans(distributions[0], distributions[2], round(box.x1 * 100), round(box.x2 * 100))
    y_shared, y_true, y_mass = _spans(distributions[1], distributions[3], round(box.y1 * 100), round(box.y2 * 100))
    area = round(box.x2 * 100 - box.x1 * 100) * round(box.y2 * 100 - box.y1 * 100)
    # An overlap of a half: 2 shared >= area + true - shared.
    right = 3 * np.outer(x_shared, y_shared) >= area + np.outer(x_true, y_true)
    return float(min(x_mass @ right @ y_mass, 1.0))


def _spans(low: np.ndarray, high: np.ndarray, start: int, end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Along one axis: lengths shared with [start, end], true lengths, and the probability of each such pair."""
    first, last = np.flatnonzero(low > _NEGLIGIBLE), np.flatnonzero(high > _NEGLIGIBLE)
    mass = np.outer(low[first], high[last])
    true = last[None, :] - first[:, None]
    shared = np.minimum(last[None, :], end) - np.maximum(first[:, None], start)
    possible = (true > 0) & (shared > 0)
    side = len(low)
    both = np.bincount((shared * side + true)[possible], mass[possible], minlength=1)
    pairs = np.flatnonzero(both)
    if len(pairs) > MOST_SPANS:
        pairs = pairs[np.argsort(-both[pairs], kind="stable")[:MOST_SPANS]]
    return pairs // side, pairs % side, both[pairs]


def calibrated(probability: float, calibration: ScoreCalibration) -> float:
    """A probability as the package's calibration corrects it: 1 / (1 + exp(-(scale x logit + offset)))."""
    inside = min(max(probability, _TINY), 1 - _TINY)
    if calibration == ScoreCalibration():
        return probability
    logit = math.log(inside / (1 - inside))
    return 1 / (1 + math.exp(-(calibration.scale * logit + calibration.offset)))

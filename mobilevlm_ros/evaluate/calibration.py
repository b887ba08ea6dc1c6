"""How far scores can be trusted as probabilities: reliability tables, their error, and the map that would mend them.

Pure arithmetic on (score, right?) pairs. Knows no boxes, no model and no files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mobilevlm_ros.evaluate.metrics import mean, ratio

_INSIDE = 1e-6
_STEPS = 100
_PRIOR = 1.0


@dataclass(frozen=True)
class ReliabilityBin:
    """Scores between `low` and `high`: how many there are, their mean, and the share of them that were right."""

    low: float
    high: float
    count: int
    mean_score: float
    right: float


def reliability(scored: Sequence[tuple[float, bool]], bins: int = 10) -> list[ReliabilityBin]:
    """A calibration table of (score 0 to 1, right?): equally wide bins, empty ones left out; a score of 1 is in the last."""
    sorted_in: dict[int, list[tuple[float, bool]]] = {}
    for score, right in scored:
        sorted_in.setdefault(min(int(score * bins), bins - 1), []).append((score, right))
    return [
        ReliabilityBin(
            low=index / bins,
            high=(index + 1) / bins,
            count=len(members),
            mean_score=mean(score for score, _ in members),
            right=mean(right for _, right in members),
        )
        for index, members in sorted(sorted_in.items())
    ]


def calibration_error(table: Sequence[ReliabilityBin]) -> float:
    """The expected calibration error: the mean distance of score and share of right ones, weighted by the bins' counts."""
    total = sum(entry.count for entry in table)
    return ratio(sum(entry.count * abs(entry.mean_score - entry.right) for entry in table), total)


def brier(scored: Sequence[tuple[float, bool]]) -> float:
    """The mean squared distance of score and outcome; 0 is perfect, 0.25 what a constant 0.5 gets."""
    return mean((score - right) ** 2 for score, right in scored)


def ranking(scored: Sequence[tuple[float, bool]]) -> float:
    """The probability that a right one has a higher score than a wrong one (the area under the ROC curve); equal ones count half.

    0.5 where all are right or all wrong.
    """
    right = np.array([score for score, is_right in scored if is_right])
    wrong = np.sort([score for score, is_right in scored if not is_right])
    if not len(right) or not len(wrong):
        return 0.5
    below, up_to = np.searchsorted(wrong, right, "left"), np.searchsorted(wrong, right, "right")
    return float((below + up_to).mean() / 2 / len(wrong))


def fit_logistic(scored: Sequence[tuple[float, bool]]) -> tuple[float, float]:
    """Scale and offset for which 1 / (1 + exp(-(scale x logit(score) + offset))) fits the outcomes best.

    Platt's scaling by maximum likelihood, with a weak pull towards the identity (1, 0), so that a few scores, or outcomes that
    are all alike, cannot carry it off.
    """
    scores = np.clip([score for score, _ in scored], _INSIDE, 1 - _INSIDE)
    right = np.array([float(is_right) for _, is_right in scored])
    inputs = np.stack([np.log(scores / (1 - scores)), np.ones(len(scores))], axis=1)
    identity = np.array([1.0, 0.0])
    weights = identity.copy()
    for _ in range(_STEPS):
        expected = 1 / (1 + np.exp(-inputs @ weights))
        gradient = inputs.T @ (right - expected) - _PRIOR * (weights - identity)
        curvature = (inputs * (expected * (1 - expected))[:, None]).T @ inputs + _PRIOR * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights = weights + step * min(1.0, 1.0 / max(float(np.abs(step).max()), 1e-12))
        if math.isclose(float(np.abs(step).max()), 0.0, abs_tol=1e-9):
            break
    return float(weights[0]), float(weights[1])

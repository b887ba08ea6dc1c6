"""The probability that a box is right, from its coordinates' distributions; and its calibration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.runtime.geometry import Box
from mobilevlm_ros.runtime.manifest import ScoreCalibration
from mobilevlm_ros.tasks.box_score import calibrated, overlap_probability

BOX = Box(0.2, 0.3, 0.6, 0.7)
CORNERS = (20, 30, 60, 70)


def sure(*corners: int) -> np.ndarray:
    found = np.zeros((4, 101))
    for row, corner in zip(found, corners):
        row[corner] = 1.0
    return found


def test_a_model_that_is_sure_is_right() -> None:
    assert overlap_probability(sure(*CORNERS), BOX) == 1.0


def test_a_model_that_is_sure_of_another_box_is_wrong() -> None:
    assert overlap_probability(sure(70, 30, 90, 70), BOX) == 0.0


@pytest.mark.parametrize(("end", "right"), [(40, 1.0), (39, 0.0), (100, 1.0)])
def test_an_overlap_of_a_half_itself_is_right(end: int, right: float) -> None:
    # 40 wide: 20 of 40 in common is a half, 19 of 40 is less; 40 of 80 is a half again.
    assert overlap_probability(sure(20, 30, end, 70), BOX) == right


def test_chances_of_independent_numbers_multiply() -> None:
    chances = sure(*CORNERS)
    chances[0] = 0
    chances[0, [20, 50]] = 0.9, 0.1  # 10 of 40 in common
    chances[3] = 0
    chances[3, [70, 35]] = 0.8, 0.2
    assert overlap_probability(chances, BOX) == pytest.approx(0.72)


def test_probability_that_was_not_reached_counts_as_wrong() -> None:
    assert overlap_probability(sure(*CORNERS) * 0.5, BOX) == pytest.approx(0.5**4)


@given(st.integers(0, 2**32 - 1))
def test_it_is_the_sum_over_all_boxes(seed: int) -> None:
    random = np.random.default_rng(seed)
    chances = np.zeros((4, 101))
    for row, corner in zip(chances, CORNERS):
        near = np.clip(corner + random.integers(-25, 26, 5), 0, 100)
        np.add.at(row, near, random.dirichlet(np.ones(5)))
    expected = 0.0
    for corners in itertools.product(*(np.flatnonzero(row) for row in chances)):
        x1, y1, x2, y2 = (corner / 100 for corner in corners)
        if x1 < x2 and y1 < y2 and Box(x1, y1, x2, y2).iou(BOX) >= 0.5 - 1e-9:
            expected += float(np.prod([row[corner] for row, corner in zip(chances, corners)]))
    assert overlap_probability(chances, BOX) == pytest.approx(expected, abs=1e-4)


def test_a_model_that_knows_nothing_is_hardly_ever_right() -> None:
    assert 0 < overlap_probability(np.full((4, 101), 1 / 101), BOX) < 0.1


@given(st.floats(0, 1))
def test_without_a_calibration_a_probability_stays_as_it_is(probability: float) -> None:
    assert calibrated(probability, ScoreCalibration()) == probability


def test_a_calibration_is_a_logistic_map() -> None:
    assert calibrated(0.5, ScoreCalibration(2.0, 0.0)) == pytest.approx(0.5)
    assert calibrated(0.8, ScoreCalibration(2.0, 0.0)) == pytest.approx(16 / 17)  # odds of 4 squared
    assert calibrated(0.5, ScoreCalibration(1.0, np.log(3))) == pytest.approx(0.75)  # odds of 1 times 3


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.1, 5), st.floats(-5, 5))
def test_a_calibration_keeps_the_order_and_the_range(first: float, second: float, scale: float, offset: float) -> None:
    low, high = (calibrated(value, ScoreCalibration(scale, offset)) for value in sorted((first, second)))
    assert 0 <= low <= high <= 1

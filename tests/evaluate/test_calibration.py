"""Reliability: tables, their error, and the map that would mend scores."""

from __future__ import annotations

from math import isclose

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.evaluate.calibration import brier, calibration_error, fit_logistic, ranking, reliability
from mobilevlm_ros.evaluate.chart import COUNTS, CURVE, reliability_chart

Scored = list[tuple[float, bool]]
scores = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40)


def test_reliability_by_hand() -> None:
    # Bin 0.9 to 1: scores 0.9 and 1.0, one right: mean 0.95 against 0.5. Bin 0.2 to 0.3: score 0.25, right: against 1.
    table = reliability([(0.9, True), (1.0, False), (0.25, True)])
    assert [(entry.low, entry.high, entry.count) for entry in table] == [(0.2, 0.3, 1), (0.9, 1.0, 2)]
    assert [(entry.mean_score, entry.right) for entry in table] == [(0.25, 1), (pytest.approx(0.95), 0.5)]
    # (1 * 0.75 + 2 * 0.45) / 3
    assert calibration_error(table) == pytest.approx(0.55)


def test_nothing_to_calibrate_has_no_error() -> None:
    assert calibration_error(reliability([])) == 0


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
def test_every_score_is_in_one_bin_and_its_mean_inside_it(scored: list[tuple[float, bool]]) -> None:
    table = reliability(scored)
    assert sum(entry.count for entry in table) == len(scored)
    for entry in table:
        inside = entry.low <= entry.mean_score <= entry.high
        assert inside or isclose(entry.mean_score, entry.low) or isclose(entry.mean_score, entry.high)
    assert 0 <= calibration_error(table) <= 1


def test_the_brier_score_by_hand() -> None:
    assert brier([(0.9, True), (0.4, False)]) == pytest.approx((0.01 + 0.16) / 2)
    assert brier([(1.0, True), (0.0, False)]) == 0


def test_ranking_is_the_share_of_pairs_in_the_right_order() -> None:
    assert ranking([(0.9, True), (0.1, False)]) == 1
    assert ranking([(0.1, True), (0.9, False)]) == 0
    assert ranking([(0.5, True), (0.5, False)]) == 0.5
    assert ranking([(0.9, True), (0.4, True), (0.6, False), (0.2, False)]) == 0.75
    assert ranking([(0.9, True)]) == ranking([]) == 0.5


def drawn(count: int, scale: float, offset: float) -> Scored:
    """Scores whose outcomes follow a logistic map of them."""
    random = np.random.default_rng(0)
    scores = random.uniform(0.02, 0.98, count)
    chances = 1 / (1 + np.exp(-(scale * np.log(scores / (1 - scores)) + offset)))
    return [(float(score), bool(right)) for score, right in zip(scores, random.uniform(size=count) < chances)]


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (0.5, 1.0), (2.0, -1.5)])
def test_the_map_that_made_the_outcomes_is_found_again(scale: float, offset: float) -> None:
    assert fit_logistic(drawn(20_000, scale, offset)) == pytest.approx((scale, offset), abs=0.1)


@given(scores)
def test_a_fit_is_always_a_number_and_never_worse_than_none(scored: Scored) -> None:
    scale, offset = fit_logistic(scored)
    assert np.isfinite([scale, offset]).all()

    def loss(a: float, b: float) -> float:
        total = 0.5 * ((a - 1) ** 2 + b**2)
        for score, right in scored:
            inside = min(max(score, 1e-6), 1 - 1e-6)
            logit = a * np.log(inside / (1 - inside)) + b
            total += float(np.logaddexp(0, -logit if right else logit))
        return total

    assert loss(scale, offset) <= loss(1.0, 0.0) + 1e-6


def test_a_few_scores_do_not_carry_the_fit_off() -> None:
    scale, offset = fit_logistic([(0.9, True)] * 3)
    assert 0.9 < scale < 1.5
    assert 0 <= offset < 0.5


def test_the_curve_and_the_counts_are_drawn() -> None:
    image = reliability_chart(reliability(drawn(500, 1.0, 0.0)))
    found = image.getcolors(1 << 20)
    assert found is not None
    assert {CURVE, COUNTS} <= {color for _, color in found}


@given(scores)
def test_any_table_can_be_drawn(scored: Scored) -> None:
    assert reliability_chart(reliability(scored)).width > 0

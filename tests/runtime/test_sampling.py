"""Sampling: the distributions that temperature and top-p promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mobilevlm_ros.runtime.errors import VlmError
from mobilevlm_ros.runtime.sampling import Sampler, SamplingParams, likeliest, log_softmax

LOGITS = np.log(np.array([0.1, 0.2, 0.3, 0.4], np.float32))


def draw(params: SamplingParams, count: int = 4000) -> np.ndarray:
    sampler = Sampler(params)
    tokens = [sampler.choose(LOGITS).token for _ in range(count)]
    return np.bincount(tokens, minlength=4) / count


def test_greedy_takes_the_likeliest() -> None:
    choice = Sampler(SamplingParams(temperature=0.0)).choose(LOGITS)
    assert choice.token == 3
    assert choice.probability == pytest.approx(0.4)


def test_temperature_one_samples_the_models_own_distribution() -> None:
    assert draw(SamplingParams(temperature=1.0, seed=0)) == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.03)


def test_a_low_temperature_sharpens() -> None:
    sharp = LOGITS.astype(np.float64) / 0.5
    expected = np.exp(sharp) / np.exp(sharp).sum()
    assert draw(SamplingParams(temperature=0.5, seed=0)) == pytest.approx(expected, abs=0.03)


def test_top_p_keeps_the_smallest_set_that_reaches_the_mass() -> None:
    assert draw(SamplingParams(temperature=1.0, top_p=0.7, seed=0)) == pytest.approx([0, 0, 3 / 7, 4 / 7], abs=0.03)


def test_a_seed_makes_it_repeatable() -> None:
    assert (draw(SamplingParams(temperature=1.0, seed=7), 50) == draw(SamplingParams(temperature=1.0, seed=7), 50)).all()


@given(hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(-1e4, 1e4, width=32)))
def test_log_softmax_is_a_distribution(logits: np.ndarray) -> None:
    assert np.exp(log_softmax(logits)).sum() == pytest.approx(1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_logit_that_is_no_number_is_an_error(bad: float) -> None:
    with pytest.raises(VlmError, match="finite"):
        Sampler(SamplingParams()).choose(np.array([0.0, bad], np.float32))


OUT_OF_RANGE = [
    {"max_tokens": 0},
    {"temperature": -0.1},
    {"temperature": float("nan")},
    {"top_p": 0.0},
    {"top_p": 1.1},
    {"alternatives": -1},
]


@pytest.mark.parametrize("wrong", OUT_OF_RANGE)
def test_values_out_of_range_are_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(VlmError, match=next(iter(wrong))):
        SamplingParams(**wrong)  # type: ignore[arg-type]


def test_the_likeliest_come_best_first_with_the_models_own_probabilities() -> None:
    kept = likeliest(log_softmax(LOGITS), None, 2, position=7)
    assert (kept.position, kept.tokens.tolist()) == (7, [3, 2])
    assert np.exp(kept.log_probabilities) == pytest.approx([0.4, 0.3])


def test_what_is_not_allowed_is_no_alternative() -> None:
    kept = likeliest(log_softmax(LOGITS), np.array([True, False, True, False]), 8, position=0)
    assert kept.tokens.tolist() == [2, 0]
    assert np.exp(kept.log_probabilities) == pytest.approx([0.3, 0.1])


@given(hnp.arrays(np.float64, st.integers(1, 50), elements=st.floats(-50, 0)), st.integers(1, 60))
def test_nothing_that_was_left_out_is_likelier_than_what_was_kept(log_probabilities: np.ndarray, count: int) -> None:
    kept = likeliest(log_probabilities, None, count, position=0)
    assert len(kept.tokens) == min(count, len(log_probabilities))
    assert (np.diff(kept.log_probabilities) <= 0).all()
    left = np.delete(log_probabilities, kept.tokens)
    assert not len(left) or left.max() <= kept.log_probabilities[-1]

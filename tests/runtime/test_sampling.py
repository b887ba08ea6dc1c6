"""Sampling: the distributions that temperature and top-p promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mobilevlm_ros.runtime.errors import VlmError
from mobilevlm_ros.runtime.sampling import Sampler, SamplingParams, log_softmax

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


OUT_OF_RANGE = [{"max_tokens": 0}, {"temperature": -0.1}, {"temperature": float("nan")}, {"top_p": 0.0}, {"top_p": 1.1}]


@pytest.mark.parametrize("wrong", OUT_OF_RANGE)
def test_values_out_of_range_are_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(VlmError, match=next(iter(wrong))):
        SamplingParams(**wrong)  # type: ignore[arg-type]

"""How sure a model is of each number of a box, from what else could have stood at each choice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.models import shipped_package
from mobilevlm_ros.runtime.constraint import ConstraintCompiler
from mobilevlm_ros.runtime.manifest import SpecialTokens
from mobilevlm_ros.runtime.requests import FinishReason, Generated, Timing
from mobilevlm_ros.runtime.sampling import GREEDY, Alternatives, Sampler, likeliest
from mobilevlm_ros.runtime.tokenizer import Tokenizer
from mobilevlm_ros.tasks.boxes import BOX_FORM
from mobilevlm_ros.tasks.coordinates import HUNDREDTHS, KEEP, coordinate_distributions
from tests.conftest import PARITY
from tests.fakes import BOS, EOS, PAD, ByteTokenizer

NUMBERS = Tokenizer(shipped_package() / "tokenizer.model")  # a token for each number
DIGITS = Tokenizer(PARITY / "tokenizer.model")  # LLaMA's way: digit by digit
TOKENIZERS = [NUMBERS, DIGITS, ByteTokenizer()]


def written(tokenizer: Tokenizer, logits_at: np.ndarray | None = None, seed: int = 0) -> Generated:
    """A box as the engine makes one from random logits, or the same logits at each step."""
    random = np.random.default_rng(seed)
    form = ConstraintCompiler(tokenizer, SpecialTokens(BOS, EOS, PAD)).regex(BOX_FORM)
    tokens: list[int] = []
    steps: list[Alternatives] = []
    while not form.finished:
        step = form.forced()
        if not step:
            logits = random.normal(0, 3, tokenizer.vocab_size) if logits_at is None else logits_at
            allowed = form.allowed()
            choice = Sampler(GREEDY).choose(logits.astype(np.float32), allowed)
            steps.append(likeliest(choice.log_probabilities, allowed, KEEP, len(tokens)))
            step = [choice.token]
        for token in step:
            form.accept(token)
        tokens += step
    return Generated(tuple(tokens), (), np.empty(0), FinishReason.STOP, 1, Timing(), tuple(steps))


def numbers(tokenizer: Tokenizer, generated: Generated) -> list[int]:
    return [round(float(part) * 100) for part in tokenizer.decode(generated.tokens).strip(" []").split(",")]


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@given(seed=st.integers(0, 2**32 - 1))
def test_each_number_has_a_distribution_over_the_hundredths(tokenizer: Tokenizer, seed: int) -> None:
    generated = written(tokenizer, seed=seed)
    found = coordinate_distributions(tokenizer, generated)
    assert found.shape == (4, HUNDREDTHS)
    assert (found >= 0).all()
    assert found.sum(axis=1) == pytest.approx(np.ones(4), abs=1e-3)
    assert all(found[index, value] > 0 for index, value in enumerate(numbers(tokenizer, generated)))


def test_a_token_for_each_number_gives_the_models_own_distribution() -> None:
    logits = np.full(NUMBERS.vocab_size, -30.0)
    chances = {"0.20": 0.5, "0.21": 0.3, "0.90": 0.2}
    for text, chance in chances.items():
        for before in ("[", "[0.50, "):  # the first number follows the bracket, the others a space
            logits[NUMBERS.encode(before + text)[-1]] = np.log(chance)
    logits[NUMBERS.encode("[0.20")[0]] = 0.0
    found = coordinate_distributions(NUMBERS, written(NUMBERS, logits))
    for row in found:
        assert [row[20], row[21], row[90]] == pytest.approx([0.5, 0.3, 0.2], abs=1e-6)


def test_a_digit_that_was_not_chosen_is_spread_over_the_numbers_that_begin_with_it() -> None:
    logits = np.full(DIGITS.vocab_size, -30.0)
    for digit, chance in {"0": 0.6, "5": 0.3, "6": 0.1}.items():
        for text in (f"[0.{digit}", f"[0.50, {digit}"):
            logits[DIGITS.encode(text)[-1]] = np.log(chance)
    logits[DIGITS.encode("[0")[0]] = 0.0
    generated = written(DIGITS, logits)
    assert numbers(DIGITS, generated) == [0, 0, 0, 0]  # its first digit before the point is 0 or 1, then 0 is likeliest each time
    found = coordinate_distributions(DIGITS, generated)
    for row in found:
        # The first decimal: 0 with 0.6, then the second: 0, 5, 6 with 0.6, 0.3, 0.1 of that.
        assert [row[0], row[5], row[6]] == pytest.approx([0.36, 0.18, 0.06], abs=1e-6)
        # 0.5x with 0.3 and 0.6x with 0.1, and of these what lies nearer to 0.00 has more.
        assert [row[50:60].sum(), row[60:70].sum()] == pytest.approx([0.3, 0.1], abs=1e-6)
        assert (np.diff(row[50:60]) < 0).all()
        assert row[50] / row[59] == pytest.approx(59**2 / 50**2)


def test_numbers_that_were_not_reached_stay_empty() -> None:
    whole = written(NUMBERS)
    short = Generated(whole.tokens[:3], (), np.empty(0), FinishReason.CANCELLED, 1, Timing(), whole.alternatives[:1])
    found = coordinate_distributions(NUMBERS, short)
    assert found[3].sum() == 0


@given(st.lists(st.integers(0, 258), max_size=30))
def test_an_answer_that_is_no_box_has_nothing_to_tell(tokens: list[int]) -> None:
    generated = Generated(tuple(tokens), (), np.empty(0), FinishReason.LENGTH, 1, Timing())
    found = coordinate_distributions(ByteTokenizer(), generated)
    assert (found.sum(axis=1) <= 1 + 1e-9).all()

"""Forms of answers: nothing outside can be chosen, and what is forced need not be."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.models import shipped_package
from mobilevlm_ros.runtime.constraint import Constraint, ConstraintCompiler
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.manifest import SpecialTokens
from mobilevlm_ros.runtime.requests import FinishReason, Limits
from mobilevlm_ros.runtime.sampling import SamplingParams
from mobilevlm_ros.runtime.tokenizer import Tokenizer
from mobilevlm_ros.tasks.boxes import BOX_FORM
from tests.conftest import PARITY
from tests.fakes import BOS, EOS, PAD, ByteTokenizer, FakeBackend, fake_engine, reply

TOKENIZERS = [ByteTokenizer(), Tokenizer(PARITY / "tokenizer.model"), Tokenizer(shipped_package() / "tokenizer.model")]
SCHEMA = {
    "type": "object",
    "properties": {"count": {"type": "integer", "minimum": 0, "maximum": 99}, "door": {"enum": ["open", "closed"]}},
    "required": ["count", "door"],
    "additionalProperties": False,
}


def walk(constraint: Constraint, random: np.random.Generator) -> tuple[list[int], int]:
    """Choose at random among what is allowed until the form is whole; returns the tokens and how many were chosen."""
    tokens: list[int] = []
    choices = 0
    while not constraint.finished:
        step = constraint.forced()
        if not step:
            allowed = [int(token) for token in np.flatnonzero(constraint.allowed())]
            step = [int(random.choice(allowed))]
            choices += 1
        if step == [EOS]:
            break
        for token in step:
            constraint.accept(token)
        tokens += step
    return tokens, choices


def compiler(tokenizer: Tokenizer) -> ConstraintCompiler:
    return ConstraintCompiler(tokenizer, SpecialTokens(BOS, EOS, PAD))


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@given(seed=st.integers(0, 2**32 - 1))
def test_whatever_is_chosen_the_answer_is_a_box(tokenizer: Tokenizer, seed: int) -> None:
    tokens, choices = walk(compiler(tokenizer).regex(BOX_FORM), np.random.default_rng(seed))
    assert re.fullmatch(BOX_FORM, tokenizer.decode(tokens))
    assert choices < len(tokens)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("text", ["[0.61, 0.36, 0.92, 0.83]", "[0.00, 0.05, 1.00, 0.10]"])
def test_a_box_may_be_written_in_the_tokens_that_the_model_was_taught(tokenizer: Tokenizer, text: str) -> None:
    form = compiler(tokenizer).regex(BOX_FORM)
    tokens = tokenizer.encode(text)
    for at, token in enumerate(tokens):
        forced = form.forced()
        assert forced == tokens[at : at + len(forced)]
        assert form.allowed()[token]
        form.accept(token)
    assert form.finished


@given(seed=st.integers(0, 2**32 - 1))
def test_whatever_is_chosen_the_answer_is_json_of_the_schema(seed: int) -> None:
    tokenizer = TOKENIZERS[0]
    tokens, _ = walk(compiler(tokenizer).json_schema(SCHEMA), np.random.default_rng(seed))
    value = json.loads(tokenizer.decode(tokens))
    assert set(value) == {"count", "door"}
    assert 0 <= value["count"] <= 99


@pytest.mark.parametrize("pattern", ["(", "[", "a{2"])
def test_what_is_no_expression_is_a_bad_request(pattern: str) -> None:
    with pytest.raises(VlmError) as refused:
        compiler(TOKENIZERS[0]).regex(pattern)
    assert refused.value.code is ErrorCode.BAD_REQUEST


def test_a_token_outside_the_form_is_refused() -> None:
    with pytest.raises(VlmError):
        compiler(TOKENIZERS[0]).regex("a").accept(TOKENIZERS[0].encode("b")[0])


def test_forced_tokens_take_no_decode_step_and_the_context_stays_right() -> None:
    text = "[0.25, 0.50, 0.75, 1.00]"
    plain, bound = FakeBackend(reply(text)), FakeBackend(reply(text))
    picture_frame = Frame(np.zeros((8, 8, 3), np.uint8))
    sampling = SamplingParams(max_tokens=64, temperature=0.0)
    with fake_engine(plain) as engine:
        expected = engine.generate(engine.picture(picture_frame), "Where?", sampling, Limits()).result()
    with fake_engine(bound) as engine:
        form = engine.constraints.regex(BOX_FORM)
        found = engine.generate(engine.picture(picture_frame), "Where?", sampling, Limits(), constraint=form).result()
    assert found.tokens == expected.tokens
    assert found.finish is FinishReason.STOP
    assert len(bound.batches) < len(plain.batches) / 2
    assert len(found.probabilities) < len(found.tokens)


def test_a_form_holds_under_sampling_too() -> None:
    with fake_engine() as engine:
        picture = engine.picture(Frame(np.zeros((8, 8, 3), np.uint8)))
        for seed in range(5):
            sampling = SamplingParams(max_tokens=64, temperature=5.0, seed=seed)
            form = engine.constraints.regex("(yes|no|perhaps)")
            done = engine.generate(picture, "Is it?", sampling, Limits(), constraint=form).result()
            assert engine.tokenizer.decode(done.tokens) in ("yes", "no", "perhaps")


def test_alternatives_are_kept_for_each_choice_and_for_nothing_that_was_forced() -> None:
    text = "[0.25, 0.50, 0.75, 1.00]"
    frame = Frame(np.zeros((8, 8, 3), np.uint8))
    with fake_engine(FakeBackend(reply(text))) as engine:
        form = engine.constraints.regex(BOX_FORM)
        wish = SamplingParams(max_tokens=64, temperature=0.0, alternatives=3)
        done = engine.generate(engine.picture(frame), "Where?", wish, Limits(), constraint=form).result()
        plain = engine.generate(engine.picture(frame), "Where?", SamplingParams(max_tokens=64), Limits()).result()
    assert plain.alternatives == ()
    assert len(done.alternatives) == len(done.probabilities) < len(done.tokens)
    for step, probability in zip(done.alternatives, done.probabilities, strict=True):
        assert step.tokens[0] == done.tokens[step.position]
        assert np.exp(step.log_probabilities[0]) == pytest.approx(probability)
        assert 2 <= len(step.tokens) <= 3
    digits = {3 + byte for byte in b"0123456789."}
    assert all(set(step.tokens.tolist()) <= digits for step in done.alternatives[1:])

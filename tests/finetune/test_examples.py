"""Conversations as token ids: the prompt's are the runtime's, and the answers alone are learnt."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.checkpoint.config import IMAGE_TOKEN, MobileVlmConfig
from mobilevlm_ros.finetune.dataset import Sample
from mobilevlm_ros.finetune.examples import IGNORE_INDEX, Example, ExampleMaker
from mobilevlm_ros.runtime.manifest import SpecialTokens
from mobilevlm_ros.runtime.prompt import V1, PromptBuilder, Turn
from mobilevlm_ros.runtime.tokenizer import Tokenizer
from tests.parity import PARITY

BOS, EOS = 1, 2
PICTURE = 144
CONFIG = MobileVlmConfig.read(PARITY / "ldpnetv2")
TOKENIZER = Tokenizer(PARITY / "tokenizer.model")
PROMPTS = PromptBuilder(V1, SpecialTokens(BOS, EOS, 0), TOKENIZER)

texts = st.text(min_size=1, max_size=30).map(str.strip).filter(bool)
turns_drawn = st.lists(st.builds(Turn, texts, texts), min_size=1, max_size=3)


def make(turns: list[Turn], image: str | None = "a.png", max_length: int = 2048) -> Example:
    example = ExampleMaker(CONFIG, TOKENIZER, max_length).make(Sample("x", image, tuple(turns)))
    assert example is not None
    return example


@given(turns_drawn)
def test_before_each_answer_stands_what_the_runtime_asks(turns: list[Turn]) -> None:
    example = make(turns)
    for number, ((start, _), turn) in enumerate(zip(example.answers, turns)):
        prompt = PROMPTS.build(turn.question, turns[:number])
        assert example.ids[:start].tolist() == [*prompt.head, IMAGE_TOKEN, *prompt.tail]


@given(turns_drawn)
def test_the_answers_and_their_ends_are_learnt_and_nothing_else(turns: list[Turn]) -> None:
    example = make(turns)
    labels = example.labels()
    assert np.array_equal(labels[labels != IGNORE_INDEX], np.concatenate([example.ids[a:b] for a, b in example.answers]))
    for (start, end), turn in zip(example.answers, turns):
        assert labels[start - 1] == IGNORE_INDEX
        assert labels[end - 1] == EOS
        assert (
            TOKENIZER.decode(labels[start : end - 1].tolist()).strip() == TOKENIZER.decode(TOKENIZER.encode(turn.answer)).strip()
        )
    assert example.answers[-1][1] == len(example.ids)


def test_a_picture_counts_as_its_visual_tokens() -> None:
    example = make([Turn("What?", "A ball.")])
    assert CONFIG.image_tokens == PICTURE
    assert example.length == len(example.ids) - 1 + PICTURE
    assert not example.cut


def test_without_a_picture_the_first_turn_is_one_piece_of_text() -> None:
    turns = [Turn("What?", "A ball."), Turn("Why?", "So.")]
    example = make(turns, image=None)
    first = TOKENIZER.encode(f"{V1.system} USER: What? ASSISTANT: A ball.")
    later = TOKENIZER.encode("USER: Why? ASSISTANT: So.")
    assert example.ids.tolist() == [BOS, *first, EOS, *later, EOS]
    assert example.length == len(example.ids)
    asked = TOKENIZER.encode(f"{V1.system} USER: What? ASSISTANT:")
    assert example.answers[0] == (1 + len(asked), 1 + len(first) + 1)


@given(st.integers(0, 400))
def test_what_is_too_long_is_cut_at_its_end(max_length: int) -> None:
    sample = Sample("x", "a.png", (Turn("What?", "A red ball."), Turn("Where is it?", "To the left of the cube.")))
    whole = make(list(sample.turns))
    cut = ExampleMaker(CONFIG, TOKENIZER, max_length).make(sample)
    if cut is None:
        assert max_length <= whole.answers[0][0] + PICTURE - 1
        return
    assert cut.length == min(whole.length, max_length)
    assert cut.cut == (whole.length > max_length)
    assert np.array_equal(cut.ids, whole.ids[: len(cut.ids)])
    assert np.array_equal(cut.labels(), whole.labels()[: len(cut.ids)])
    assert (cut.labels() != IGNORE_INDEX).any()


@pytest.mark.parametrize("text", ["</s>", "<s>", "USER: no ASSISTANT: yes"])
def test_special_words_in_the_data_are_plain_text(text: str) -> None:
    example = make([Turn(text, text)])
    assert (example.ids == EOS).sum() == 1
    assert (example.ids == BOS).sum() == 1
    assert len(example.answers) == 1

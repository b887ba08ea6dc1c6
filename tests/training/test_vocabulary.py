"""The shipped tokenizer keeps coordinates and names in one piece, and loses no text."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.packing import IGNORE, Packer
from training.questions import Asker, Turn
from training.scenes import COLORS, SHAPES
from training.truth import Sight, Thing
from training.vocabulary import BOS, EOS, SIZE, Words

TOKENIZER = Path(__file__).parents[2] / "models" / "nano" / "checkpoint" / "tokenizer.model"


few = settings(max_examples=25, deadline=None)


@pytest.fixture(scope="module")
def words() -> Words:
    return Words.load(TOKENIZER)


def test_special_ids_are_llamas(words: Words) -> None:
    assert words.size == SIZE
    assert [words.pieces.id_to_piece(number) for number in range(3)] == ["<unk>", "<s>", "</s>"]
    assert words.head[0] == BOS


def test_a_coordinate_is_one_token(words: Words) -> None:
    assert len(words.encode("[0.61, 0.36, 0.92, 0.83]")) == 9
    assert len(set(words.numbers(spaced=True) + words.numbers(spaced=False))) == 202


def test_names_are_one_token(words: Words) -> None:
    for name in (*COLORS, *SHAPES):
        assert len(words.encode(name)) == 1
        assert len(words.encode(name.capitalize())) == 1


@few
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\u2581\0"), max_size=40))
def test_any_text_survives(text: str) -> None:
    words = Words.load(TOKENIZER)
    assert words.pieces.decode(words.encode(text)) == text


def test_packed_labels_are_the_answers(words: Words) -> None:
    packer, turn = Packer(words), Turn("color", "What color is the mug?", "Red")
    packed = packer.side_by_side([turn], ((2, 30),))[0]
    assert [i for i in packed.labels[0] if i != IGNORE] == packer.answer("Red") == [*words.encode("Red"), EOS]
    start = int((packed.labels[0] != IGNORE).argmax())
    assert packed.ids[0, : start + 1].tolist() == words.first_turn(turn.question)
    assert (packed.labels[1] == IGNORE).all()


def test_a_chat_ends_every_answer(words: Words) -> None:
    things = (Thing("mug", "red", (10.0, 10.0, 40.0, 40.0)), Thing("ball", "blue", (60.0, 60.0, 90.0, 90.0)))
    turns = Asker(Sight(0, 256, 192, things), Random(0)).ask_many(5)
    packed = Packer(words).chat(turns, 300)[0]
    assert (packed.labels[0] == EOS).sum() == len(turns)
    ids = packed.ids[0].tolist()
    assert ids.count(EOS) == len(turns)

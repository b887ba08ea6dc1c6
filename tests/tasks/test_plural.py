"""Plural expressions: which ones mean several things, how many, and how one of them is asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.tasks.plural import MOST, Wanted, singular, wanted


@pytest.mark.parametrize(
    ("expression", "phrase", "most"),
    [
        ("the red mugs", "the red mug", MOST),
        ("all cubes", "the cube", MOST),
        ("All red mugs", "the red mug", MOST),
        ("all of the cubes", "the cube", MOST),
        ("every red ball", "the red ball", MOST),
        ("each cube", "the cube", MOST),
        ("a few mugs", "the mug", MOST),
        ("some mugs", "the mug", MOST),
        ("two balls", "the ball", 2),
        ("2 balls", "the ball", 2),
        ("both of the mugs", "the mug", 2),
        ("the three sheep", "the sheep", 3),
        ("200 bolts", "the bolt", MOST),
        ("the mugs on the table", "the mug on the table", MOST),
        ("the left mugs", "the left mug", MOST),
        ("people wearing hats", "the person wearing hats", MOST),
        ("mugs, red ones", "the mug, red ones", MOST),
        ("the two scissors", "the scissors", 2),
        ("the boxes and bags", "the boxes and bag", MOST),
    ],
)
def test_an_expression_for_several_things_asks_for_one_of_them(expression: str, phrase: str, most: int) -> None:
    assert wanted(expression) == Wanted(phrase, most)


@pytest.mark.parametrize(
    "expression",
    [
        "the red mug",
        "a mug",
        "mug",
        "the glass",
        "the bus",
        "the ring",
        "this lens",
        "the scissors on the bench",
        "one of the mugs",
        "the one ball",
        "the man with the glasses",
        "the mug left of the cups",
        "the box of matches",
        "the second ball",
        "the cups and the plates",
        "some mug",
        "the",
        "all",
        "...",
    ],
)
def test_an_expression_for_one_thing_is_left_as_it_is(expression: str) -> None:
    assert wanted(expression) == Wanted(expression, 1)


@pytest.mark.parametrize(
    ("noun", "one"),
    [
        ("mugs", "mug"),
        ("boxes", "box"),
        ("dishes", "dish"),
        ("benches", "bench"),
        ("glasses", "glass"),
        ("vases", "vase"),
        ("berries", "berry"),
        ("ties", "tie"),
        ("children", "child"),
        ("buses", "bus"),
        ("glass", "glass"),
        ("cactus", "cactus"),
        ("tennis", "tennis"),
        ("is", "is"),
    ],
)
def test_nouns_in_the_singular(noun: str, one: str) -> None:
    assert singular(noun) == one


@given(st.text())
def test_any_text_asks_for_something_and_for_a_bounded_number(text: str) -> None:
    found = wanted(text)
    assert 1 <= found.most <= MOST
    assert found.most > 1 or found.phrase == text

"""Questions have the answers that the truth demands."""

from __future__ import annotations

import re
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training import wording
from training.grading import right
from training.questions import KINDS, Asker, format_box, parse_box
from training.scenes import COLORS, SHAPES
from training.truth import Sight, Thing, iou, squared

few = settings(max_examples=25, deadline=None)


@st.composite
def sights(draw: st.DrawFn) -> Sight:
    things = []
    for _ in range(draw(st.integers(1, 5))):
        x, y = draw(st.integers(0, 200)), draw(st.integers(0, 140))
        wide, high = draw(st.integers(15, 50)), draw(st.integers(15, 50))
        box = (float(x), float(y), float(x + wide), float(y + high))
        things.append(Thing(draw(st.sampled_from(SHAPES)), draw(st.sampled_from(COLORS)), box))
    return Sight(0, 256, 192, tuple(things))


seeds = st.integers(0, 10_000)


@few
@given(sights(), seeds, st.booleans())
def test_every_answer_is_right_by_the_grader(sight: Sight, seed: int, plain: bool) -> None:
    asker = Asker(sight, Random(seed), plain)
    for kind in KINDS:
        turn = asker.ask(kind)
        if turn is not None:
            assert turn.kind == kind
            assert right(turn, turn.answer) or turn.kind == "ground"
            assert not re.search(r"[{}]", turn.question)


@few
@given(sights(), seeds)
def test_colour_and_shape_name_the_only_one(sight: Sight, seed: int) -> None:
    asker = Asker(sight, Random(seed), plain=True)
    color, shape = asker.ask("color"), asker.ask("shape")
    if color is not None:
        named = next(s for s in SHAPES if f" {s}?" in color.question)
        assert [t.color.capitalize() for t in sight.things if t.shape == named] == [color.answer]
    if shape is not None:
        named = next(c for c in COLORS if f" {c} " in shape.question)
        assert [t.shape.capitalize() for t in sight.things if t.color == named] == [shape.answer]


@few
@given(sights(), seeds)
def test_existence_is_true(sight: Sight, seed: int) -> None:
    turn = Asker(sight, Random(seed), plain=True).ask("exists")
    assert turn is not None
    words = set(re.findall(r"[a-z]+", turn.question.lower()))
    fits = [
        thing
        for thing in sight.things
        if (thing.color in words or not words & set(COLORS)) and (thing.shape in words or not words & set(SHAPES))
    ]
    assert turn.answer == ("Yes" if fits else "No")


@few
@given(sights(), seeds)
def test_count_is_true(sight: Sight, seed: int) -> None:
    turn = Asker(sight, Random(seed), plain=True).ask("count")
    assert turn is not None
    words = set(re.findall(r"[a-z]+", turn.question.lower()))
    colors = words & set(COLORS)
    shapes = {shape for shape in SHAPES if wording.plural(shape) in words}
    wanted = [t for t in sight.things if (not colors or t.color in colors) and (not shapes or t.shape in shapes)]
    assert turn.answer == str(len(wanted))


@few
@given(sights(), seeds)
def test_an_expression_points_at_one_thing(sight: Sight, seed: int) -> None:
    turn = Asker(sight, Random(seed)).ask("ground")
    if turn is not None:
        assert turn.box is not None
        places = [squared(thing.box, sight.width, sight.height) for thing in sight.things]
        assert turn.box in places
        parsed = parse_box(turn.answer)
        assert parsed is None or iou(parsed, turn.box) > 0.7


@few
@given(sights(), seeds)
def test_questions_about_one_picture_differ(sight: Sight, seed: int) -> None:
    turns = Asker(sight, Random(seed)).ask_many(10)
    assert max(Counter(turn.question for turn in turns).values()) == 1


def test_existence_is_balanced() -> None:
    things = (Thing("mug", "red", (0.0, 0.0, 30.0, 30.0)), Thing("ball", "blue", (50.0, 50.0, 90.0, 90.0)))
    asker = Asker(Sight(0, 256, 192, things), Random(0), plain=True)
    answers = Counter(turn.answer for _ in range(2000) if (turn := asker.ask("exists")) is not None)
    assert 0.4 < answers["Yes"] / 2000 < 0.65


def test_boxes_are_written_as_llava_writes_them() -> None:
    assert format_box((0.611, 0.359, 0.92, 0.834)) == "[0.61, 0.36, 0.92, 0.83]"
    assert parse_box("[0.61, 0.36, 0.92, 0.83]") == (0.61, 0.36, 0.92, 0.83)
    assert format_box((-0.2, 0.0, 1.3, 1.0)) == "[0.00, 0.00, 1.00, 1.00]"


@pytest.mark.parametrize("text", ["", "[0.5, 0.5, 0.4, 0.9]", "[0.1, 0.2, 0.3]", "[., 0.1, 0.2, 0.3]", "the mug"])
def test_malformed_boxes_are_none(text: str) -> None:
    assert parse_box(text) is None


def test_the_referring_phrasings_are_llavas() -> None:
    ground = wording.FIXED["ground"].format(expression="the red mug")
    assert ground == "Please provide the bounding box coordinate of the region this sentence describes: the red mug."
    region = wording.FIXED["describe_region"].format(box="[0.04, 0.57, 0.63, 0.71]")
    assert region == "Please provide a short description for this region: [0.04, 0.57, 0.63, 0.71]."

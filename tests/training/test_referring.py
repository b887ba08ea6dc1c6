"""Referring expressions of rendered scenes: what is said of a picture is true of it."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.tasks.plural import wanted
from training.referring import several_lines, single_lines, swapped_lines
from training.scenes import COLORS, SHAPES
from training.truth import Sight, Thing

things = st.builds(Thing, st.sampled_from(SHAPES), st.sampled_from(COLORS), st.tuples(*[st.integers(0, 200).map(float)] * 4))
sights = st.lists(things, min_size=1, max_size=5).map(lambda found: Sight(7, 256, 192, tuple(found)))


def meant(sight: Sight, expression: str) -> list[list[float]]:
    """The boxes of the things that have all the colour and shape words of an expression."""
    words = [word for word in wanted(expression).phrase.split()[1:] if word not in ("object", "thing", "one")]
    return [list(thing.box) for thing in sight.things if all(word in (thing.color, thing.shape) for word in words)]


@given(sights, st.integers(0, 1000))
def test_a_single_expression_means_one_thing_or_nothing(sight: Sight, seed: int) -> None:
    lines = list(single_lines(sight, "a.png", Random(seed)))
    assert 1 <= len(lines) <= 2
    for line in lines:
        assert wanted(line["expression"]).most == 1
        assert meant(sight, line["expression"]) == ([] if line["bbox"] is None else [line["bbox"]])
    assert [line for line in lines if line["bbox"] is None] == lines[-1:]


@given(sights, st.integers(0, 1000))
def test_a_plural_expression_means_all_that_fit_it(sight: Sight, seed: int) -> None:
    lines = list(several_lines(sight, "a.png", Random(seed)))
    assert lines
    for line in lines:
        assert wanted(line["expression"]).most > 1
        assert meant(sight, line["expression"]) == line["bboxes"]


def test_swapped_lines_ask_the_same_about_other_pictures() -> None:
    lines = [{"image": f"{number}.png", "expression": "the mugs"} for number in range(5)]
    swapped = swapped_lines(lines)
    assert sorted(line["image"] for line in swapped) == sorted(line["image"] for line in lines)
    assert all(one["image"] != other["image"] for one, other in zip(lines, swapped))

"""Whether an answer of the demo counts as right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mobilevlm_ros.demo import truth
from mobilevlm_ros.demo.truth import Kind
from mobilevlm_ros.runtime.geometry import Box


@pytest.mark.parametrize("text", ["red", "Red.", " RED ", "red!"])
def test_case_and_punctuation_do_not_matter(text: str) -> None:
    assert truth.says(text, "red")


@pytest.mark.parametrize("text", ["", "blue", "red or blue", "reddish", "not red"])
def test_other_words_do(text: str) -> None:
    assert not truth.says(text, "red")


def test_a_box_is_right_where_it_overlaps_the_true_one_by_half() -> None:
    true = Box(0, 0, 100, 100)
    assert truth.points_at(Box(0, 0, 100, 50), true)
    assert not truth.points_at(Box(0, 0, 100, 49), true)
    assert not truth.points_at(Box(200, 200, 300, 300), true)


def test_a_thing_is_found_by_its_name_only_if_there_is_one_of_it(tmp_path: Path) -> None:
    def thing(color: str, left: float) -> dict[str, object]:
        return {"shape": "mug", "color": color, "box": [left, 0, left + 10, 10]}

    content = {
        "frames": [{"scene": 0, "things": [thing("red", 0), thing("blue", 20), thing("blue", 40)]}],
        "story": [{"scene": 0, "kind": "ask", "texts": ["What?"], "right": ["red"]}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(content))
    recording = truth.read(tmp_path / "truth.json")
    (picture,) = recording.pictures
    assert picture.box_of("red mug") == Box(0, 0, 10, 10)
    assert picture.box_of("blue mug") is None
    assert picture.box_of("green mug") is None
    assert (recording.story[0].kind, recording.story[0].right) == (Kind.ASK, ("red",))

"""ScienceQA-IMG: LLaVA's prompt and its reading of the letter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mobilevlm_ros.evaluate.dataset import Fit
from mobilevlm_ros.evaluate.errors import DatasetError
from mobilevlm_ros.evaluate.formats.scienceqa import chosen_letter, read_scienceqa
from tests.evaluate.helpers import score, source, write_json, write_picture


def problem(answer: int = 1, image: str | None = "image.png", **more: Any) -> dict[str, Any]:
    choices = ["West Virginia", "Louisiana", "Arizona"]
    return {"question": "Which is farthest north?", "choices": choices, "answer": answer, "hint": "", "image": image, **more}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    problems = {
        "1": problem(subject="social science"),
        "2": problem(0, hint="Look at the map.", subject="natural science"),
        "3": problem(image=None),
        "4": problem(),
    }
    write_json(tmp_path / "problems.json", problems)
    write_json(tmp_path / "pid_splits.json", {"test": ["1", "2", "3"], "val": ["4"]})
    return tmp_path


def test_the_questions_with_a_picture_of_the_split_are_asked(folder: Path) -> None:
    benchmark = read_scienceqa(source(folder))
    assert [item.id for item in benchmark.items] == ["1", "2"]
    assert benchmark.notes == ("questions left out because they have no picture: 1",)
    assert [item.id for item in read_scienceqa(source(folder / "problems.json", split="val")).items] == ["4"]


def test_the_prompt_is_hint_question_choices_and_the_wish_for_a_letter(folder: Path) -> None:
    first, second = read_scienceqa(source(folder)).items
    choices = "A. West Virginia\nB. Louisiana\nC. Arizona\nAnswer with the option's letter from the given choices directly."
    assert first.question == f"Which is farthest north?\n{choices}"
    assert second.question == f"Context: Look at the map.\nWhich is farthest north?\n{choices}"


def test_the_picture_is_cropped_to_its_centre_as_the_official_script_does(folder: Path) -> None:
    assert {item.fit for item in read_scienceqa(source(folder)).items} == {Fit.CENTRE_CROP}


def test_pictures_may_lie_in_a_folder_of_their_split(folder: Path) -> None:
    images = folder / "images"
    assert read_scienceqa(source(folder, images)).items[0].image == images / "1" / "image.png"
    write_picture(images / "test" / "1" / "image.png")
    assert read_scienceqa(source(folder, images)).items[0].image == images / "test" / "1" / "image.png"


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("B. Louisiana", "B"),
        ("The answer is B.", "B"),
        ("I think so. The answer is B, of course", "B"),
        ("B.", None),  # a letter, a full stop and a space it takes
        ("b", None),
        ("Louisiana", None),
        ("(B)", None),
        ("D", None),  # there are three choices
        ("D. Texas", None),
        ("The answer is B", None),  # something must follow the letter
        ("The answer is A. The answer is B.", None),  # twice is no answer
        ("AB", None),
        ("", None),
    ],
)
def test_the_letter_that_an_answer_names(answer: str, letter: str | None) -> None:
    assert chosen_letter(answer, 3) == letter


def test_accuracy_over_all_and_by_subject(folder: Path) -> None:
    scores = score(read_scienceqa(source(folder)), {"1": "B", "2": "West Virginia"})
    assert scores["all"] == {"items": 2, "accuracy": 0.5, "no_choice": 0.5}
    assert scores["social science"] == {"items": 1, "accuracy": 1, "no_choice": 0}
    assert scores["natural science"] == {"items": 1, "accuracy": 0, "no_choice": 1}


def test_an_unknown_split_or_an_impossible_answer_is_refused(folder: Path) -> None:
    with pytest.raises(DatasetError, match="no split 'minitest'; there are test, val"):
        read_scienceqa(source(folder, split="minitest"))
    write_json(folder / "problems.json", {"4": problem(3)})
    with pytest.raises(DatasetError, match="answer 3 of 3 choices"):
        read_scienceqa(source(folder, split="val"))

"""MME: the folder format and the scores of its calculation tool."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobilevlm_ros.evaluate.errors import DatasetError
from mobilevlm_ros.evaluate.formats.mme import KINDS, read_mme
from tests.evaluate.helpers import score, source, write_picture

PAIR = "Is there a dog? Please answer yes or no.\tYes\nIs there a cat?  Please answer yes or no.\tNo\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("1", "2"):
        write_picture(tmp_path / "existence" / f"{name}.jpg")
        (tmp_path / "existence" / f"{name}.txt").write_text(PAIR)
    write_picture(tmp_path / "landmark" / "images" / "7.png")
    (tmp_path / "landmark" / "questions_answers_YN").mkdir()
    (tmp_path / "landmark" / "questions_answers_YN" / "7.txt").write_text(PAIR)
    write_picture(tmp_path / "code_reasoning" / "3.png")
    (tmp_path / "code_reasoning" / "3.txt").write_text(PAIR)
    (tmp_path / "eval_tool").mkdir()
    return tmp_path


def test_there_are_ten_subtasks_of_perception_and_four_of_cognition() -> None:
    assert {kind: len(names) for kind, names in KINDS.items()} == {"perception": 10, "cognition": 4}


def test_pictures_and_questions_lie_side_by_side_or_in_folders_of_their_own(folder: Path) -> None:
    items = {item.id: item for item in read_mme(source(folder, folder)).items}
    assert list(items) == [
        "existence/1:1",
        "existence/1:2",
        "existence/2:1",
        "existence/2:2",
        "landmark/7:1",
        "landmark/7:2",
        "code_reasoning/3:1",
        "code_reasoning/3:2",
    ]
    assert items["existence/1:1"].image == folder / "existence" / "1.jpg"
    assert items["landmark/7:1"].image == folder / "landmark" / "images" / "7.png"
    assert items["landmark/7:1"].question_id == "landmark/7.png"


def test_the_wish_for_a_short_answer_replaces_the_one_for_yes_or_no(folder: Path) -> None:
    asked = {item.question for item in read_mme(source(folder, folder)).items}
    wish = "Answer the question using a single word or phrase."
    assert asked == {f"Is there a dog?\n{wish}", f"Is there a cat?\n{wish}"}


def test_scores_by_hand(folder: Path) -> None:
    benchmark = read_mme(source(folder, folder))
    answers = {item.id: item.references[0] for item in benchmark.items}
    answers |= {"existence/2:2": "Yes", "code_reasoning/3:1": "unknown", "code_reasoning/3:2": "Yes"}
    scores = score(benchmark, answers)
    # Existence: 3 of 4 answers and 1 of 2 pictures right. Landmark: everything. Code reasoning: nothing.
    assert scores["existence"] == {"items": 4, "accuracy": 0.75, "accuracy_plus": 0.5, "score": 125}
    assert scores["landmark"]["score"] == 200
    assert scores["code_reasoning"]["score"] == 0
    assert scores["perception"] == {"items": 6, "score": 325}
    assert scores["cognition"] == {"items": 2, "score": 0}


def test_a_reader_is_told_which_subtasks_the_sums_lack(folder: Path) -> None:
    (note,) = read_mme(source(folder, folder)).notes
    assert "count, position" in note
    assert "existence" not in note


@pytest.mark.parametrize("line", ["Is there a dog? Yes\n", "Is there a dog?\tMaybe\n"])
def test_a_line_without_a_tab_or_without_yes_or_no_is_refused(folder: Path, line: str) -> None:
    (folder / "existence" / "1.txt").write_text(line)
    with pytest.raises(DatasetError, match=r"1.txt, line 1: expected a question, a tab"):
        read_mme(source(folder, folder))


def test_a_folder_without_subtasks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="none of MME's subtasks"):
        read_mme(source(tmp_path, tmp_path))
    with pytest.raises(DatasetError, match="no such folder"):
        read_mme(source(tmp_path / "nowhere"))

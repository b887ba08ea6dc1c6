"""ColonINST: format, prompts and rules of the public evaluator."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.evaluate.errors import DatasetError
from mobilevlm_ros.evaluate.formats.coloninst import PROMPTS, ColonTask, format_corners, parse_corners, read_coloninst
from mobilevlm_ros.runtime.geometry import Box
from tests.evaluate.helpers import said, score, source, write_json


def record(question: str, answer: str, name: str = "set/Test/polyp/1.png") -> dict[str, object]:
    turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
    return {"id": name, "image": "1", "conversations": turns}


@pytest.fixture
def three_tasks(tmp_path: Path) -> Path:
    records = [
        record("Categorize the object.", "Polyp"),
        record("What category does {<1><2><30><40>} belong to?", "colorectal cancer"),
        record("Where is the location of polyp?", "{<0><0><9><9>}"),
    ]
    return write_json(tmp_path / "test.json", records)


def test_the_task_is_seen_from_where_the_box_stands(three_tasks: Path) -> None:
    benchmark = read_coloninst(source(three_tasks))
    assert [item.metadata["task"] for item in benchmark.items] == [ColonTask.CLS, ColonTask.REG, ColonTask.REC]
    assert benchmark.notes == ()
    assert benchmark.max_tokens == 40


def test_the_picture_is_found_by_its_id_and_the_question_is_asked_as_it_stands(three_tasks: Path) -> None:
    item = read_coloninst(source(three_tasks, Path("pictures"))).items[0]
    assert item.image == Path("pictures/set/Test/polyp/1.png")
    assert item.question == "Categorize the object."


def test_one_picture_may_be_asked_about_more_than_once(three_tasks: Path) -> None:
    items = read_coloninst(source(three_tasks)).items
    assert len({item.id for item in items}) == 3
    assert len({item.question_id for item in items}) == 1


@pytest.mark.parametrize("task", list(ColonTask))
def test_there_are_five_published_wordings_of_each_task_and_all_are_known(tmp_path: Path, task: ColonTask) -> None:
    assert len(set(PROMPTS[task])) == 5
    box = "{<1><2><3><4>}"
    asked = [wording.format(box=box, category="polyp") for wording in PROMPTS[task]]
    records = [record(question, box if task is ColonTask.REC else "polyp") for question in asked]
    benchmark = read_coloninst(source(write_json(tmp_path / "test.json", records)))
    assert {item.metadata["task"] for item in benchmark.items} == {task}
    assert benchmark.notes == ()


def test_other_wordings_are_asked_all_the_same_and_said(tmp_path: Path) -> None:
    path = write_json(tmp_path / "test.json", [record("Interpret what the image shows.", "A polyp.")])
    assert read_coloninst(source(path)).notes == ("1 of 1 questions are in none of the published wordings",)


@pytest.mark.parametrize(
    ("answer", "right"),
    [("polyp", 1.0), ("POLYP", 1.0), ("polyp.", 0.0), ("a polyp", 0.0), ("polyps", 0.0), ("", 0.0)],
)
def test_words_are_right_if_equal_but_for_case_and_nothing_else(three_tasks: Path, answer: str, right: float) -> None:
    benchmark = read_coloninst(source(three_tasks))
    item = benchmark.items[0]
    assert benchmark.grade(item, said(item, answer)).value == right


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("{<0><0><9><9>}", 1.0),
        ("{<5><0><14><9>}", 50 / 150),  # half of each of two boxes of 10 x 10, the last pixels included
        ("< 0 >< 0 >< 9 >< 9 >", 1.0),  # spaces inside the brackets are allowed, and no braces are needed
        ("{<0><0><9>}", 0.0),
        ("{<0><0><9><9><9>}", 0.0),
        ("[0, 0, 9, 9]", 0.0),
        ("{<0.5><0><9><9>}", 0.0),  # 0.5 is no whole number, so three are left
        ("{<-1><0><9><9>}", 0.0),
        ("{<9><9><0><0>}", 0.0),
        ("polyp", 0.0),
    ],
)
def test_a_box_is_four_whole_numbers_in_angle_brackets_and_else_overlaps_nothing(
    three_tasks: Path, answer: str, value: float
) -> None:
    benchmark = read_coloninst(source(three_tasks))
    item = benchmark.items[2]
    assert benchmark.grade(item, said(item, answer)).value == pytest.approx(value)


def test_the_drawn_box_ends_after_its_last_pixel(three_tasks: Path) -> None:
    benchmark = read_coloninst(source(three_tasks))
    grade = benchmark.grade(benchmark.items[2], said(benchmark.items[2], "{<5><0><14><9>}"))
    assert (grade.right_boxes, grade.boxes) == ((Box(0, 0, 10, 10),), (Box(5, 0, 15, 10),))


def test_scores_by_hand(tmp_path: Path) -> None:
    records = [
        record("Classify the object's category.", "polyp"),
        record("Classify the object's category.", "cecum"),
        record("Where is polyp located?", "{<0><0><9><9>}"),
        record("Where is polyp located?", "{<0><0><9><9>}"),
        record("Where is polyp located?", "{<0><0><9><9>}"),
    ]
    benchmark = read_coloninst(source(write_json(tmp_path / "test.json", records)))
    answers = ["polyp", "polyp", "{<0><0><9><9>}", "{<0><0><9><4>}", "none"]
    scores = score(benchmark, {item.id: answer for item, answer in zip(benchmark.items, answers)})
    # Overlaps 1, 0.5 and 0: mean 0.5; over 0.5 is one of three, because 0.5 itself is not over it.
    assert scores == {
        "cls": {"items": 2, "accuracy": 0.5},
        "rec": {"items": 3, "mean_iou": pytest.approx(0.5), "precision@0.5": pytest.approx(1 / 3)},
    }


@given(st.tuples(*[st.integers(0, 9999)] * 4))
def test_a_box_written_is_the_box_read(corners: tuple[int, int, int, int]) -> None:
    assert parse_corners(format_corners(corners)) == corners


@given(st.text())
def test_any_text_is_parsed_without_harm(text: str) -> None:
    assert all(number >= 0 for number in parse_corners(text))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "expected a list, found an object"),
        ([], "nothing to ask"),
        ([{"id": "1.png"}], "conversations: expected a list, found nothing"),
        ([{"id": "1.png", "conversations": [{"from": "human", "value": "What?"}]}], "no turn of 'human' or none of 'gpt'"),
        ([record("Categorize the object.", "polyp", "../secret.png")], "leads out of"),
        ([{"conversations": record("What?", "polyp")["conversations"]}], "no text under 'id'"),
    ],
)
def test_a_damaged_file_is_one_clear_line(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(DatasetError) as refused:
        read_coloninst(source(write_json(tmp_path / "test.json", content)))
    assert message in refused.value.message
    assert "\n" not in refused.value.message


def test_a_file_that_is_missing_or_no_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere\.json: cannot be read"):
        read_coloninst(source(tmp_path / "nowhere.json"))
    (tmp_path / "broken.json").write_text("[{")
    with pytest.raises(DatasetError, match=r"broken\.json: not JSON"):
        read_coloninst(source(tmp_path / "broken.json"))

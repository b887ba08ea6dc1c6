"""GQA, POPE and TextVQA: questions that are answered in a word or two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mobilevlm_ros.evaluate.errors import DatasetError
from mobilevlm_ros.evaluate.formats.gqa import read_gqa
from mobilevlm_ros.evaluate.formats.pope import read_pope
from mobilevlm_ros.evaluate.formats.textvqa import read_textvqa
from tests.evaluate.helpers import said, score, source, write_json, write_lines, write_picture

SHORT = "\nAnswer the question using a single word or phrase."


def gqa_question(question: str, answer: str, structure: str = "query", balanced: bool = True) -> dict[str, Any]:
    types = {"structural": structure, "semantic": "rel", "detailed": "relS"}
    return {"question": question, "imageId": "n1", "answer": answer, "isBalanced": balanced, "types": types}


class TestGqa:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        questions = {
            "7": gqa_question("Who is driving?", "man"),
            "8": gqa_question("Is it red?", "no", "verify"),
            "9": gqa_question("Is it red or blue?", "red", "choose"),
            "10": gqa_question("What?", "dog", balanced=False),
        }
        return write_json(tmp_path / "testdev_balanced_questions.json", questions)

    def test_only_balanced_questions_are_asked_with_the_wish_for_a_short_answer(self, path: Path) -> None:
        benchmark = read_gqa(source(path, Path("images")))
        assert [item.id for item in benchmark.items] == ["7", "8", "9"]
        assert benchmark.items[0].question == f"Who is driving?{SHORT}"
        assert benchmark.items[0].image == Path("images/n1.jpg")
        assert benchmark.notes == ("questions left out because they are not balanced: 1",)

    @pytest.mark.parametrize(
        ("answer", "right"), [("man", 1), ("Man.", 1), ("MAN...", 1), ("a man", 0), ("men", 0), ("man,", 0), ("", 0)]
    )
    def test_an_answer_loses_its_full_stop_and_its_capitals_and_must_then_be_equal(
        self, path: Path, answer: str, right: float
    ) -> None:
        benchmark = read_gqa(source(path))
        assert benchmark.grade(benchmark.items[0], said(benchmark.items[0], answer)).value == right

    def test_accuracy_over_all_and_by_kind(self, path: Path) -> None:
        scores = score(read_gqa(source(path)), {"7": "Man.", "8": "yes", "9": "red"})
        assert scores["all"] == {"items": 3, "accuracy": pytest.approx(2 / 3)}
        assert scores["open"] == {"items": 1, "accuracy": 1}
        assert scores["binary"] == {"items": 2, "accuracy": 0.5}
        assert scores["verify"] == {"items": 1, "accuracy": 0}


def pope_line(number: int, label: str, **more: str) -> dict[str, Any]:
    return {"question_id": number, "image": "COCO_1.jpg", "text": "Is there a dog in the image?", "label": label, **more}


class TestPope:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        write_lines(tmp_path / "coco_pope_random.json", [pope_line(1, "yes"), pope_line(2, "no")])
        write_lines(tmp_path / "coco_pope_adversarial.json", [pope_line(1, "yes"), pope_line(2, "no")])
        return tmp_path

    def test_a_file_is_a_category_and_a_folder_all_of_them(self, folder: Path) -> None:
        assert {item.metadata["category"] for item in read_pope(source(folder)).items} == {"random", "adversarial"}
        benchmark = read_pope(source(folder / "coco_pope_random.json", Path("val2014")))
        assert [item.id for item in benchmark.items] == ["random:1", "random:2"]
        assert benchmark.items[0].question == f"Is there a dog in the image?{SHORT}"
        assert benchmark.items[0].image == Path("val2014/COCO_1.jpg")

    def test_a_category_may_stand_in_the_lines(self, tmp_path: Path) -> None:
        lines = [pope_line(1, "yes", category="popular"), pope_line(2, "yes")]
        items = read_pope(source(write_lines(tmp_path / "mine.jsonl", lines))).items
        assert [item.metadata["category"] for item in items] == ["popular", "all"]

    def test_measures_by_category_and_their_mean(self, folder: Path) -> None:
        answers = {"random:1": "Yes", "random:2": "unknown", "adversarial:1": "Yes", "adversarial:2": "No"}
        scores = score(read_pope(source(folder)), answers)
        # Random: "unknown" counts as yes, so precision is 1/2, recall 1, F1 2/3; adversarial: all right.
        half = {"accuracy": 0.5, "precision": 0.5, "recall": 1, "f1": pytest.approx(2 / 3), "yes_ratio": 1}
        assert scores["random"] == {"items": 2, **half}
        assert scores["adversarial"] == {"items": 2, "accuracy": 1, "precision": 1, "recall": 1, "f1": 1, "yes_ratio": 0.5}
        assert scores["mean of categories"]["f1"] == pytest.approx(5 / 6)
        assert scores["mean of categories"]["items"] == 4

    def test_another_label_or_an_empty_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="no file with a name like coco_pope_random"):
            read_pope(source(tmp_path))
        path = write_lines(tmp_path / "coco_pope_random.json", [pope_line(1, "maybe")])
        with pytest.raises(DatasetError, match="line 1: the label is 'maybe'"):
            read_pope(source(path))

    def test_a_question_that_stands_twice_is_refused(self, tmp_path: Path) -> None:
        path = write_lines(tmp_path / "coco_pope_random.json", [pope_line(1, "yes"), pope_line(1, "no")])
        with pytest.raises(DatasetError, match="'random:1' stands there twice"):
            read_pope(source(path))


class TestTextVqa:
    ANSWERS = ("nokia",) * 6 + ("Nokia.",) + ("samsung",) * 2 + ("phone",)

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        data = [{"image_id": "a1", "question_id": 5, "question": "what BRAND is this?", "answers": list(self.ANSWERS)}]
        return write_json(tmp_path / "TextVQA_0.5.1_val.json", {"data": data})

    def test_the_question_begins_with_a_capital_and_goes_on_without(self, path: Path) -> None:
        (item,) = read_textvqa(source(path)).items
        assert item.question == f"What brand is this?{SHORT}"
        assert (item.id, item.question_id) == ("5", "a1")

    def test_ocr_tokens_stand_between_the_question_and_the_wish(self, path: Path, tmp_path: Path) -> None:
        ocr = write_json(tmp_path / "ocr.json", {"data": [{"image_id": "a1", "ocr_tokens": ["NOKIA", "5110"]}]})
        benchmark = read_textvqa(source(path, ocr=ocr))
        assert benchmark.items[0].question == f"What brand is this?\nReference OCR token: NOKIA, 5110{SHORT}"
        assert benchmark.notes == ()

    def test_a_reader_is_told_when_the_published_prompt_was_not_used(self, path: Path, tmp_path: Path) -> None:
        assert "without OCR tokens" in read_textvqa(source(path)).notes[0]
        ocr = write_json(tmp_path / "ocr.json", {"data": []})
        assert read_textvqa(source(path, ocr=ocr)).notes == ("questions without OCR tokens in ocr.json: 1",)

    def test_a_picture_may_be_a_png(self, path: Path, tmp_path: Path) -> None:
        assert read_textvqa(source(path)).items[0].image.name == "a1.jpg"
        write_picture(tmp_path / "a1.png")
        assert read_textvqa(source(path)).items[0].image.name == "a1.png"

    @pytest.mark.parametrize(
        ("answer", "value"),
        [
            ("Nokia", 1.0),  # seven agree after normalisation
            ("the samsung!", 0.6),  # two agree: (2 * 1/3 + 8 * 2/3) / 10
            ("phone", 0.3),  # one agrees: 9 * 1/3 / 10
            ("motorola", 0.0),
        ],
    )
    def test_soft_accuracy_by_hand(self, path: Path, answer: str, value: float) -> None:
        scores = score(read_textvqa(source(path)), {"5": answer})
        assert scores == {"all": {"items": 1, "accuracy": pytest.approx(value)}}

    def test_half_a_character_in_the_file_does_not_stop_the_run(self, tmp_path: Path) -> None:
        data = [{"image_id": "a1", "question": "what is \ud83d?", "answers": ["x"] * 10}]
        path = write_json(tmp_path / "val.json", {"data": data})
        assert read_textvqa(source(path)).items[0].question == f"What is ??{SHORT}"

    def test_nine_answers_are_refused(self, tmp_path: Path) -> None:
        data = [{"image_id": "a1", "question": "What?", "answers": ["x"] * 9}]
        with pytest.raises(DatasetError, match="9 answers, expected 10"):
            read_textvqa(source(write_json(tmp_path / "val.json", {"data": data})))

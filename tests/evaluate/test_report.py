"""The report: what a reader and a program get to know of a run."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mobilevlm_ros.evaluate.chart import SIDE
from mobilevlm_ros.evaluate.dataset import Answered, Grade, Item, Prediction, Task
from mobilevlm_ros.evaluate.drawing import ANSWER, RIGHT, WIDTH, annotate
from mobilevlm_ros.evaluate.formats.gqa import Gqa
from mobilevlm_ros.evaluate.formats.refcoco import RefCoco
from mobilevlm_ros.evaluate.report import plain, score_tables, to_markdown, worst, write_report
from mobilevlm_ros.evaluate.result import Result, dataset_facts, items_sha256, model_facts, summarize
from mobilevlm_ros.runtime.errors import ErrorCode
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.geometry import Box
from tests.evaluate.helpers import found, said, write_picture
from tests.fakes import manifest

SETTINGS = {"max_tokens": 128, "decoding": "greedy"}


@pytest.fixture
def benchmark(tmp_path: Path) -> Gqa:
    image = write_picture(tmp_path / "n1.png")
    metadata = {"structure": "query", "answer": "open"}
    items = [Item(id=str(n), image=image, question=f"What {n}?", references=("mug",), metadata=metadata) for n in range(4)]
    return Gqa(tuple(items), ("made_up",))


def outcome(benchmark: Gqa, texts: dict[str, str], failed: tuple[str, ...] = ()) -> tuple[Result, list[Answered]]:
    predictions = {item.id: said(item, texts[item.id]) for item in benchmark.items if item.id in texts}
    predictions |= {one: Prediction(id=one, error=ErrorCode.BAD_IMAGE, error_msg=f"{one}.png: gone") for one in failed}
    facts = dataset_facts(benchmark, "questions.json", len(benchmark.items))
    return summarize(benchmark, benchmark.items, predictions, facts, model_facts(manifest()), SETTINGS)


def test_a_result_says_what_was_asked_of_which_model_and_how(benchmark: Gqa) -> None:
    result, _ = outcome(benchmark, dict.fromkeys("0123", "mug"))
    content = json.loads(result.to_json())
    assert content["complete"] is True
    assert content["scores"]["all"] == {"items": 4, "accuracy": 1}
    assert content["model"]["name"] == "fake"
    assert set(content["model"]) >= {"weights_sha256", "vision_precision", "decoder_precision", "box_frame"}
    assert content["dataset"]["annotations"] == "questions.json"
    assert content["settings"] == SETTINGS


def test_only_answered_items_are_scored_and_the_others_are_listed(benchmark: Gqa) -> None:
    result, answered = outcome(benchmark, {"0": "mug", "1": "cup"}, failed=("2",))
    assert (result.answered, len(answered), result.complete) == (2, 2, False)
    assert result.scores["all"] == {"items": 2, "accuracy": 0.5}
    assert [(error.id, error.code, error.message) for error in result.errors] == [("2", "BAD_IMAGE", "2.png: gone")]
    text = to_markdown(result)
    assert "Not the whole dataset" in text
    assert "| 2 | BAD_IMAGE | 2.png: gone |" in text


def test_answers_of_the_longest_allowed_length_are_counted(benchmark: Gqa) -> None:
    items = benchmark.items
    predictions = {one.id: replace(said(one, "mug"), answer_tokens=length) for one, length in zip(items, (128, 127, 3, 128))}
    facts = dataset_facts(benchmark, "q.json", 4)
    result, _ = summarize(benchmark, items, predictions, facts, model_facts(manifest()), SETTINGS)
    assert result.cut_off == 2
    assert "2 answers reached the longest allowed length" in to_markdown(result)


def test_nothing_answered_is_a_report_without_scores(benchmark: Gqa) -> None:
    result, _ = outcome(benchmark, {}, failed=("0", "1", "2", "3"))
    assert result.scores == {}
    assert "There are no answers to score." in to_markdown(result)


def test_the_digest_covers_words_and_truth_but_not_the_folders(benchmark: Gqa) -> None:
    first = benchmark.items[0]
    digest = items_sha256([first])
    assert items_sha256([replace(first, image=Path("elsewhere") / first.image.name)]) == digest
    changed = ({"question": "Why?"}, {"references": ("cup",)}, {"box": Box(0, 0, 1, 1)}, {"several": ()}, {"absent": True})
    for other in (replace(first, **change) for change in changed):
        assert items_sha256([other]) != digest


def test_the_worst_come_first_and_of_those_the_surest() -> None:
    def graded(name: str, value: float, confidence: float) -> Answered:
        item = Item(id=name, image=Path(), question="")
        return Answered(item, said(item, "", confidence), Grade(value, "", ""))

    answers = [graded("right", 1, 1), graded("half", 0.5, 1), graded("unsure", 0, 0.2), graded("sure", 0, 0.9)]
    assert [one.item.id for one in worst(answers, 3)] == ["sure", "unsure", "half"]
    assert [one.item.id for one in worst(answers, 1)] == ["sure"]


def test_groups_with_the_same_measures_share_a_table() -> None:
    scores = {"a": {"items": 3.0, "accuracy": 0.25}, "b": {"items": 1.0, "accuracy": 1.0}, "c": {"score": 125.04}}
    assert score_tables(scores) == [
        (["", "items", "accuracy"], [["a", "3", "0.2500"], ["b", "1", "1.0000"]]),
        (["", "score"], [["c", "125.0"]]),
    ]


def test_a_written_report_has_its_pictures_beside_it(benchmark: Gqa, tmp_path: Path) -> None:
    result, answered = outcome(benchmark, {"0": "mug", "1": "cup", "2": "a | b", "3": "mug"})
    report = write_report(tmp_path, result, answered, misses=5)
    text = report.read_text()
    pictures = re.findall(r"!\[\]\((.+)\)", text)
    assert pictures == ["misses/001.jpg", "misses/002.jpg"]
    for name in pictures:
        with Image.open(tmp_path / name) as image:
            assert image.width == WIDTH
    assert "| all | 4 | 0.5000 |" in text
    assert "59.3" in text  # GQA of MobileVLM_V2-1.7B as published
    assert json.loads((tmp_path / "result.json").read_text())["answered"] == 4


def test_a_report_written_again_keeps_no_old_pictures(benchmark: Gqa, tmp_path: Path) -> None:
    write_report(tmp_path, *outcome(benchmark, dict.fromkeys("0123", "cup")), misses=4)
    write_report(tmp_path, *outcome(benchmark, dict.fromkeys("0123", "mug")), misses=4)
    assert list((tmp_path / "misses").iterdir()) == []


def test_scores_that_claim_to_be_probabilities_are_drawn_beside_the_report(tmp_path: Path) -> None:
    item = Item(
        id="0", image=write_picture(tmp_path / "1.png", 100, 100), question="mug", task=Task.GROUND, box=Box(0, 0, 50, 50)
    )
    benchmark = RefCoco((item,), ())
    facts = dataset_facts(benchmark, "a.jsonl", 1)
    predictions = {"0": found(item, Box(0, 0, 50, 50), 0.93)}
    report = write_report(tmp_path, *summarize(benchmark, (item,), predictions, facts, model_facts(manifest()), SETTINGS), 0)
    assert "![](reliability.png)" in report.read_text()
    assert "| score 0.9 to 1.0 | 1 | 0.9300 | 1.0000 |" in report.read_text()
    with Image.open(tmp_path / "reliability.png") as image:
        assert image.width > SIDE


def test_without_scores_there_is_no_curve(benchmark: Gqa, tmp_path: Path) -> None:
    report = write_report(tmp_path, *outcome(benchmark, dict.fromkeys("0123", "mug")), misses=0)
    assert "reliability" not in report.read_text()
    assert not (tmp_path / "reliability.png").exists()


@given(st.text())
def test_foreign_text_can_do_nothing_in_the_report(text: str) -> None:
    shown = plain(text)
    assert "\n" not in shown
    assert "<" not in shown
    assert not re.search(r"(?<!\\)(\\\\)*[|`\[\]*_!#]", shown)


def test_long_text_is_shortened() -> None:
    assert plain("x" * 500) == "x" * 157 + "..."


class TestDrawing:
    FRAME = Frame(np.full((60, 120, 3), 90, np.uint8))

    def colors(self, right: tuple[Box, ...], boxes: tuple[Box, ...]) -> set[tuple[int, ...]]:
        image = annotate(self.FRAME, right, boxes, [])
        found = image.getcolors(1 << 20)
        assert found is not None
        return {color for _, color in found if isinstance(color, tuple)}

    def test_the_right_box_is_green_and_the_answers_red(self) -> None:
        assert {RIGHT, ANSWER} <= self.colors((Box(10, 10, 50, 50),), (Box(60, 10, 100, 50),))

    def test_without_boxes_there_is_neither(self) -> None:
        assert not {RIGHT, ANSWER} & self.colors((), ())

    @pytest.mark.parametrize("box", [Box(50, 50, 10, 10), Box(500, 500, 900, 900), Box(5, 5, 5, 9), Box(float("nan"), 0, 1, 1)])
    def test_a_box_that_covers_nothing_of_the_picture_is_not_drawn(self, box: Box) -> None:
        assert ANSWER not in self.colors((), (box,))

    def test_a_box_that_reaches_outside_is_cut_off(self) -> None:
        assert ANSWER in self.colors((), (Box(-1e9, -1e9, 60, 30),))

    @given(st.text(max_size=80))
    def test_any_words_can_stand_below(self, text: str) -> None:
        assert annotate(self.FRAME, (), (), [text]).height >= WIDTH // 2

"""The file of answers: what makes a run resumable."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.evaluate.dataset import Prediction, ScoredBox
from mobilevlm_ros.evaluate.errors import DatasetError
from mobilevlm_ros.evaluate.predictions import PredictionFile, from_line, to_line
from mobilevlm_ros.runtime.errors import ErrorCode
from mobilevlm_ros.runtime.geometry import Box

RUN = {"benchmark": "gqa", "model name": "nano"}
ANSWER = Prediction(id="1", question_id="q1", prompt="What?", text="a mug", confidence=0.5)
NUMBERS = st.floats(-1e4, 1e4)
BOXES = st.builds(Box, NUMBERS, NUMBERS, NUMBERS, NUMBERS)


@given(st.text(), st.text(), st.lists(st.builds(ScoredBox, BOXES, NUMBERS), max_size=3), st.none() | BOXES)
def test_a_prediction_written_is_the_prediction_read_on_one_line(
    identity: str, text: str, boxes: list[ScoredBox], forced: Box | None
) -> None:
    prediction = replace(ANSWER, id=identity, text=text, boxes=tuple(boxes), forced_box=forced, error=ErrorCode.BAD_IMAGE)
    line = to_line(prediction)
    assert "\n" not in line
    assert from_line(line) == prediction


def test_a_line_has_the_names_of_llavas_answer_files() -> None:
    line = json.loads(to_line(ANSWER))
    assert (line["question_id"], line["prompt"], line["text"]) == ("q1", "What?", "a mug")


def test_answers_are_there_when_the_folder_is_opened_again(tmp_path: Path) -> None:
    with PredictionFile(tmp_path / "out", RUN) as predictions:
        predictions.add(ANSWER)
    with PredictionFile(tmp_path / "out", RUN) as predictions:
        assert predictions.done == {"1": ANSWER}
        assert predictions.answered("1")
        assert not predictions.answered("2")


def test_an_error_is_asked_again_and_the_later_line_counts(tmp_path: Path) -> None:
    with PredictionFile(tmp_path, RUN) as predictions:
        predictions.add(replace(ANSWER, error=ErrorCode.BAD_IMAGE))
        assert not predictions.answered("1")
        predictions.add(ANSWER)
    with PredictionFile(tmp_path, RUN) as predictions:
        assert predictions.answered("1")


@pytest.mark.parametrize("kept", [0, 1, 20])
def test_a_line_that_was_cut_off_is_dropped_and_the_next_begins_on_its_own(tmp_path: Path, kept: int) -> None:
    with PredictionFile(tmp_path, RUN) as predictions:
        predictions.add(ANSWER)
        path = predictions.path
    path.write_bytes(path.read_bytes() + to_line(replace(ANSWER, id="2")).encode()[:kept])
    with PredictionFile(tmp_path, RUN) as predictions:
        assert list(predictions.done) == ["1"]
        predictions.add(replace(ANSWER, id="3"))
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["1", "3"]


def test_text_with_strange_line_ends_stays_on_its_line(tmp_path: Path) -> None:
    strange = replace(ANSWER, text="one\u2028two\x85three\rfour")
    with PredictionFile(tmp_path, RUN) as predictions:
        predictions.add(strange)
    with PredictionFile(tmp_path, RUN) as predictions:
        assert predictions.done == {"1": strange}


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    with PredictionFile(tmp_path, RUN) as predictions:
        predictions.add(ANSWER)
        path = predictions.path
    path.write_bytes(b"{}\n" + path.read_bytes())
    with pytest.raises(DatasetError, match="line 1: not a prediction"):
        PredictionFile(tmp_path, RUN)


def test_a_folder_with_another_runs_answers_is_refused_and_says_what_differs(tmp_path: Path) -> None:
    with PredictionFile(tmp_path, RUN):
        pass
    with pytest.raises(DatasetError, match=r"model name 'nano', now 'V2-1.7B'.*choose another --out"):
        PredictionFile(tmp_path, RUN | {"model name": "V2-1.7B"})


def test_answers_of_nobody_knows_what_are_refused(tmp_path: Path) -> None:
    (tmp_path / "predictions.jsonl").write_text("")
    with pytest.raises(DatasetError, match=r"without its run\.json"):
        PredictionFile(tmp_path, RUN)


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="cannot be used for results"):
        PredictionFile(tmp_path / "file" / "out", RUN)

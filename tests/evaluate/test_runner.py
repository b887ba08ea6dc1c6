"""Asking a benchmark's items: together, once each, whatever goes wrong with one of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from mobilevlm_ros.evaluate.dataset import Fit, Item, Prediction, Task
from mobilevlm_ros.evaluate.pictures import load_picture
from mobilevlm_ros.evaluate.predictions import PredictionFile
from mobilevlm_ros.evaluate.runner import RunOptions, predict, run_items
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.geometry import Box
from mobilevlm_ros.runtime.requests import CancelToken
from tests.evaluate.helpers import write_picture
from tests.evaluate.oracle import Oracle

OPTIONS = RunOptions(rows=3, max_tokens=32)
PRESENCE = "Is there {} in the image? Answer the question using a single word or phrase."
BOX = "Please provide the bounding box coordinate of the region this sentence describes: {}."


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return write_picture(tmp_path / "1.png", 80, 40)


@pytest.fixture
def oracle(picture: Path) -> Oracle:
    oracle = Oracle()
    for number in range(12):
        oracle.tell(picture, f"What is {number}?", f"the answer {number}")
    return oracle


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "out"


def questions(picture: Path, count: int = 12) -> list[Item]:
    return [Item(id=str(number), image=picture, question=f"What is {number}?") for number in range(count)]


def run(oracle: Oracle, items: list[Item], folder: Path, on: Callable[[Prediction], None] | None = None) -> PredictionFile:
    with oracle.engine(OPTIONS.rows) as engine, PredictionFile(folder, {}) as predictions:
        run_items(engine, items, OPTIONS, predictions, on)
    return predictions


def test_every_item_gets_its_own_answer(oracle: Oracle, picture: Path, results: Path) -> None:
    seen: list[str] = []
    done = run(oracle, questions(picture), results, lambda prediction: seen.append(prediction.id)).done
    assert {identity: one.text for identity, one in done.items()} == {str(n): f"the answer {n}" for n in range(12)}
    assert sorted(seen) == sorted(done)
    one = done["7"]
    assert (one.prompt, one.width, one.height, one.error) == ("What is 7?", 80, 40, ErrorCode.NONE)
    assert one.answer_tokens == len("the answer 7")
    assert one.milliseconds > 0
    assert 0.9 < one.confidence <= 1


def test_items_decode_as_one_batch(oracle: Oracle, picture: Path, results: Path) -> None:
    run(oracle, questions(picture), results)
    assert max(oracle.backend.batches) == OPTIONS.rows


def test_what_was_answered_is_not_asked_again(oracle: Oracle, picture: Path, results: Path) -> None:
    items = questions(picture)
    run(oracle, items[:5], results)
    prefilled = len(oracle.backend.prefilled)
    seen: list[str] = []
    done = run(oracle, items, results, lambda prediction: seen.append(prediction.id)).done
    assert sorted(seen, key=int) == [str(number) for number in range(5, 12)]
    assert len(done) == 12
    run(oracle, items, results)
    assert len(oracle.backend.prefilled) > prefilled  # the seven were asked, and then nothing more
    assert len((results / "predictions.jsonl").read_text().splitlines()) == 12


@pytest.mark.parametrize("content", [None, b"", b"not a picture"])
def test_a_broken_picture_is_that_items_error_and_the_run_goes_on(
    oracle: Oracle, picture: Path, results: Path, content: bytes | None
) -> None:
    broken = picture.parent / "broken.png"
    if content is not None:
        broken.write_bytes(content)
    items = [Item(id="broken", image=broken, question="What?"), *questions(picture, 3)]
    done = run(oracle, items, results).done
    assert done["broken"].error is ErrorCode.BAD_IMAGE
    assert "broken.png" in done["broken"].error_msg
    assert [done[str(number)].error for number in range(3)] == [ErrorCode.NONE] * 3


def test_a_picture_that_breaks_off_is_that_items_error(oracle: Oracle, picture: Path, results: Path) -> None:
    whole = write_picture(picture.parent / "whole.jpg", 200, 200).read_bytes()
    (picture.parent / "half.jpg").write_bytes(whole[: len(whole) // 2])
    done = run(oracle, [Item(id="half", image=picture.parent / "half.jpg", question="What?")], results).done
    assert done["half"].error is ErrorCode.BAD_IMAGE


def test_a_prompt_that_is_too_long_is_that_items_error(oracle: Oracle, picture: Path, results: Path) -> None:
    done = run(oracle, [Item(id="long", image=picture, question="x" * 3000)], results).done
    assert done["long"].error is ErrorCode.PROMPT_TOO_LONG


def test_a_failing_model_is_the_items_error_and_the_next_are_asked(oracle: Oracle, picture: Path, results: Path) -> None:
    oracle.backend.error = RuntimeError("out of luck")
    done = run(oracle, questions(picture, 3), results).done
    assert sorted(one.error.name for one in done.values()) == ["MODEL_ERROR", "NONE", "NONE"]


def test_an_interrupted_run_leaves_whole_lines_and_can_go_on(oracle: Oracle, picture: Path, results: Path) -> None:
    def interrupt(prediction: Prediction) -> None:
        if len(seen) == 4:
            raise KeyboardInterrupt
        seen.append(prediction.id)

    seen: list[str] = []
    items = questions(picture)
    with pytest.raises(KeyboardInterrupt):
        run(oracle, items, results, interrupt)
    content = (results / "predictions.jsonl").read_text()
    assert content.endswith("}\n")
    assert len(content.splitlines()) == 5
    assert len(run(oracle, items, results).done) == 12


def test_an_interrupt_does_not_wait_for_long_answers(picture: Path, results: Path) -> None:
    oracle = Oracle()
    oracle.tell(picture, "Short?", "yes")
    oracle.tell(picture, "Long?", "word " * 300)
    items = [Item(id="short", image=picture, question="Short?")]
    items += [Item(id=str(number), image=picture, question="Long?") for number in range(2)]

    def interrupt(prediction: Prediction) -> None:
        oracle.backend.gate.clear()  # nothing more is decoded until the answers have been taken back
        threading.Timer(0.2, oracle.backend.gate.set).start()
        raise KeyboardInterrupt

    with (
        oracle.engine() as engine,
        PredictionFile(results, {}) as predictions,
        pytest.raises(KeyboardInterrupt),
    ):
        run_items(engine, items, RunOptions(3, 1500), predictions, interrupt)
    assert list(predictions.done) == ["short"]


def test_a_closed_engine_is_not_the_items_fault(oracle: Oracle, picture: Path, results: Path) -> None:
    engine = oracle.engine()
    engine.close()
    with PredictionFile(results, {}) as predictions, pytest.raises(VlmError) as ended:
        run_items(engine, questions(picture, 2), OPTIONS, predictions)
    assert ended.value.code is ErrorCode.NOT_ACTIVE
    assert predictions.done == {}


class TestGrounding:
    ITEM = Item(id="1", image=Path(), question="the red mug", task=Task.GROUND, box=Box(20, 0, 40, 40))

    def predict(self, oracle: Oracle, picture: Path, absent: bool = False) -> Prediction:
        item = Item(id="1", image=picture, question="the red mug", task=Task.GROUND, box=self.ITEM.box, absent=absent)
        with oracle.engine() as engine:
            return predict(engine, item, 64, CancelToken())

    def test_a_box_is_in_source_pixels_with_its_score(self, picture: Path) -> None:
        oracle = Oracle()
        oracle.tell(picture, PRESENCE.format("a red mug"), "yes")
        oracle.tell(picture, BOX.format("the red mug"), "[0.25, 0.25, 0.50, 0.75]")
        found = self.predict(oracle, picture)
        # 80 x 40 stands in a square of 80 with 20 rows above: [20, 20, 40, 60] there is [20, 0, 40, 40] here.
        assert found.forced_box == Box(20, 0, 40, 40)
        assert [scored.box for scored in found.boxes] == [found.forced_box]
        assert 0.9 < found.boxes[0].score <= 1

    def test_a_thing_taken_for_absent_is_asked_for_all_the_same_but_serves_no_box(self, picture: Path) -> None:
        oracle = Oracle()
        oracle.tell(picture, PRESENCE.format("a red mug"), "no")
        oracle.tell(picture, BOX.format("the red mug"), "[0.25, 0.25, 0.50, 0.75]")
        found = self.predict(oracle, picture)
        assert (found.boxes, found.forced_box, found.error) == ((), Box(20, 0, 40, 40), ErrorCode.NONE)

    def test_an_absent_thing_is_not_asked_for_when_it_is_taken_for_absent(self, picture: Path) -> None:
        oracle = Oracle()
        oracle.tell(picture, PRESENCE.format("a red mug"), "no")
        found = self.predict(oracle, picture, absent=True)
        assert (found.boxes, found.forced_box, found.text) == ((), None, "")

    def test_a_box_outside_the_picture_is_none(self, picture: Path) -> None:
        oracle = Oracle()
        oracle.tell(picture, PRESENCE.format("a red mug"), "yes")
        oracle.tell(picture, BOX.format("the red mug"), "[0.10, 0.01, 0.90, 0.11]")
        found = self.predict(oracle, picture)
        assert (found.boxes, found.forced_box, found.error) == ((), None, ErrorCode.NONE)
        assert found.text == "[0.10, 0.01, 0.90, 0.11]"


def test_a_centre_crop_keeps_the_middle_of_the_long_side(tmp_path: Path) -> None:
    wide = load_picture(write_picture(tmp_path / "wide.png", 81, 40), Fit.CENTRE_CROP)
    tall = load_picture(write_picture(tmp_path / "tall.png", 30, 50), Fit.CENTRE_CROP)
    assert (wide.width, wide.height, tall.width, tall.height) == (40, 40, 30, 30)
    assert load_picture(tmp_path / "wide.png").width == 81


def test_pixels_are_taken_as_stored_because_the_boxes_were_drawn_on_them(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be shown turned by a quarter
    Image.new("RGB", (40, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert load_picture(tmp_path / "turned.jpg").width == 40


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_pictures_of_every_kind_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / f"picture.{'tif' if mode == 'CMYK' else 'png'}"
    Image.new(mode, (8, 6)).save(path)
    assert load_picture(path).pixels.shape == (6, 8, 3)

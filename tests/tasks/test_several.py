"""Several things for one expression: one after the other is found, taken out of the picture, and asked for again."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest

from mobilevlm_ros.runtime.errors import BackendError, ErrorCode, VlmError
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.geometry import Box, Letterbox, letterbox
from mobilevlm_ros.runtime.manifest import BoxFrame
from mobilevlm_ros.runtime.requests import CancelToken
from mobilevlm_ros.tasks import Settings, ground
from mobilevlm_ros.tasks.boxes import format_box
from mobilevlm_ros.tasks.ground import MOST_REGIONS
from mobilevlm_ros.tasks.masking import without
from tests.fakes import EOS, ByteTokenizer, FakeBackend, fake_engine, manifest, reply

SIZE = 80
TABLE, RED = (150, 130, 100), (200, 30, 30)
MUGS = (Box(8, 8, 24, 24), Box(48, 8, 64, 24), Box(8, 48, 24, 72))
BOXES = [format_box(Letterbox(SIZE, SIZE).to_model(mug, BoxFrame.PADDED_SQUARE)) for mug in MUGS]


def table(*mugs: Box) -> Frame:
    pixels = np.full((SIZE, SIZE, 3), TABLE, np.uint8)
    for mug in mugs:
        pixels[int(mug.y1) : int(mug.y2), int(mug.x1) : int(mug.x2)] = RED
    return Frame(pixels)


class Pointing(FakeBackend):
    """Says yes where there is a red mug in the picture it is shown, and points at the first that is left."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.left: dict[int, int] = {}
        self.asked: list[str] = []
        view, vision = table(*MUGS), manifest().vision
        for count in range(len(MUGS) + 1):
            shown = letterbox(view, vision.image_size, vision.pad_color)
            self.left[1000 + zlib.crc32(shown.tobytes()) % 1000] = count
            view = without(view, MUGS[count]) if count < len(MUGS) else view

    def _answer(self, context: tuple[float, ...]) -> int:
        prompt = ByteTokenizer().decode([int(value) for value in context if value < 300])
        gone = self.left.get(next((int(value) for value in context if value >= 1000), 0), len(MUGS))
        if prompt.endswith("ASSISTANT:"):
            self.asked.append(prompt.partition("\n")[2].partition(" ASSISTANT:")[0])
        if "Is there a red mug in" in prompt:
            return reply("yes" if gone < len(MUGS) else "no")(context)
        if "describes: the red mug." in prompt and gone < len(MUGS):
            return reply(BOXES[gone])(context)
        return EOS


@pytest.mark.parametrize(
    ("expression", "max_regions", "count"),
    [
        ("the red mugs", 0, 3),
        ("all red mugs", 0, 3),
        ("two red mugs", 0, 2),
        ("the red mugs", 2, 2),
        ("the red mug", 0, 1),
        ("the red mug", 1, 1),
        ("the red mug", 5, 3),
    ],
)
def test_as_many_come_back_as_there_are_and_as_are_wanted(expression: str, max_regions: int, count: int) -> None:
    with fake_engine(Pointing()) as engine:
        found = ground(engine, table(*MUGS), expression, max_regions=max_regions)
    assert found.error is ErrorCode.NONE
    assert {region.box for region in found.regions} == set(MUGS[:count])
    assert {region.phrase for region in found.regions} == {"the red mug"}
    assert [region.score for region in found.regions] == sorted((region.score for region in found.regions), reverse=True)
    assert found.text.splitlines() == BOXES[:count]
    assert found.expression == expression


def test_one_thing_is_asked_for_once_and_in_the_words_that_were_given() -> None:
    backend = Pointing()
    with fake_engine(backend) as engine:
        ground(engine, table(*MUGS), "the red mug")
    assert len(set(backend.asked)) == 2  # is it there, and where
    assert backend.calls.count("encode") == 1


def test_several_things_none_of_which_is_there_are_no_grounding() -> None:
    with fake_engine(Pointing()) as engine:
        found = ground(engine, table(), "the red mugs")
    assert (found.error, found.regions) == (ErrorCode.NO_GROUNDING, ())
    assert "a red mug" in found.error_msg
    assert found.confidence == pytest.approx(1 - found.presence)


def test_a_model_that_points_at_the_same_place_again_is_not_asked_for_ever() -> None:
    def stubborn(context: tuple[float, ...]) -> int:
        prompt = ByteTokenizer().decode([int(value) for value in context if value < 300])
        return reply("yes" if "Is there" in prompt else BOXES[0])(context)

    backend = FakeBackend(stubborn)
    with fake_engine(backend) as engine:
        found = ground(engine, table(*MUGS), "the red mugs")
    assert [region.box for region in found.regions] == [MUGS[0]]
    assert found.error is ErrorCode.NONE
    assert backend.calls.count("encode") == 2


@pytest.mark.parametrize("max_regions", [-1, MOST_REGIONS + 1])
def test_a_number_of_regions_that_makes_no_sense_is_a_bad_request(max_regions: int) -> None:
    with fake_engine() as engine, pytest.raises(VlmError) as refused:
        ground(engine, table(), "the red mugs", max_regions=max_regions)
    assert refused.value.code is ErrorCode.BAD_REQUEST


class Ending(Pointing):
    """Does something when it looks at the second picture."""

    def __init__(self, action: Callable[[], None]) -> None:
        super().__init__()
        self.action = action

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        if self.calls.count("encode") == 1:
            self.action()
        return super().encode(pixels)


def test_a_request_that_is_taken_back_keeps_what_was_found() -> None:
    cancel = CancelToken()
    with fake_engine(Ending(cancel.cancel)) as engine:
        found = ground(engine, table(*MUGS), "the red mugs", Settings(cancel=cancel))
    assert found.error is ErrorCode.CANCELLED
    assert [region.box for region in found.regions] == [MUGS[0]]


def test_a_deadline_holds_for_all_of_them_together() -> None:
    with fake_engine(Ending(lambda: time.sleep(2))) as engine:
        found = ground(engine, table(*MUGS), "the red mugs", Settings(timeout=2))
    assert (found.error, len(found.regions)) == (ErrorCode.DEADLINE_EXCEEDED, 1)


def test_a_failure_after_the_first_keeps_what_was_found() -> None:
    def fail() -> None:
        raise BackendError("the model fell over")

    with fake_engine(Ending(fail)) as engine:
        found = ground(engine, table(*MUGS), "the red mugs")
    assert (found.error, len(found.regions)) == (ErrorCode.MODEL_ERROR, 1)
    assert "fell over" in found.error_msg

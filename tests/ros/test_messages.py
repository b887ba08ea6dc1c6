"""Typed results and errors to messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="needs ROS 2")

from mobilevlm_msgs.msg import Box2D, Timing
from std_msgs.msg import Header

from mobilevlm_ros.ros.messages import Outcome, Source, answer_message, box_message, box_of, duration, regions_message, seconds
from mobilevlm_ros.runtime.errors import ErrorCode
from mobilevlm_ros.runtime.geometry import Box
from mobilevlm_ros.tasks import Settings
from tests.ros.fakes import FakeModel, answer, snapshot

SOURCE = Source(Header(frame_id="optical"), "front", "nano", 640, 480)


def test_an_answer_keeps_everything_that_is_known() -> None:
    message = answer_message(Outcome.of(answer("What?", "That."), SOURCE), "What?")
    assert (message.question, message.text, message.error_code, message.error_msg) == ("What?", "That.", 0, "")
    info = message.info
    assert (info.header.frame_id, info.camera, info.model) == ("optical", "front", "nano")
    assert (info.confidence, info.prompt_tokens, info.answer_tokens) == (0.75, 150, 3)
    assert info.timing == Timing(queue_ms=1.0, encode_ms=2.0, prefill_ms=3.0, decode_ms=4.0)


def test_an_answer_that_ended_on_its_way_carries_its_text_and_its_code() -> None:
    message = answer_message(Outcome.of(answer("What?", "Tha", ErrorCode.CANCELLED), SOURCE), "What?")
    assert (message.text, message.error_code) == ("Tha", ErrorCode.CANCELLED)


def test_an_error_alone_is_a_message_too() -> None:
    message = answer_message(Outcome(None, ErrorCode.NO_IMAGE, "none yet"), "What?")
    assert (message.question, message.text, message.error_code, message.error_msg) == ("What?", "", 1, "none yet")
    assert message.info.answer_tokens == 0


def test_regions_carry_boxes_in_pixels_and_shares_and_the_size_of_their_picture() -> None:
    grounding = FakeModel().ground(snapshot().frame, "the mug", Settings(), 0)
    message = regions_message(Outcome.of(grounding, SOURCE), "the mug")
    assert (message.expression, message.image_width, message.image_height) == ("the mug", 640, 480)
    assert message.text == "[0.10, 0.20, 0.30, 0.40]"
    (region,) = message.regions
    assert (region.phrase, region.box, region.has_position) == ("the mug", Box2D(x1=1.0, y1=2.0, x2=3.0, y2=4.0), False)
    assert region.score == pytest.approx(0.9)
    assert region.box_normalized.x2 == pytest.approx(0.3)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=4, max_size=4))
def test_a_box_goes_there_and_back(corners: list[float]) -> None:
    assert box_of(box_message(Box(*corners))) == Box(*corners)


@given(st.floats(0.0, 1e9))
def test_a_duration_goes_there_and_back(value: float) -> None:
    message = duration(value)
    assert 0 <= message.nanosec < 1_000_000_000
    assert seconds(message) == pytest.approx(value, abs=1e-6)

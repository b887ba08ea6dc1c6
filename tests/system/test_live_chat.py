"""A conversation with the shipped model about the demo's recording: it follows the live camera, or stays with its picture."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rclpy.node import Node

from mobilevlm_ros.client import VLM, Conversation, FramePolicy
from tests.recordings import bag_pictures
from tests.system.graph import Camera, Served, serving, until

NAME = "live_chat_vlm"
QUESTION = "What is on the table?"
ORANGE, GREEN = 0, 33  # pictures of the recording, by their ball's colour


@pytest.fixture(scope="module")
def served(tester: Node, nano_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tester, NAME, tmp_path_factory.mktemp("live_chat"), model=nano_package) as served:
        yield served


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return bag_pictures()


def show(camera: Camera, vlm: VLM, picture: np.ndarray) -> None:
    """Shows a picture until the node has it."""

    def is_seen() -> bool:
        header = camera.show(picture)
        time.sleep(0.05)
        return bool(vlm.ask("Is somebody there?", max_tokens=1).header == header)

    until(is_seen)


def test_each_turn_is_about_the_scene_as_it_is_then(vlm: VLM, camera: Camera, pictures: list[np.ndarray]) -> None:
    talk = Conversation(vlm)
    for turns, (number, thing) in enumerate([(ORANGE, "orange ball"), (GREEN, "green ball"), (ORANGE, "orange ball")]):
        show(camera, vlm, pictures[number])
        stream = talk.say(QUESTION)
        assert thing in stream.text()
        assert stream.turns == turns


def test_a_turn_can_wait_for_the_next_picture(vlm: VLM, camera: Camera, pictures: list[np.ndarray]) -> None:
    show(camera, vlm, pictures[ORANGE])
    talk = Conversation(vlm, frame_policy=FramePolicy.NEXT)
    with camera.streaming(pixels=pictures[GREEN]):
        assert "green ball" in talk.say(QUESTION).text()


def test_a_conversation_stays_with_its_picture_where_it_is_told_to(vlm: VLM, camera: Camera, pictures: list[np.ndarray]) -> None:
    talk = Conversation(vlm, frame_policy=FramePolicy.SAME)
    show(camera, vlm, pictures[ORANGE])
    assert "orange ball" in talk.say(QUESTION).text()
    show(camera, vlm, pictures[GREEN])
    assert talk.say("What color is the ball?").text() == "Orange"
    assert "orange ball" in talk.say(QUESTION).text()
    assert "green ball" in talk.say(QUESTION, frame_policy=FramePolicy.NEWEST).text()

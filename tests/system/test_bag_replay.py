"""The demo's recording replayed into the node: the nano model's answers, word for word, over real DDS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from mobilevlm_ros.client import VLM
from mobilevlm_ros.demo import truth
from mobilevlm_ros.demo.player import read, restamped
from mobilevlm_ros.demo.run import BAG
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from tests.system.graph import PATIENCE, Camera, Process, running_node, until
from tests.system.nano_answers import EXPECTED, LABELS, boxes

NAME = "replay_vlm"


@pytest.fixture(scope="module")
def node(nano_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    log = tmp_path_factory.mktemp("replay") / "node.log"
    with running_node(
        NAME, log, ["image:=/recorded/image_raw"], model=nano_package, max_image_age=1000.0, diagnostics_period=0.1
    ) as process:
        yield process


class Replay:
    """Shows the recording's pictures one at a time."""

    def __init__(self, tester: Node, vlm: VLM) -> None:
        self._camera = Camera(tester, "/recorded/image_raw/compressed", CompressedImage)
        self._vlm = vlm
        self._pictures = {message.picture: message.cdr for message in read(BAG)}
        self._shown = -1

    def show(self, number: int) -> None:
        """Makes a picture the node's newest one."""
        if number == self._shown:
            return

        def seen() -> bool:
            header = self._camera.header()
            stamp = header.stamp.sec * 1_000_000_000 + header.stamp.nanosec
            self._camera.publisher.publish(restamped(self._pictures[number], stamp))
            return self._newest() == header

        until(seen)
        self._shown = number

    def _newest(self) -> Header | None:
        try:
            header: Header = self._vlm.ask("Is there a ball?", max_tokens=1).info.header
        except VlmError as error:
            assert error.code in (ErrorCode.NO_IMAGE, ErrorCode.NOT_ACTIVE), error
            return None
        header.frame_id = "optical"
        return header


@pytest.fixture(scope="module")
def vlm(tester: Node, node: Process) -> VLM:
    return VLM(tester, NAME, connect_timeout=PATIENCE)


@pytest.fixture(scope="module")
def replay(tester: Node, vlm: VLM) -> Replay:
    return Replay(tester, vlm)


@pytest.fixture(scope="module")
def recording() -> truth.Recording:
    return truth.read(BAG.with_suffix(".json"))


CASES: list[dict[str, Any]] = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else []


def _answer(vlm: VLM, recording: truth.Recording, case: dict[str, Any]) -> Any:
    if case["kind"] == "ask":
        return vlm.ask(case["text"]).text
    if case["kind"] == "classify":
        return vlm.classify(case["text"], LABELS).label
    if case["kind"] == "describe":
        box = recording.pictures[case["picture"]].box_of(case["text"])
        assert box
        return vlm.describe((box.x1, box.y1, box.x2, box.y2)).text
    try:
        return boxes([region.box for region in vlm.ground(case["text"]).regions])
    except VlmError as error:
        assert error.code is ErrorCode.NO_GROUNDING
        return []


@pytest.mark.parametrize("picture", sorted({case["picture"] for case in CASES}))
def test_every_answer_about_a_picture_is_the_one_that_the_model_gives_without_ros(
    vlm: VLM, replay: Replay, recording: truth.Recording, picture: int
) -> None:
    replay.show(picture)
    for case in (case for case in CASES if case["picture"] == picture):
        assert _answer(vlm, recording, case) == case["answer"], case


def test_streamed_words_are_those_of_the_answer_at_once(vlm: VLM, replay: Replay) -> None:
    replay.show(CASES[0]["picture"])
    stream = vlm.chat("What is on the table?")
    assert "".join(stream).strip() == vlm.ask("What is on the table?").text


@pytest.mark.usefixtures("nano_package")
def test_most_of_the_expected_boxes_are_right(recording: truth.Recording) -> None:
    grounded = [case for case in CASES if case["kind"] == "ground"]
    assert len(grounded) > 20
    right = 0
    for case in grounded:
        true = recording.pictures[case["picture"]].box_of(case["text"].removeprefix("the "))
        assert true
        right += any(truth.points_at(truth.Box(*box), true) for box in case["answer"])
    assert right >= 0.6 * len(grounded)

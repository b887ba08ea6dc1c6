"""The recording: written from pictures, and played with new stamps."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

pytest.importorskip("rclpy", reason="needs ROS 2")

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from mobilevlm_ros.demo import truth
from mobilevlm_ros.demo.player import Recorded, read, restamped, schedule
from mobilevlm_ros.demo.record import record
from mobilevlm_ros.demo.run import BAG

SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recording")
    lines = []
    for number in range(6):
        PillowImage.fromarray(np.full((24, 32, 3), 40 * number, np.uint8)).save(folder / f"{number}.png")
        things = [{"shape": "mug", "color": "red", "box": [1, 2, 3, 4]}]
        lines.append({"file": f"{number}.png", "seconds": number / 5, "seed": 70 + number // 3, "things": things})
    (folder / "truth.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    k = [30.0, 0.0, 15.5, 0.0, 31.0, 11.5, 0.0, 0.0, 1.0]
    camera = {"width": 32, "height": 24, "distortion_model": "plumb_bob", "D": [0.0] * 5, "K": k, "R": k, "P": [0.0] * 12}
    (folder / "camera.json").write_text(json.dumps(camera))
    record(folder, folder / "bag.mcap")
    return folder / "bag.mcap"


def test_every_picture_is_in_the_bag_as_it_was_with_its_camera_info(bag: Path) -> None:
    recorded = read(bag)
    pictures = [message for message in recorded if message.kind is CompressedImage]
    infos = [message for message in recorded if message.kind is CameraInfo]
    assert [message.picture for message in pictures] == list(range(6))
    assert len(infos) == 6
    fourth = deserialize_message(pictures[3].cdr, CompressedImage)
    with PillowImage.open(io.BytesIO(bytes(fourth.data))) as opened:
        assert np.asarray(opened)[0, 0].tolist() == [120, 120, 120]
    info = deserialize_message(infos[3].cdr, CameraInfo)
    assert info.header == fourth.header
    assert (info.width, info.height, info.k[0], info.k[2], info.k[4]) == (32, 24, 30.0, 15.5, 31.0)


def test_the_truth_beside_the_bag_has_a_record_for_each_picture(bag: Path) -> None:
    recording = truth.read(bag.with_suffix(".json"))
    assert [picture.scene for picture in recording.pictures] == [0, 0, 0, 1, 1, 1]


def test_equal_pictures_make_an_equal_bag(bag: Path) -> None:
    again = bag.with_name("again.mcap")
    record(bag.parent, again)
    assert [message.cdr for message in read(again)] == [message.cdr for message in read(bag)]


def test_a_story_that_was_written_by_hand_is_kept(bag: Path) -> None:
    truth_file = bag.with_suffix(".json")
    content = json.loads(truth_file.read_text())
    content["story"] = [{"scene": 0, "kind": "ask", "texts": ["What?"], "right": ["red"]}]
    truth_file.write_text(json.dumps(content))
    record(bag.parent, bag)
    assert truth.read(truth_file).story[0].texts == ("What?",)
    assert len(truth.read(truth_file).pictures) == 6


def test_only_the_stamp_of_a_message_changes(bag: Path) -> None:
    original = read(bag)[1]
    changed = deserialize_message(restamped(original.cdr, 7 * SECOND + 9), original.kind)
    unchanged = deserialize_message(original.cdr, original.kind)
    assert (changed.header.stamp.sec, changed.header.stamp.nanosec) == (7, 9)
    changed.header.stamp = unchanged.header.stamp
    assert changed == unchanged


def _recorded(*seconds: float) -> list[Recorded]:
    return [Recorded("image", Image, round(time * SECOND), b"", number) for number, time in enumerate(seconds)]


def test_a_bag_is_played_over_and_over_at_its_own_pace() -> None:
    due = [time for time, _ in itertools.islice(schedule(_recorded(0.0, 0.5, 1.0), 1.0, None), 6)]
    assert due == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0, 2.5])


def test_a_bag_can_be_played_faster() -> None:
    due = [time for time, _ in itertools.islice(schedule(_recorded(0.0, 0.5, 1.0), 2.0, None), 3)]
    assert due == pytest.approx([0.0, 0.25, 0.5])


def test_one_picture_can_be_repeated() -> None:
    played = list(itertools.islice(schedule(_recorded(0.0, 0.5, 1.0), 1.0, 1), 3))
    assert [message.picture for _, message in played] == [1, 1, 1]
    assert [time for time, _ in played] == pytest.approx([0.0, 0.2, 0.4])


def test_the_shipped_story_asks_about_what_is_there() -> None:
    recording = truth.read(BAG.with_suffix(".json"))
    pictures = [message for message in read(BAG) if message.picture >= 0]
    assert len(pictures) == len(recording.pictures)
    kinds = [step.kind for step in recording.story]
    assert (kinds.count(truth.Kind.ASK), kinds.count(truth.Kind.GROUND), kinds.count(truth.Kind.CHAT)) == (3, 2, 1)
    for step in recording.story:
        shown = [picture for picture in recording.pictures if picture.scene == step.scene]
        assert shown
        if step.kind is truth.Kind.GROUND:
            assert all(picture.box_of(step.right[0]) for picture in shown)

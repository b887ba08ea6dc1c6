"""`mobilevlm doctor --graph` on a node that takes positions from depth: a camera as it should be, and one wired wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image

from mobilevlm_ros.client import VLM
from mobilevlm_ros.doctor.check import Status
from mobilevlm_ros.ros.annotate import image_message
from mobilevlm_ros.ros.wiring_depth import depth_checks, info_checks
from mobilevlm_ros.ros.wiring_pictures import Pictures
from mobilevlm_ros.space.camera_model import PictureGeometry
from tests.system.graph import PATIENCE, Camera, picture, running_node, until
from tests.system.test_wiring import Findings, doctor, fails, publishing, statuses

NAME = "wiring_depth"
K = [100.0, 0.0, 47.5, 0.0, 100.0, 31.5, 0.0, 0.0, 1.0]


def depth(value: int = 1500) -> Image:
    data = np.full((64, 96), value, np.uint16).tobytes()
    return Image(width=96, height=64, step=192, encoding="16UC1", data=list(data))


def info(frame: str = "optical") -> CameraInfo:
    message = CameraInfo(width=96, height=64, k=K, distortion_model="plumb_bob")
    message.header.frame_id = frame
    return message


@pytest.fixture(scope="module")
def findings(tester: Node, nano_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Findings]:
    log = tmp_path_factory.mktemp("wiring") / "node.log"
    pixels = image_message(picture(), Camera(tester, "unused").header())
    with ExitStack() as stack:
        for topic, kind, message in (
            ("/right/image", Image, pixels),
            ("/right/depth", Image, depth()),
            ("/right/camera_info", CameraInfo, info()),
            ("/wrong/image", Image, pixels),
            ("/wrong/aligned_depth/image_raw", Image, depth()),
            ("/wrong/camera_info", CameraInfo, CameraInfo()),
        ):
            stack.enter_context(publishing(tester, tester.create_publisher(kind, topic, 1), message))
        stack.enter_context(running_node(NAME, log, model=nano_package, cameras=("right", "wrong"), depth=True))
        until(lambda: tester.count_subscribers("/wrong/depth"))
        VLM(tester, NAME).wait_until_ready(PATIENCE)
        code, found = doctor(NAME)
        assert code == 1
        yield found


def test_a_camera_with_registered_depth_passes(findings: Findings) -> None:
    assert statuses(findings, "/right/depth") == {"publisher": "PASS", "encoding": "PASS", "depths": "PASS"}
    assert statuses(findings, "/right/camera_info") == {"publisher": "PASS", "calibration": "PASS", "frame": "PASS"}
    assert findings["/right/depth", "depths"]["detail"] == "100% of the depths are valid, their median is 1.50 m"


def test_depth_is_not_taken_for_pictures_to_look_at(findings: Findings) -> None:
    assert statuses(findings, "/right/image")["encoding"] == "PASS"
    assert "losses" not in statuses(findings, "/right/depth")


def test_depth_under_another_name_is_found_and_its_remapping_told(findings: Findings) -> None:
    detail, remedy = fails(findings, "/wrong/depth", "publisher")
    assert "nobody publishes /wrong/depth" in detail
    assert remedy == "start the node with --ros-args -r wrong/depth:=/wrong/aligned_depth/image_raw"


def test_a_camera_that_was_never_calibrated_is_told(findings: Findings) -> None:
    detail, remedy = fails(findings, "/wrong/camera_info", "calibration")
    assert "not calibrated" in detail
    assert "camera_calibration" in remedy


def test_depth_that_is_not_registered_shows_by_its_frame() -> None:
    checks = {check.name: check for check in info_checks(info("colour"), PictureGeometry.RAW, "infra")}
    assert checks["frame"].status is Status.FAIL
    assert "'infra', the camera_info in 'colour'" in checks["frame"].detail


@pytest.mark.parametrize(
    ("message", "name", "status"),
    [
        (image_message(picture(), info().header), "encoding", Status.FAIL),
        (depth(0), "depths", Status.WARN),
        (None, "depths", Status.FAIL),
    ],
)
def test_a_depth_topic_that_is_of_no_use_is_told(message: Image | None, name: str, status: Status) -> None:
    pictures = Pictures()
    if message is not None:
        pictures.add(message, None, None)
    assert {check.name: check.status for check in depth_checks(pictures)}[name] is status

"""The checks of the depth that a running node takes positions from: depth image and camera_info of each camera."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import QoSPresetProfiles
from sensor_msgs.msg import CameraInfo, Image

from mobilevlm_ros.doctor.check import Check, Group, Status
from mobilevlm_ros.ros.wiring import Observer
from mobilevlm_ros.ros.wiring_cameras import RAW, camera_statuses
from mobilevlm_ros.ros.wiring_pictures import Pictures
from mobilevlm_ros.ros.wiring_topics import watch
from mobilevlm_ros.space.camera_model import CameraModel, PictureGeometry
from mobilevlm_ros.space.depth_image import depth_image
from mobilevlm_ros.space.errors import NoPositionError

INFO = "sensor_msgs/msg/CameraInfo"

FEW = 0.1
"""Share of valid depths below which there is a warning."""


def depth_groups(observer: Observer, full_name: str, settings: Mapping[str, Any], seconds: float) -> Iterator[Group]:
    """The checks of each camera's depth topic and camera_info, a group for each; none where the node uses no depth."""
    if not settings.get("depth"):
        return
    geometry = PictureGeometry(settings.get("picture_geometry") or PictureGeometry.RAW.value)
    cameras = camera_statuses(observer, full_name, seconds)
    used = {topic for status in cameras for key in ("topics", "depth topics") for topic in _topics(status, key)}
    used |= {topic for topic, _ in observer.node.get_topic_names_and_types() if topic.startswith(f"{full_name}/")}
    for status in cameras:
        depth, info = _topics(status, "depth topics")
        name = status.name.removeprefix(f"{full_name}: camera ")
        prefix = "" if len(settings.get("cameras") or ()) == 1 else f"{name}/"
        publisher = _publisher_check(observer, depth, f"{prefix}depth", RAW, used, seconds)
        pictures = Pictures()
        if publisher.status is Status.PASS:
            pictures = watch(observer, depth, Image, bool(settings.get("use_sim_time")), seconds)
        yield Group(depth, (publisher, *(depth_checks(pictures) if publisher.status is Status.PASS else ())))
        publisher = _publisher_check(observer, info, f"{prefix}camera_info", INFO, used, seconds)
        message = _first_info(observer, info, seconds) if publisher.status is Status.PASS else None
        frame = pictures.last.header.frame_id if pictures.count else ""
        yield Group(info, (publisher, *(info_checks(message, geometry, frame) if publisher.status is Status.PASS else ())))


def depth_checks(pictures: Pictures) -> Iterator[Check]:
    """Whether what came on a depth topic can be used."""
    if not pictures.count:
        yield Check("depths", Status.FAIL, "no depth image comes", "is depth switched on in the camera's driver?")
        return
    try:
        metres = depth_image(pictures.last).metres(slice(None), slice(None))
    except NoPositionError as error:
        remedy = "remap the topic to the camera's depth that is registered to its pictures, 16UC1 or 32FC1"
        yield Check("encoding", Status.FAIL, error.message, remedy)
        return
    yield Check("encoding", Status.PASS, pictures.described())
    valid = np.isfinite(metres)
    share = f"{valid.mean():.0%} of the depths are valid"
    if valid.mean() < FEW:
        yield Check("depths", Status.WARN, share, "is the scene within the camera's range, and its projector on?")
    else:
        yield Check("depths", Status.PASS, f"{share}, their median is {np.median(metres[valid]):.2f} m")


def info_checks(message: CameraInfo | None, geometry: PictureGeometry, depth_frame: str) -> Iterator[Check]:
    """Whether a camera_info can be used, and belongs to the depth image of the frame `depth_frame`, empty where there is none."""
    if message is None:
        yield Check("calibration", Status.FAIL, "no camera_info comes", "see the camera driver's log")
        return
    try:
        model = CameraModel.of(message, geometry)
    except NoPositionError as error:
        yield Check("calibration", Status.FAIL, error.message, "calibrate the camera (package camera_calibration)")
        return
    detail = f"{model.width:g} x {model.height:g}, focal length {model.fx:.1f} pixels, {model.lens.value}"
    yield Check("calibration", Status.PASS, detail)
    frame = message.header.frame_id
    if depth_frame and frame and depth_frame != frame:
        detail = f"the depth image is in '{depth_frame}', the camera_info in '{frame}'"
        yield Check("frame", Status.FAIL, detail, "take depth that is registered (aligned) to the pictures")
    else:
        yield Check("frame", Status.PASS, frame or "not named")


def _first_info(observer: Observer, topic: str, seconds: float) -> CameraInfo | None:
    heard: list[CameraInfo] = []
    subscription = observer.node.create_subscription(CameraInfo, topic, heard.append, QoSPresetProfiles.SENSOR_DATA.value)
    try:
        observer.wait(lambda: heard, seconds)
    finally:
        observer.node.destroy_subscription(subscription)
    return heard[-1] if heard else None


def _topics(status: DiagnosticStatus, key: str) -> list[str]:
    return {value.key: value.value for value in status.values}.get(key, "").split()


def _publisher_check(observer: Observer, topic: str, name: str, kind: str, used: Collection[str], seconds: float) -> Check:
    """Whether somebody publishes a topic; else which other to remap to, apart from those in `used`.

    Args:
        name: by which the node knows the topic.
    """
    node = observer.node
    if observer.wait(lambda: node.count_publishers(topic), seconds):
        return Check("publisher", Status.PASS, f"{node.count_publishers(topic)} on {topic}")
    there = [other for other, kinds in node.get_topic_names_and_types() if kind in kinds and node.count_publishers(other)]
    last = name.rpartition("/")[2]
    likely = sorted(other for other in there if last in other and other not in used)
    detail = f"nobody publishes {topic}; topics like it: {', '.join(likely) or 'none'}"
    if not likely:
        return Check("publisher", Status.FAIL, detail, "switch it on in the camera's driver")
    nearest = max(likely, key=lambda other: SequenceMatcher(None, other, topic).ratio())
    return Check("publisher", Status.FAIL, detail, f"start the node with --ros-args -r {name}:={nearest}")

"""The checks of the image topics that a running node listens to: publishers, types, quality of service, and the pictures."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from rclpy.qos import (
    QoSCompatibility,
    QoSLivelinessPolicy,
    QoSPresetProfiles,
    QoSProfile,
    QoSReliabilityPolicy,
    qos_check_compatible,
)
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image

from mobilevlm_ros.doctor.check import Check, Group, Status
from mobilevlm_ros.ros import qos
from mobilevlm_ros.ros.wiring import Observer, parameters
from mobilevlm_ros.ros.wiring_cameras import COMPRESSED, RAW, CameraTopic, idle_check, told
from mobilevlm_ros.ros.wiring_pictures import Pictures, losses_check, picture_check, stamp_check

KINDS: dict[str, type[Image] | type[CompressedImage]] = {
    RAW: Image,
    COMPRESSED: CompressedImage,
}
_SUFFIX = "/compressed"
_UNNAMED = "_NODE_NAME_UNKNOWN_"
"""What the middleware calls a node whose name it has not learned yet."""
_WATCH_SECONDS = 1.0
"""How long a topic is watched after its first picture, for its rate and its losses."""


def topic_groups(observer: Observer, full_name: str, settings: Mapping[str, Any], seconds: float) -> Iterator[Group]:
    """The checks of each image topic of the node's cameras, a group for each."""
    topics = told(observer, full_name, settings, seconds)
    if not topics:
        detail = f"{full_name} tells of no image topic on /diagnostics within {seconds:g} s"
        check = Check("topics", Status.FAIL, detail, "see the node's log; is --seconds more than its diagnostics_period?")
        yield Group("cameras", (check,))
        return
    # The graph comes to be known piece by piece, and a camera's node may be seen later than the one that listens to it.
    observer.wait(lambda: all(_count_both(observer, topic.name) for topic in topics), seconds)
    topics = told(observer, full_name, settings, seconds) or topics
    if settings.get("use_sim_time"):
        yield Group("clock", (clock_check(observer, seconds),))
    names = {topic.name for topic in topics}
    for topic in topics:
        twin = _twin(topic.name)
        # With image_transport auto, both topics of a camera are listened to while only the compressed one is published.
        if not observer.node.count_publishers(topic.name) and twin in names and observer.node.count_publishers(twin):
            continue
        looked = _Look(observer, full_name, settings, names, seconds)
        yield Group(topic.name, tuple(_topic_checks(looked, topic)))


@dataclass(frozen=True)
class _Look:
    """What the checks of a topic need: the node's name, its parameters and the topics of all its cameras."""

    observer: Observer
    full_name: str
    settings: Mapping[str, Any]
    topics: Collection[str]
    seconds: float


def clock_check(observer: Observer, seconds: float) -> Check:
    """Whether there is a clock for a node that uses simulated time."""
    if observer.wait(lambda: observer.node.count_publishers("/clock"), seconds):
        return Check("clock", Status.PASS, "use_sim_time is set and /clock is published")
    remedy = "publish it (ros2 bag play --clock, or the simulator's bridge), or set use_sim_time to false"
    return Check("clock", Status.FAIL, "use_sim_time is set, but nobody publishes /clock", remedy)


def _twin(topic: str) -> str:
    """The compressed topic of a raw one, the raw topic of a compressed one."""
    return topic.removesuffix(_SUFFIX) if topic.endswith(_SUFFIX) else topic + _SUFFIX


def _count_both(observer: Observer, topic: str) -> int:
    return int(observer.node.count_publishers(topic)) + int(observer.node.count_publishers(_twin(topic)))


def _topic_checks(look: _Look, camera: CameraTopic) -> Iterator[Check]:
    observer, settings, topic, kind, seconds = look.observer, look.settings, camera.name, camera.kind, look.seconds
    if camera.is_idle:
        yield idle_check(settings)
    publishers = _publishers(observer, topic, seconds)
    if not publishers:
        yield _no_publisher(look, topic)
        return
    names = ", ".join(sorted({_name(info) for info in publishers}))
    yield Check("publisher", Status.PASS, names)
    wrong = [info for info in publishers if info.topic_type != kind]
    yield _type_check(wrong, topic, kind)
    if len(wrong) == len(publishers):
        return
    right = [info for info in publishers if info.topic_type == kind]
    yield _qos_check(look, topic, right)
    pictures = watch(observer, topic, KINDS[kind], bool(settings.get("use_sim_time")), seconds)
    if not pictures.count:
        detail = f"{names} sends nothing within {seconds:g} s"
        yield Check("pictures", Status.FAIL, detail, "is the camera plugged in, started and triggered? See its driver's log")
        return
    yield Check("pictures", Status.PASS, pictures.described())
    yield picture_check(pictures)
    yield stamp_check(pictures, float(settings.get("max_image_age") or 1.0))
    if len(right) == 1:
        yield losses_check(pictures)


def _publishers(observer: Observer, topic: str, seconds: float) -> list[Any]:
    """Who publishes a topic, as soon as each has told its node's name, which comes after the topic."""

    def have_names() -> bool:
        return all(info.node_name != _UNNAMED for info in observer.node.get_publishers_info_by_topic(topic))

    observer.wait(have_names, seconds)
    return list(observer.node.get_publishers_info_by_topic(topic))


def _no_publisher(look: _Look, topic: str) -> Check:
    """Nobody publishes what the node listens to: what there is instead, and how to listen to that."""
    observer, full_name = look.observer, look.full_name
    twin = _twin(topic)
    transport = look.settings.get("image_transport")
    if observer.node.count_publishers(twin) and transport != "auto":
        detail = f"nobody publishes {topic}, only {twin}, and image_transport is {transport}"
        return Check("publisher", Status.FAIL, detail, "start the node with image_transport:=auto")
    there = _published_images(observer, full_name)
    detail = f"nobody publishes {topic}; image topics that are published: {', '.join(there) or 'none'}"
    if not there:
        return Check("publisher", Status.FAIL, detail, "start the camera driver, with this ROS_DOMAIN_ID")
    free = [other for other in there if other not in look.topics] or there
    nearest = max(free, key=lambda other: SequenceMatcher(None, other, topic).ratio()).removesuffix(_SUFFIX)
    name = _unmapped(topic.removesuffix(_SUFFIX), full_name, look.settings)
    return Check("publisher", Status.FAIL, detail, f"start the node with --ros-args -r {name}:={nearest}")


def _published_images(observer: Observer, full_name: str) -> list[str]:
    """The image topics that somebody else than the node publishes."""
    node = observer.node
    topics = [topic for topic, kinds in node.get_topic_names_and_types() if KINDS.keys() & set(kinds)]
    return sorted(topic for topic in topics if any(_name(info) != full_name for info in node.get_publishers_info_by_topic(topic)))


def _unmapped(topic: str, full_name: str, settings: Mapping[str, Any]) -> str:
    """The name by which the node knows a topic, for a remapping."""
    if len(settings.get("cameras") or ()) == 1:
        return "image"
    return topic.removeprefix(full_name.rpartition("/")[0]).lstrip("/")


def _type_check(wrong: list[Any], topic: str, kind: str) -> Check:
    if not wrong:
        return Check("type", Status.PASS, kind)
    there = ", ".join(sorted({f"{_name(info)} publishes {info.topic_type}" for info in wrong}))
    detail = f"the node listens to {topic} for {kind}, but {there}"
    return Check("type", Status.FAIL, detail, "remap the camera's topic or the node's, so that the types are the same")


def _qos_check(look: _Look, topic: str, publishers: list[Any]) -> Check:
    """Whether the publishers offer what the node's subscription demands."""
    doubtful = []
    demanded = _demanded(look, topic)
    for publisher in publishers:
        for profile in demanded:
            compatibility, reason = qos_check_compatible(publisher.qos_profile, profile)
            if compatibility == QoSCompatibility.ERROR:
                demand = profile.reliability is QoSReliabilityPolicy.RELIABLE
                change = f"set qos_overrides.{topic}.subscription.reliability to best_effort"
                remedy = change if demand else "change the publisher's"
                return Check("QoS", Status.FAIL, f"{_name(publisher)} and the node do not fit: {reason.strip()}", remedy)
            if compatibility == QoSCompatibility.WARNING:
                doubtful.append(f"{_name(publisher)}: {reason.strip()}")
    if doubtful:
        return Check("QoS", Status.WARN, "; ".join(doubtful), "look at both with ros2 topic info --verbose")
    reliability = ", ".join(sorted({info.qos_profile.reliability.name.lower() for info in publishers}))
    return Check("QoS", Status.PASS, f"published {reliability}, which fits what the node asks for")


def _demanded(look: _Look, topic: str) -> list[QoSProfile]:
    """What the node's subscription asks for, or would ask for if it listened now."""
    found = look.observer.node.get_subscriptions_info_by_topic(topic)
    profiles = [info.qos_profile for info in found if _name(info) == look.full_name]
    if profiles:
        return profiles
    profile = qos.camera()
    profile.liveliness = QoSLivelinessPolicy.AUTOMATIC  # what the middleware makes of its default
    name = f"qos_overrides.{topic}.subscription.reliability"
    override = parameters(look.observer, look.full_name, look.seconds, (name,)).get(name)
    if override:
        profile.reliability = QoSReliabilityPolicy[str(override).upper()]
    return [profile]


def watch(observer: Observer, topic: str, kind: type[Any], simulated: bool, seconds: float) -> Pictures:
    """Listens to a topic, at most `seconds` long for its first picture and then for a short while."""
    node = observer.node
    pictures = Pictures()
    clock: list[int] = []

    def heard(message: Any, info: Mapping[str, Any]) -> None:
        now = clock[-1] if clock else None if simulated else time.time_ns()
        pictures.add(message, now, info.get("publication_sequence_number"))

    def told(message: Clock) -> None:
        clock[:] = [message.clock.sec * 1_000_000_000 + message.clock.nanosec]

    sensor_data = QoSPresetProfiles.SENSOR_DATA.value
    subscriptions: list[Any] = [node.create_subscription(kind, topic, heard, sensor_data)]
    if simulated:
        subscriptions.append(node.create_subscription(Clock, "/clock", told, sensor_data))
    try:
        if observer.wait(lambda: pictures.count, seconds):
            observer.wait(lambda: False, min(_WATCH_SECONDS, seconds))
    finally:
        for subscription in subscriptions:
            node.destroy_subscription(subscription)
    return pictures


def _name(info: Any) -> str:
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"

"""Which image topics a running node's cameras have, and which of them are listened to now: as its diagnostics tell.

The graph alone shows only what is listened to at the moment, and a camera that nobody asks about is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from mobilevlm_ros.doctor.check import Check, Status
from mobilevlm_ros.ros.wiring import Observer

RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"


@dataclass(frozen=True)
class CameraTopic:
    """An image topic of one of the node's cameras: its type, and whether nobody asks so that it is not listened to."""

    name: str
    kind: str
    is_idle: bool


def told(observer: Observer, full_name: str, settings: Mapping[str, Any], seconds: float) -> list[CameraTopic]:
    """The topics of the node's cameras; none where its diagnostics do not come within `seconds`."""
    only_compressed = settings.get("image_transport") == "compressed"
    return [topic for status in camera_statuses(observer, full_name, seconds) for topic in _topics(status, only_compressed)]


def camera_statuses(observer: Observer, full_name: str, seconds: float) -> list[DiagnosticStatus]:
    """What the node's diagnostics say of its cameras; nothing where they do not come within `seconds`."""
    mine: list[DiagnosticStatus] = []

    def heard(message: DiagnosticArray) -> None:
        cameras = [status for status in message.status if status.name.startswith(f"{full_name}: camera ")]
        mine[:] = cameras or mine

    subscription = observer.node.create_subscription(DiagnosticArray, "/diagnostics", heard, 10)
    try:
        observer.wait(lambda: mine, seconds)
    finally:
        observer.node.destroy_subscription(subscription)
    return mine


def idle_check(settings: Mapping[str, Any]) -> Check:
    """Says that the node does not listen now, which is no mistake."""
    linger = settings.get("camera_linger")
    when = f" (camera_linger is {linger:g} s)" if linger else ""
    return Check("listening", Status.PASS, f"idle: nobody asks; the node listens again with the next request{when}")


def _topics(status: DiagnosticStatus, only_compressed: bool) -> list[CameraTopic]:
    values = {value.key: value.value for value in status.values}
    is_idle = values.get("listened to") == "no"
    kinds = (COMPRESSED,) if only_compressed else (RAW, COMPRESSED)
    return [CameraTopic(name, kind, is_idle) for name, kind in zip(values.get("topics", "").split(), kinds, strict=False)]

"""What the pictures of a topic tell: encoding, stamps, and how many are lost on the way. Knows no graph."""

from __future__ import annotations

import statistics
import time
from typing import Any

from sensor_msgs.msg import Image

from mobilevlm_ros.doctor.check import Check, Status
from mobilevlm_ros.pictures.messages import is_depth
from mobilevlm_ros.ros.dds import VARIABLES
from mobilevlm_ros.ros.shared_files import find
from mobilevlm_ros.runtime.errors import VlmError

SEGMENT_BYTES = 512 * 1024
"""Fast DDS's own shared-memory segment. A larger picture goes in pieces through UDP."""

LOST_SHARE = 0.1
"""Share of lost pictures from which on a warning is given."""

_HOUR = 3600.0


class Pictures:
    """The pictures of one topic as they come."""

    def __init__(self) -> None:
        self.count = 0
        self.last: Any = None
        self.ages: list[float] = []
        self._numbers: list[int] = []
        self._first_came = self._last_came = 0.0

    def add(self, message: Any, now_ns: int | None, number: int | None) -> None:
        """Notes a picture.

        Args:
            message: an Image or CompressedImage.
            now_ns: the time on the node's clock, None where that is not known.
            number: the publisher's running number of the message, None where the middleware does not tell.
        """
        self.count += 1
        self.last = message
        self._last_came = time.monotonic()
        if self.count == 1:
            self._first_came = self._last_came
        if now_ns is not None:
            stamp = message.header.stamp
            self.ages.append((now_ns - stamp.sec * 1_000_000_000 - stamp.nanosec) / 1e9)
        if number:
            self._numbers.append(int(number))

    @property
    def size(self) -> int:
        """Bytes of the last picture."""
        return len(self.last.data)

    def lost(self) -> tuple[int, int]:
        """Returns how many were lost, of how many that were sent between the first and the last that came."""
        if len(self._numbers) < 2:
            return 0, 0
        sent = max(self._numbers) - min(self._numbers) + 1
        return sent - len(set(self._numbers)), sent

    def described(self) -> str:
        """Size, encoding and rate."""
        seconds = self._last_came - self._first_came
        rate = f"{(self.count - 1) / seconds:.1f} Hz" if seconds > 0 else "one so far"
        last = self.last
        shape = f"{last.width} x {last.height} {last.encoding}" if isinstance(last, Image) else f"compressed, '{last.format}'"
        return f"{shape}, {self.size / 1e6:.2f} MB, {rate}"


def picture_check(pictures: Pictures) -> Check:
    """Whether the node can read the last picture: it is decoded as the node does."""
    last = pictures.last
    encoding = last.encoding if isinstance(last, Image) else last.format
    try:
        from mobilevlm_ros.ros.images import compressed_to_rgb, to_rgb

        if isinstance(last, Image):
            to_rgb(last)
        else:
            compressed_to_rgb(last)
    except VlmError as error:
        remedy = "let the camera driver publish an encoding that is read, such as rgb8, bgr8, mono8 or yuv422"
        return Check("encoding", Status.FAIL, error.message, remedy)
    if isinstance(last, Image) and is_depth(last):
        detail = f"'{encoding}' is depth, which the model is shown in grey"
        return Check("encoding", Status.WARN, detail, "if that is not meant, remap the topic to the camera's colour pictures")
    return Check("encoding", Status.PASS, f"'{encoding}' is read")


def stamp_check(pictures: Pictures, max_age: float) -> Check:
    """Whether the stamps are near the node's clock, so that a picture is not refused for its age."""
    if not pictures.ages:
        return Check("stamps", Status.FAIL, "the node's clock (/clock) does not run", "play with --clock, or unset use_sim_time")
    age = statistics.median(pictures.ages)
    where = f"{abs(age):.2f} s {'behind' if age >= 0 else 'ahead of'} the node's clock"
    if abs(age) <= max_age:
        return Check("stamps", Status.PASS, where)
    if abs(age) > _HOUR:
        remedy = "pictures of a bag or simulator need use_sim_time:=true for the node and a /clock (ros2 bag play --clock)"
    else:
        remedy = "synchronise the machines' clocks (chrony), or raise max_image_age"
    return Check("stamps", Status.FAIL, f"{where}; max_image_age is {max_age:g} s, so requests end with STALE_IMAGE", remedy)


def losses_check(pictures: Pictures) -> Check:
    """Whether pictures are lost on their way to a listener on this machine."""
    lost, sent = pictures.lost()
    large = pictures.size > SEGMENT_BYTES
    if not sent and not (large and pictures.count == 1):
        return Check("losses", Status.PASS, "not told by the middleware")
    detail = f"{lost} of {sent} pictures lost" if sent else "only one picture came"
    if sent and lost / sent < LOST_SHARE:
        return Check("losses", Status.PASS, detail)
    if large:
        profile = find("config/fastdds_large_images.xml")
        detail += "; they are larger than Fast DDS's shared memory"
        remedy = f"start the camera driver with {' and '.join(VARIABLES)} set to {profile or 'config/fastdds_large_images.xml'}"
        return Check("losses", Status.WARN, detail, remedy)
    return Check("losses", Status.WARN, detail, "is the machine or its network overloaded?")

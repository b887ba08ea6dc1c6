"""The newest-frame slot of a camera, and the choice of the frame that a request is about.

A subscription's callback only stores a reference to the serialized message. It is decoded when a request takes it, at most
once, in that request's thread. A frame's age is the node's clock less the image's stamp, and on a wall clock also not less than
the time since the frame came, so that a stalled camera with a wrong clock is noticed. Taking a frame counts as a use of the
camera (`slot.demand`), which may be listened to only while it is used; then the first frame is waited for. This module opens no
subscription and knows no model.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum

import numpy as np
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from mobilevlm_ros.ros.demand import Demand
from mobilevlm_ros.ros.images import compressed_to_rgb, to_rgb
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.requests import CancelToken

FIRST_PICTURE_SECONDS = 3.0
"""How long a request waits for the first picture of a camera that has just begun to be listened to."""

_LONG_AGO = float("-inf")


class Listening(Enum):
    """Whether a camera is listened to."""

    NO = "no"
    OPENING = "from now on"
    YES = "yes"


class FramePolicy(IntEnum):
    """Which frame a request is about; the numbers are those of `mobilevlm_msgs/RequestOptions`."""

    NEWEST = 0
    NEXT = 1
    SAME = 2


@dataclass(frozen=True)
class Times:
    """A moment on the node's clock, in nanoseconds, and whether that clock runs with the wall's."""

    now_ns: int
    is_wall: bool


class Snapshot:
    """One picture of one camera. Its stamp is read at once, its pixels when they are first asked for."""

    def __init__(self, camera: str, serialized: bytes, kind: type[Image] | type[CompressedImage]) -> None:
        """
        Args:
            camera: the camera's name.
            serialized: the message as it came, in CDR.
            kind: which message it is.
        """
        self.camera = camera
        self.arrived = time.monotonic()
        self._serialized: bytes | None = serialized
        self._kind = kind
        self._lock = threading.Lock()
        self._decoded: tuple[Header, Frame] | VlmError | None = None

    @property
    def stamp_ns(self) -> int:
        """The image's stamp in nanoseconds.

        Raises:
            VlmError: BAD_IMAGE, where the message is too short to hold one.
        """
        serialized = self._serialized
        if serialized is not None:
            return stamp_ns(serialized)
        stamp = self.header.stamp
        return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)

    @property
    def header(self) -> Header:
        """The image's own header; raises VlmError(BAD_IMAGE) for a damaged message."""
        return self._decode()[0]

    @property
    def frame(self) -> Frame:
        """The picture; raises VlmError(BAD_IMAGE) for a damaged message."""
        return self._decode()[1]

    @property
    def problem(self) -> str:
        """Why the picture cannot be read, as far as somebody has asked for it; else empty."""
        decoded = self._decoded
        return decoded.message if isinstance(decoded, VlmError) else ""

    def age(self, times: Times) -> float:
        """Returns the age in seconds; negative for a stamp ahead of the node's clock."""
        age = (times.now_ns - self.stamp_ns) / 1e9
        return max(age, time.monotonic() - self.arrived) if times.is_wall and age >= 0 else age

    def _decode(self) -> tuple[Header, Frame]:
        with self._lock:
            if self._decoded is None:
                assert self._serialized is not None
                try:
                    self._decoded = _decode(self._serialized, self._kind)
                except VlmError as error:
                    self._decoded = error
                else:
                    self._serialized = None  # the pixels are kept now, the message need not be
            if isinstance(self._decoded, VlmError):
                raise self._decoded
            return self._decoded


class CameraSlot:
    """Holds a camera's newest frame. One thread puts, any thread takes."""

    def __init__(self, name: str, clock: Callable[[], Times]) -> None:
        self.name = name
        self.demand = Demand()
        """Told of each request; `with slot.demand.hold():` keeps the camera listened to."""
        self._clock = clock
        self._since: float | None = _LONG_AGO  # `time.monotonic` seconds; None while nobody listens
        self._newest: Snapshot | None = None
        self._received = 0
        self._changed = threading.Condition()

    @property
    def received(self) -> int:
        """Frames that came since the start."""
        return self._received

    @property
    def newest(self) -> Snapshot | None:
        """The newest frame, however old it is."""
        return self._newest

    @property
    def listening(self) -> Listening:
        """Whether frames can come."""
        since = self._since
        if since is None:
            return Listening.NO
        opening = not self._is_current() and time.monotonic() - since < FIRST_PICTURE_SECONDS
        return Listening.OPENING if opening else Listening.YES

    def begin(self) -> None:
        """From now on frames can come."""
        with self._changed:
            self._since = time.monotonic()

    def end(self) -> None:
        """No frames come any longer. The newest is kept."""
        with self._changed:
            self._since = None

    def put(self, snapshot: Snapshot) -> None:
        """Makes a frame the newest one."""
        with self._changed:
            self._newest = snapshot
            self._received += 1
            self._changed.notify_all()

    def clear(self) -> None:
        """Forgets the newest frame."""
        with self._changed:
            self._newest = None

    def take_newest(self, max_age: float, deadline: float = _LONG_AGO, cancel: CancelToken | None = None) -> Snapshot:
        """Returns the newest frame, if it is at most `max_age` seconds old.

        Where the camera has only now begun to be listened to, its first frame is waited for, `FIRST_PICTURE_SECONDS` at most;
        the newest from before counts where none comes.

        Args:
            deadline: `time.monotonic` seconds at which the wait is given up.
            cancel: ends the wait.

        Raises:
            VlmError: NO_IMAGE where none came yet, STALE_IMAGE with its age where it is too old or stamped ahead of the clock by
                more than `max_age`, BAD_IMAGE where it has no readable stamp, CANCELLED.
        """
        with self.demand.hold():
            newest = self._wait_for_first(deadline, cancel or CancelToken())
        if newest is None:
            raise self._no_image()
        self._check_age(newest, max_age)
        return newest

    def take_next(self, after_ns: int, deadline: float, cancel: CancelToken) -> Snapshot:
        """Waits for the first frame that is stamped after `after_ns` on the node's clock.

        Args:
            deadline: `time.monotonic` seconds at which the wait is given up.
            cancel: ends the wait.

        Raises:
            VlmError: NO_IMAGE or STALE_IMAGE where no such frame came in time, CANCELLED, BAD_IMAGE for an unreadable stamp.
        """
        with self.demand.hold(), self._changed:
            while True:
                newest = self._newest
                if newest is not None and newest.stamp_ns > after_ns:
                    return newest
                if not self._wait_until(deadline, cancel):
                    break
        if newest is None:
            raise self._no_image()
        age = newest.age(self._clock())
        raise VlmError(ErrorCode.STALE_IMAGE, f"camera '{self.name}' sent no picture in time; its newest is {age:.2f} s old")

    def _wait_for_first(self, deadline: float, cancel: CancelToken) -> Snapshot | None:
        asked = time.monotonic()
        with self._changed:
            while not self._is_current():
                since = asked if self._since is None else self._since
                if not self._wait_until(min(deadline, since + FIRST_PICTURE_SECONDS), cancel):
                    break
            return self._newest

    def _wait_until(self, end: float, cancel: CancelToken) -> bool:
        """Waits for a change, but only for a moment; returns whether there is time left. With the lock held."""
        if cancel.cancelled:
            raise VlmError(ErrorCode.CANCELLED, "taken back while it waited for a picture")
        remaining = end - time.monotonic()
        if remaining <= 0:
            return False
        # The token cannot wake this condition, so it is looked at from time to time.
        self._changed.wait(min(remaining, 0.05))
        return True

    def _is_current(self) -> bool:
        """Whether the newest frame came since the camera is listened to."""
        newest, since = self._newest, self._since
        return newest is not None and since is not None and newest.arrived >= since

    def _no_image(self) -> VlmError:
        return VlmError(ErrorCode.NO_IMAGE, f"camera '{self.name}' has not delivered a picture yet")

    def _check_age(self, snapshot: Snapshot, max_age: float) -> None:
        age = snapshot.age(self._clock())
        if age > max_age:
            raise VlmError(
                ErrorCode.STALE_IMAGE,
                f"the newest picture of camera '{self.name}' is {age:.2f} s old, {max_age:.2f} s are allowed",
            )
        if age < -max_age:
            raise VlmError(
                ErrorCode.STALE_IMAGE,
                f"the newest picture of camera '{self.name}' is stamped {-age:.2f} s ahead of the node's clock",
            )


class Cameras:
    """The cameras of a node, by name."""

    def __init__(self, slots: tuple[CameraSlot, ...]) -> None:
        """Args: slots: at least one; the first serves requests that name none."""
        self._slots = {slot.name: slot for slot in slots}
        self._first = slots[0]

    def __iter__(self) -> Iterator[CameraSlot]:
        return iter(self._slots.values())

    def find(self, name: str) -> CameraSlot:
        """Returns the named camera's slot, the first one's for an empty name; raises VlmError(BAD_REQUEST) for others."""
        if not name:
            return self._first
        try:
            return self._slots[name]
        except KeyError:
            known = ", ".join(self._slots)
            raise VlmError(ErrorCode.BAD_REQUEST, f"there is no camera '{name[:80]}'; there are: {known}") from None


def stamp_ns(serialized: bytes) -> int:
    """Returns the stamp of a serialized message that begins with a `std_msgs/Header`, in nanoseconds.

    Raises:
        VlmError: BAD_IMAGE, where the message is shorter than a stamp.
    """
    if len(serialized) < 12:
        raise VlmError(ErrorCode.BAD_IMAGE, f"the image message is only {len(serialized)} bytes long")
    order = "<" if serialized[1] & 1 else ">"  # CDR: four bytes that name the encoding, then the message
    seconds, nanoseconds = struct.unpack_from(f"{order}iI", serialized, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def _decode(serialized: bytes, kind: type[Image] | type[CompressedImage]) -> tuple[Header, Frame]:
    try:
        message = deserialize_message(serialized, kind)
    except MemoryError:
        raise
    except Exception as error:  # the middleware has an exception of its own
        raise VlmError(ErrorCode.BAD_IMAGE, f"the image message is damaged: {error}") from error
    pixels: np.ndarray = compressed_to_rgb(message) if kind is CompressedImage else to_rgb(message)
    return message.header, Frame(pixels)

"""A camera's depth topic and camera_info: which depth image belongs to a picture.

As with pictures, a callback stores a reference to the serialized message and returns; only what a region needs is decoded. The
depth image of a picture comes before or after it and is matched by stamp. Knows no regions and no frames.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image

from mobilevlm_ros.ros import qos
from mobilevlm_ros.ros.camera import stamp_ns
from mobilevlm_ros.ros.demand import Demand
from mobilevlm_ros.ros.inputs import CameraInput, no_events
from mobilevlm_ros.ros.reception import Reception
from mobilevlm_ros.runtime.errors import VlmError

KEPT = 15
"""Depth images that are kept beside those of watched pictures. A serialized one of 1280 x 720 in 16 bits has 1.8 MB."""

LATE_SECONDS = 0.2
"""How long a picture's depth image may come after the picture; drivers need time to register it."""


FIRST_DEPTH_SECONDS = 2.0
"""How long a grounding waits for the first depth image of a topic that has just begun to be listened to."""


@dataclass(frozen=True)
class StampedDepth:
    """A serialized depth image and its stamp in nanoseconds."""

    stamp_ns: int
    serialized: bytes


class Watch:
    """Holds the depth image that is nearest to a picture's stamp, of those kept and those that come while it lives."""

    def __init__(self, stamp_ns: int, changed: threading.Condition) -> None:
        self.stamp_ns = stamp_ns
        self._changed = changed
        self._nearest: StampedDepth | None = None
        self._complete = False

    def offer(self, depths: Iterable[StampedDepth]) -> None:
        """Looks at depth images; the condition is held."""
        for depth in depths:
            if self._nearest is None or abs(depth.stamp_ns - self.stamp_ns) < abs(self._nearest.stamp_ns - self.stamp_ns):
                self._nearest = depth
            self._complete |= depth.stamp_ns >= self.stamp_ns

    @property
    def held(self) -> tuple[StampedDepth, ...]:
        """The nearest so far, if any; the condition is held."""
        return (self._nearest,) if self._nearest else ()

    def nearest(self, until: float) -> StampedDepth | None:
        """Returns the nearest depth image.

        Args:
            until: `time.monotonic` seconds up to which one of the picture's stamp or later is waited for.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._complete, timeout=max(0.0, until - time.monotonic()))
            return self._nearest


class DepthFrames:
    """The last depth images of one camera. One thread puts, any thread watches."""

    def __init__(self, newest_picture: Callable[[], int | None]) -> None:
        """Args: newest_picture: stamp in nanoseconds of the camera's newest picture, whose depth is kept however old it is."""
        self._newest_picture = newest_picture
        self._kept: deque[StampedDepth] = deque(maxlen=KEPT)
        self._pinned: Watch | None = None
        self._watches: weakref.WeakSet[Watch] = weakref.WeakSet()
        self._changed = threading.Condition()

    def put(self, serialized: bytes) -> None:
        """Takes a depth message in; one too short to hold a stamp is dropped."""
        try:
            depth = StampedDepth(stamp_ns(serialized), serialized)
        except VlmError:
            return
        with self._changed:
            for watch in self._watches:
                watch.offer((depth,))
            self._kept.append(depth)
            picture = self._newest_picture()
            if picture is not None and (self._pinned is None or self._pinned.stamp_ns != picture):
                self._pinned = self._watch(picture)
            self._changed.notify_all()

    def watch(self, picture_ns: int) -> Watch:
        """Returns a watch for the depth image of a picture; it ends when nobody holds it any longer."""
        with self._changed:
            return self._watch(picture_ns)

    def wait_for_first(self, until: float) -> None:
        """Waits for a depth image, up to `time.monotonic` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._kept, timeout=max(0.0, until - time.monotonic()))

    def clear(self) -> None:
        """Forgets every depth image."""
        with self._changed:
            self._kept.clear()
            self._pinned = None

    def _watch(self, picture_ns: int) -> Watch:
        watch = Watch(picture_ns, self._changed)
        watch.offer((*self._kept, *(self._pinned.held if self._pinned else ())))
        self._watches.add(watch)
        return watch


class DepthInput:
    """The subscriptions of one camera's depth and camera_info, while the node is active and its regions' positions are wanted.

    They are opened with the node's activation and by each use, and left when nobody has wanted positions for the node's
    `camera_linger` and no standing query holds the camera.
    """

    def __init__(self, node: Node, reception: Reception, camera: CameraInput, base: str, linger: Callable[[], float]) -> None:
        """
        Args:
            base: the raw picture's relative name. `depth` stands in its place for the depth topic, and `camera_info` beside the
                picture's resolved name, as image_transport has it; each may be remapped by itself.
            linger: tells after how many seconds without a use the topics are left; 0 for never.
        """
        self._node = node
        self._reception = reception
        self._slot = camera.slot
        self._linger = linger
        prefix = base.removesuffix("image")
        self.depth_topic = node.resolve_topic_name(f"{prefix}depth")
        remapped = node.resolve_topic_name(f"{prefix}camera_info")
        plain = node.resolve_topic_name(f"{prefix}camera_info", only_expand=True)
        beside = f"{camera.raw_topic.rpartition('/')[0]}/camera_info"
        self.info_topic = remapped if remapped != plain else beside
        self.frames = DepthFrames(self._newest_stamp)
        self.info: bytes | None = None
        self._active = False
        self._begun = 0.0
        self._subscriptions: tuple[Any, ...] = ()  # replaced and never changed, because other threads read it
        self._demand = Demand()
        reception.regularly(self._tend)

    def open(self) -> None:
        """Starts to listen; returns when it does."""
        self._active = True
        self._begun = time.monotonic()
        self._demand.use()
        self._reception.do(self._begin).result()

    def close(self) -> None:
        """Stops to listen and forgets what came."""
        self._active = False
        with suppress(CancelledError):  # at the process's end the reception may have gone before
            self._reception.do(self._end).result()
        self.info = None

    def use(self) -> None:
        """Somebody wants positions now."""
        self._demand.use()
        if self._active and not self._subscriptions:
            self._begun = time.monotonic()
            self._reception.do(self._begin)

    def wait_for_first(self, seconds: float) -> None:
        """Where the topics have only now been opened, waits for the first depth image."""
        self.frames.wait_for_first(min(self._begun + FIRST_DEPTH_SECONDS, time.monotonic() + seconds))

    def _newest_stamp(self) -> int | None:
        newest = self._slot.newest
        try:
            return newest.stamp_ns if newest else None
        except VlmError:
            return None

    # What follows runs in the reception's thread.

    def _begin(self) -> None:
        if self._active and not self._subscriptions:
            self._listen(Image, self.depth_topic, self.frames.put)
            self._listen(CameraInfo, self.info_topic, self._take_info)

    def _end(self) -> None:
        subscriptions, self._subscriptions = self._subscriptions, ()
        for subscription in subscriptions:
            self._reception.remove(subscription)
            self._node.destroy_subscription(subscription)
        self.frames.clear()

    def _tend(self) -> None:
        is_held = self._slot.demand.idle_seconds == 0.0
        if self._subscriptions and not is_held and 0 < self._linger() < self._demand.idle_seconds:
            self._end()

    def _take_info(self, serialized: bytes) -> None:
        self.info = serialized

    def _listen(self, kind: type[Any], topic: str, callback: Callable[[bytes], None]) -> None:
        subscription = self._node.create_subscription(
            kind,
            topic,
            callback,
            qos.camera(),
            callback_group=self._reception.group,
            event_callbacks=no_events(),
            qos_overriding_options=qos.overridable(),
            raw=True,
        )
        self._reception.add(subscription)
        self._subscriptions = (*self._subscriptions, subscription)

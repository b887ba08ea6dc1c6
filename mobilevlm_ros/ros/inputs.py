"""A camera's subscriptions: the raw and the compressed topic into one newest-frame slot, opened while the camera is wanted.

A camera is listened to from the node's activation on, and again from each request on, until nobody has wanted its pictures for
the node's `camera_linger` seconds. Messages are taken serialized in the reception's thread: the callback stores a reference and
returns, and a damaged message fails in the request that takes it. Subscriptions come and go in that thread alone. Knows topics;
decodes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from mobilevlm_ros.ros import qos
from mobilevlm_ros.ros.camera import CameraSlot, Snapshot
from mobilevlm_ros.ros.parameters import Transport
from mobilevlm_ros.ros.reception import Reception


class CameraInput:
    """Feeds one slot. Opened while the node is active."""

    def __init__(self, node: Node, reception: Reception, slot: CameraSlot, base: str, linger: Callable[[], float]) -> None:
        """
        Args:
            base: the raw topic's relative name; remapping it moves the compressed topic along, as image_transport does.
            linger: tells after how many seconds without a use the camera is left; 0 for never.
        """
        self.slot = slot
        self._node = node
        self._reception = reception
        self._linger = linger
        self.raw_topic = node.resolve_topic_name(base)
        remapped = node.resolve_topic_name(f"{base}/compressed")
        plain = node.resolve_topic_name(f"{base}/compressed", only_expand=True)
        self.compressed_topic = remapped if remapped != plain else f"{self.raw_topic}/compressed"
        self._transport: Transport | None = None  # None while the node is not active
        self._subscriptions: dict[str, Any] = {}  # replaced and never changed, because other threads read it
        slot.end()
        slot.demand.tell(self._wanted)
        reception.regularly(self._tend)

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that are listened to now."""
        return tuple(self._subscriptions)

    def wanted_topics(self) -> tuple[str, ...]:
        """The topics that are listened to while the camera is wanted; none while the node is not active."""
        if self._transport is None:
            return ()
        if self._transport is Transport.COMPRESSED:
            return (self.compressed_topic,)
        if self._transport is Transport.AUTO and self._only_compressed():
            return (self.raw_topic, self.compressed_topic)
        return (self.raw_topic,)

    def open(self, transport: Transport) -> None:
        """Starts to listen; returns when it does. Raises what the middleware raises, such as for QoS that does not exist."""
        self.slot.demand.use()
        self._transport = transport
        self._reception.do(self._begin).result()

    def close(self) -> None:
        """Stops to listen and forgets the newest frame, so that a later activation cannot answer from it."""
        self._transport = None
        with suppress(CancelledError):  # at the process's end the reception may have gone before
            self._reception.do(self._end).result()
        self.slot.clear()

    def _wanted(self) -> None:
        """In the thread of a request."""
        if self._transport is not None and not self._subscriptions:
            self._reception.do(self._begin)

    # What follows runs in the reception's thread.

    def _begin(self) -> None:
        if self._transport is None or self._subscriptions:
            return
        self.slot.begin()
        for topic in self.wanted_topics():
            self._listen(topic)

    def _end(self) -> None:
        self.slot.end()
        for topic in self.topics:
            self._leave(topic)

    def _tend(self) -> None:
        """Leaves a camera that nobody wants, and lets the others follow the graph."""
        if not self._subscriptions:
            return
        if self._is_unwanted():
            self._end()
            if not self._is_unwanted():  # somebody came between the look and the leaving
                self._begin()
        elif self._transport is Transport.AUTO:
            self._follow_graph()

    def _is_unwanted(self) -> bool:
        linger = self._linger()
        return 0 < linger < self.slot.demand.idle_seconds

    def _only_compressed(self) -> bool:
        return not self._node.count_publishers(self.raw_topic) and bool(self._node.count_publishers(self.compressed_topic))

    def _follow_graph(self) -> None:
        """Listens to the compressed topic exactly while it alone has a publisher."""
        listening = self.compressed_topic in self._subscriptions
        if not listening and self._only_compressed():
            self._listen(self.compressed_topic)
        elif listening and self._node.count_publishers(self.raw_topic):
            self._leave(self.compressed_topic)

    def _listen(self, topic: str) -> None:
        kind = Image if topic == self.raw_topic else CompressedImage
        subscription = self._node.create_subscription(
            kind,
            topic,
            self._callback(kind),
            qos.camera(),
            callback_group=self._reception.group,
            event_callbacks=no_events(),
            qos_overriding_options=qos.overridable(),
            raw=True,
        )
        self._reception.add(subscription)
        self._subscriptions = {**self._subscriptions, topic: subscription}

    def _callback(self, kind: type[Image] | type[CompressedImage]) -> Callable[[bytes], None]:
        slot = self.slot
        return lambda serialized: slot.put(Snapshot(slot.name, serialized, kind))

    def _leave(self, topic: str) -> None:
        subscription = self._subscriptions[topic]
        self._subscriptions = {name: other for name, other in self._subscriptions.items() if name != topic}
        self._reception.remove(subscription)
        self._node.destroy_subscription(subscription)


def no_events() -> Any:
    """Keeps rclpy from waiting for events of a subscription: without it, the executor would handle those of each."""
    try:
        from rclpy.event_handler import SubscriptionEventCallbacks
    except ImportError:  # Humble
        from rclpy.qos_event import SubscriptionEventCallbacks
    return SubscriptionEventCallbacks(use_default_callbacks=False)


def base_topic(camera: str, count: int) -> str:
    """Returns the raw topic's relative name: a single camera's is `image`, one of several has its name before it."""
    return "image" if count == 1 else f"{camera}/image"

"""A camera's subscriptions: the raw and the compressed topic into one newest-frame slot.

Messages are taken serialized: the callback stores a reference and returns, and a damaged message fails in the request that takes
it, not in the executor. Knows topics; decodes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from mobilevlm_ros.ros import qos
from mobilevlm_ros.ros.camera import CameraSlot, Snapshot
from mobilevlm_ros.ros.parameters import Transport


class CameraInput:
    """Feeds one slot. Opened while the node is active."""

    def __init__(self, node: Node, group: CallbackGroup, slot: CameraSlot, base: str) -> None:
        """
        Args:
            group: a group of its own, so that pictures come in whatever the requests do.
            base: the raw topic's relative name; remapping it moves the compressed topic along, as image_transport does.
        """
        self.slot = slot
        self._node = node
        self._group = group
        self.raw_topic = node.resolve_topic_name(base)
        remapped = node.resolve_topic_name(f"{base}/compressed")
        plain = node.resolve_topic_name(f"{base}/compressed", only_expand=True)
        self.compressed_topic = remapped if remapped != plain else f"{self.raw_topic}/compressed"
        self._subscriptions: dict[str, Any] = {}

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that are listened to now."""
        return tuple(self._subscriptions)

    def open(self, transport: Transport) -> None:
        """Starts to listen."""
        if transport is Transport.COMPRESSED:
            self._listen(self.compressed_topic, CompressedImage)
        else:
            self._listen(self.raw_topic, Image)
        if transport is Transport.AUTO:
            self.follow_graph()

    def follow_graph(self) -> None:
        """Listens to the compressed topic exactly while it alone has a publisher; for `Transport.AUTO`, called regularly."""
        only_compressed = not self._node.count_publishers(self.raw_topic) and bool(
            self._node.count_publishers(self.compressed_topic)
        )
        listening = self.compressed_topic in self._subscriptions
        if only_compressed and not listening:
            self._listen(self.compressed_topic, CompressedImage)
        elif listening and self._node.count_publishers(self.raw_topic):
            self._leave(self.compressed_topic)

    def close(self) -> None:
        """Stops to listen and forgets the newest frame, so that a later activation cannot answer from it."""
        for topic in list(self._subscriptions):
            self._leave(topic)
        self.slot.clear()

    def _listen(self, topic: str, kind: type[Image] | type[CompressedImage]) -> None:
        self._subscriptions[topic] = self._node.create_subscription(
            kind,
            topic,
            self._callback(kind),
            qos.camera(),
            callback_group=self._group,
            event_callbacks=_no_events(),
            qos_overriding_options=qos.overridable(),
            raw=True,
        )

    def _callback(self, kind: type[Image] | type[CompressedImage]) -> Callable[[bytes], None]:
        slot = self.slot
        return lambda serialized: slot.put(Snapshot(slot.name, serialized, kind))

    def _leave(self, topic: str) -> None:
        self._node.destroy_subscription(self._subscriptions.pop(topic))


def _no_events() -> Any:
    """Keeps rclpy from waiting for events of a subscription.

    Fast DDS tells of an event and of a message through one condition, so that from a picture's arrival until it is taken the
    executor would go round without a pause, and hold up the thread that is to take it.
    """
    try:
        from rclpy.event_handler import SubscriptionEventCallbacks
    except ImportError:  # Humble
        from rclpy.qos_event import SubscriptionEventCallbacks
    return SubscriptionEventCallbacks(use_default_callbacks=False)


def base_topic(camera: str, count: int) -> str:
    """Returns the raw topic's relative name: a single camera's is `image`, one of several has its name before it."""
    return "image" if count == 1 else f"{camera}/image"

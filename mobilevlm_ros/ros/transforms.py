"""Transforms between frames from tf2, always at a given stamp. tf2_ros is imported here, where something is to be transformed."""

from __future__ import annotations

import threading
from typing import Any

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time
from std_msgs.msg import Header

from mobilevlm_ros.space.errors import NoPositionError, Reason
from mobilevlm_ros.space.view import Transform

MISSING = "tf2_ros cannot be imported: install ros-$ROS_DISTRO-tf2-ros-py, or leave target_frame empty"


class Transforms:
    """Listens to /tf and /tf_static from the first need on. Safe to use from any thread but the executor's only one."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._buffer: Any = None
        self._listener: Any = None

    def open(self) -> None:
        """Begins to listen, so that the frames' past is known when a picture is asked about.

        Raises:
            NoPositionError: NO_TRANSFORM, where there is no tf2_ros.
        """
        with self._lock:
            if self._buffer is None:
                tf2_ros = tf2()
                self._buffer = tf2_ros.Buffer()
                self._listener = tf2_ros.TransformListener(self._buffer, self._node)

    def close(self) -> None:
        """Stops to listen and forgets the frames."""
        with self._lock:
            if self._listener is not None:
                self._listener.unregister()
            self._buffer = self._listener = None

    def lookup(self, target: str, header: Header, timeout: float) -> Transform:
        """Returns the transform from a header's frame into `target` at the header's stamp.

        Args:
            timeout: seconds to wait for a transform that reaches to the stamp.

        Raises:
            NoPositionError: NO_TRANSFORM, with tf2's reason.
        """
        if not header.frame_id:
            raise _none("the picture's header names no frame")
        self.open()
        with self._lock:
            buffer = self._buffer
        if buffer is None:
            raise _none("the node stopped to listen")
        try:
            found = buffer.lookup_transform(
                target, header.frame_id, Time.from_msg(header.stamp), timeout=Duration(seconds=timeout)
            ).transform
        except Exception as error:  # tf2 has several kinds, in a module that may not be there
            raise _none(f"no transform from '{header.frame_id}' to '{target}' at the picture's stamp: {error}") from error
        turn, move = found.rotation, found.translation
        return Transform.of((turn.x, turn.y, turn.z, turn.w), (move.x, move.y, move.z))


def tf2() -> Any:
    """Returns the module tf2_ros; raises NoPositionError(NO_TRANSFORM) where it cannot be imported."""
    try:
        import tf2_ros
    except Exception as error:  # absent on a pip-only machine; broken beside a newer NumPy
        raise _none(MISSING) from error
    return tf2_ros


def _none(message: str) -> NoPositionError:
    return NoPositionError(Reason.NO_TRANSFORM, message)

"""Annotated pictures as messages."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sensor_msgs", reason="needs the ROS messages")

from std_msgs.msg import Header

from mobilevlm_ros.ros.annotate import image_message
from mobilevlm_ros.ros.images import to_rgb


def test_a_picture_becomes_a_message_that_reads_back_the_same() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    message = image_message(pixels, Header(frame_id="optical"))
    assert (message.header.frame_id, message.encoding, message.step) == ("optical", "rgb8", 21)
    assert np.array_equal(to_rgb(message), pixels)

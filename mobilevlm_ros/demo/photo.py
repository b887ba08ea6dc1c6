"""Shows one picture as if a camera saw it: python -m mobilevlm_ros.demo.photo FILE

The picture is published five times a second as `sensor_msgs/Image` on `image`, with the time of sending as its stamp.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import rclpy
from PIL import Image as PillowImage
from PIL import ImageOps
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from mobilevlm_ros.demo.stopping import stop_event
from mobilevlm_ros.ros.annotate import image_message
from mobilevlm_ros.ros.images import Pixels

PERIOD = 0.2
LONGEST_SIDE = 1920
"""Larger pictures are made smaller first: a model sees a few hundred pixels of them."""


def load(path: Path) -> Pixels:
    """Returns a picture file's content the right way up, uint8 [height, width, 3] RGB; raises OSError for other files."""
    with PillowImage.open(path) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return np.asarray(picture)


def show(node: Node, pixels: Pixels) -> None:
    """Publishes until the process is told to stop."""
    publisher = node.create_publisher(Image, "image", 1)
    message = image_message(pixels, Header(frame_id="photo"))
    stop = stop_event()
    while not stop.wait(PERIOD):
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)


def main(arguments: list[str] | None = None) -> int:
    """Shows the picture until SIGINT or SIGTERM; returns 1 where it cannot be read."""
    parser = argparse.ArgumentParser(prog="mobilevlm_ros.demo.photo", description="Publish a picture as a camera would.")
    parser.add_argument("file", type=Path)
    parsed, ros_arguments = parser.parse_known_args(arguments)
    try:
        pixels = load(parsed.file)
    except OSError as error:
        print(f"{parsed.file}: {error}", file=sys.stderr)
        return 1
    rclpy.init(args=ros_arguments, signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    node = Node("demo_camera")
    try:
        show(node, pixels)
    finally:
        node.destroy_node()
        rclpy.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())

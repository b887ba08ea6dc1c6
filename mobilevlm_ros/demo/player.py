"""Plays a recorded bag's pictures into live topics, over and over: python -m mobilevlm_ros.demo.player BAG

The messages go out as they were recorded, byte for byte, but for their stamps, which become the time of sending. For each picture
that was sent, one line tells its number in the bag and its stamp, so that whoever started this knows what was to be seen when.
"""

from __future__ import annotations

import argparse
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rosbags.rosbag2 import Reader
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from mobilevlm_ros.demo.stopping import stop_event

KINDS = {f"sensor_msgs/msg/{kind.__name__}": kind for kind in (Image, CompressedImage, CameraInfo)}
PICTURES = (Image, CompressedImage)


@dataclass(frozen=True)
class Recorded:
    """A message of the bag. `time` is nanoseconds since the first one; `picture` its number among the pictures, -1 for others."""

    topic: str
    kind: type[Any]
    time: int
    cdr: bytes
    picture: int


def read(bag: Path) -> list[Recorded]:
    """Returns the bag's pictures and camera infos in their order; the bag is a folder or a single mcap file."""
    recorded: list[Recorded] = []
    with Reader(bag) as reader:
        pictures, start = 0, reader.start_time
        for connection, stamp, cdr in reader.messages():
            kind = KINDS.get(connection.msgtype)
            if kind is None:
                continue
            is_picture = kind in PICTURES
            recorded.append(Recorded(connection.topic, kind, stamp - start, bytes(cdr), pictures if is_picture else -1))
            pictures += is_picture
    return recorded


def restamped(cdr: bytes, stamp_ns: int) -> bytes:
    """Returns a serialized message that begins with a header, with another stamp in it."""
    order = "<" if cdr[1] & 1 else ">"  # CDR: four bytes that name the encoding, then the message
    changed = bytearray(cdr)
    struct.pack_into(f"{order}iI", changed, 4, *divmod(stamp_ns, 1_000_000_000))
    return bytes(changed)


def schedule(recorded: list[Recorded], rate: float, only: int | None) -> Iterator[tuple[float, Recorded]]:
    """Yields messages for ever, each with the seconds from the start at which it is due.

    Args:
        rate: 2 plays at double speed.
        only: repeats this picture, five times a second, instead of playing on.
    """
    if only is not None:
        chosen = [message for message in recorded if message.picture == only]
        chosen += [message for message in recorded if message.picture < 0][:1]
        period, length = 0.2, 0
    else:
        chosen = recorded
        length = recorded[-1].time
        period = (length / max(1, len(recorded) - 1) + length) / 1e9
    turn = 0
    while True:
        for message in chosen:
            due = turn * period + (message.time / 1e9 if length else 0.0)
            yield due / rate, message
        turn += 1


def play(node: Node, recorded: list[Recorded], rate: float, only: int | None) -> None:
    """Publishes until the process is told to stop."""
    qos = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.RELIABLE)
    kinds = {message.topic: message.kind for message in recorded}
    publishers = {topic: node.create_publisher(kind, topic, qos) for topic, kind in kinds.items()}
    stop = stop_event()
    start = time.monotonic()
    for due, message in schedule(recorded, rate, only):
        if stop.wait(max(0.0, start + due - time.monotonic())):
            return
        stamp = node.get_clock().now().nanoseconds
        publishers[message.topic].publish(restamped(message.cdr, stamp))
        if message.picture >= 0:
            print(f"picture {message.picture} {stamp}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Plays until SIGINT or SIGTERM; returns 1 for a bag without pictures."""
    parser = argparse.ArgumentParser(prog="mobilevlm_ros.demo.player", description="Play a bag's pictures into live topics.")
    parser.add_argument("bag", type=Path, help="bag folder or mcap file")
    parser.add_argument("--rate", type=float, default=1.0, help="2 plays at double speed")
    parser.add_argument("--only", type=int, help="repeat the picture of this number")
    parsed = parser.parse_args(arguments)
    recorded = read(parsed.bag)
    if not any(message.picture >= 0 for message in recorded):
        print(f"{parsed.bag}: holds no pictures", file=sys.stderr)
        return 1
    rclpy.init(signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    node = Node("demo_camera")
    try:
        play(node, recorded, parsed.rate, parsed.only)
    finally:
        node.destroy_node()
        rclpy.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())

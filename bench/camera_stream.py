"""A camera that watches who receives its pictures: publishes them at a rate, and notes the receiver's processor time for each.

`python -m bench.camera_stream --watch PID`. Just before a picture leaves, the receiver has dealt with the one before; so the time
between two notes is what one picture costs it, as long as it does nothing else. SIGINT ends it; it then prints one JSON line.
"""

from __future__ import annotations

import argparse
import array
import json
import time
from functools import cache

import numpy as np

from bench.processor_time import ThreadClock

TOPIC = "image"
_DIFFERENT = 100_000
_SETTLE_SECONDS = 0.5
"""A subscription that has just been found may miss what is published at once."""


@cache
def _noise(pixels: int) -> bytes:
    return np.random.default_rng(0).bytes(3 * (pixels + _DIFFERENT))


def picture_bytes(number: int, width: int, height: int) -> memoryview:
    """The RGB bytes of the picture with a number: noise, one pixel further on in each picture, the same in every process."""
    start = 3 * (number % _DIFFERENT)
    return memoryview(_noise(width * height))[start : start + 3 * width * height]


def stream(pid: int, rate: float, width: int, height: int) -> dict[str, object]:
    """Publishes until SIGINT or SIGTERM.

    Returns:
        `published`, a number of pictures, and `notes`: monotonic seconds, and the milliseconds of process `pid`'s own and of its
        middleware's threads, just before each of them.
    """
    import rclpy
    from rclpy.qos import QoSProfile, QoSReliabilityPolicy
    from sensor_msgs.msg import Image

    from mobilevlm_ros.demo.stopping import stop_event

    rclpy.init(signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    stop = stop_event()
    node = rclpy.create_node("bench_camera")
    publisher = node.create_publisher(Image, TOPIC, QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT))
    clock = ThreadClock(pid)
    _noise(width * height)
    while not publisher.get_subscription_count() and not stop.wait(0.05):
        pass
    stop.wait(_SETTLE_SECONDS)
    notes: list[tuple[float, float, float]] = []
    due = time.monotonic()
    while not stop.wait(max(0.0, due - time.monotonic())):
        spent = clock.read()
        notes.append((time.monotonic(), spent.own_ms, spent.transport_ms))
        message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
        message.header.stamp = node.get_clock().now().to_msg()
        message.header.frame_id = str(len(notes) - 1)
        data = array.array("B")
        data.frombytes(picture_bytes(len(notes) - 1, width, height))
        message.data = data
        publisher.publish(message)
        due = max(due + 1 / rate, time.monotonic())
    node.destroy_node()
    rclpy.shutdown()
    return {"published": len(notes), "notes": notes}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--watch", type=int, required=True, metavar="PID", help="the process that receives the pictures")
    parser.add_argument("--rate", type=float, default=30.0, help="pictures a second")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=720)
    args = parser.parse_args()
    print(json.dumps(stream(args.watch, args.rate, args.width, args.height)), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""The demo: a camera in a ROS 2 graph, questions answered and things pointed out. Started by ./demo

Ends with 0 only if every request was answered, every answer was right where the truth is known, and every process ended cleanly.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from mobilevlm_ros.demo import processes
from mobilevlm_ros.models import NANO

EPILOG = """\
examples:
  ./demo                                  a recorded tabletop: three questions, two things found, one conversation
  ./demo --image photo.jpg                questions about a picture
  ./demo --camera /camera/image_raw       questions about a camera of yours, in your ROS graph
  ./demo --model FOLDER --image cat.png   the same with another model package
"""


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Returns the command line's values."""
    parser = argparse.ArgumentParser(
        prog="./demo",
        description="A ROS 2 node with a MobileVLM inside answers questions about a camera's pictures and points things out.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--camera", metavar="TOPIC", help="raw image topic of a camera that is running already")
    source.add_argument("--image", metavar="FILE", type=Path, help="picture to ask about")
    parser.add_argument("--model", default=NANO, metavar="PACKAGE", help="model package (default: the one that ships)")
    parser.add_argument("--output", type=Path, default=Path("demo_output"), metavar="FOLDER", help="where pictures are written")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Runs the demo; returns the exit code, 130 after Ctrl-C."""
    parsed = parse(arguments)
    if parsed.image and not parsed.image.is_file():
        print(f"./demo: there is no picture '{parsed.image}'", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell may have started us with it ignored
        signal.signal(number, signal.default_int_handler)
    if not parsed.camera:
        processes.use_own_graph()
    processes.use_large_images()
    # Only now: ROS reads the environment when it is first used.
    from mobilevlm_ros.demo.run import run

    with tempfile.TemporaryDirectory(prefix="mobilevlm_demo_") as logs:
        try:
            return run(parsed, Path(logs))
        except KeyboardInterrupt:
            print("\n  stopped")
            return 130


if __name__ == "__main__":
    sys.exit(main())

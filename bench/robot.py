"""What measurements of the node share: a robot of two processes, the node with the nano model and a camera.

Each measurement is on a ROS graph of its own on this machine alone. Knows how to start and await the processes; what is measured
is for others.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mobilevlm_ros.client import VLM
from mobilevlm_ros.demo.processes import Child, use_large_images, use_own_graph
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError

START_SECONDS = 60.0
_INTERRUPTED = 130

Progress = Callable[[str, float], None]
"""Told the phase, and how many seconds have gone by since the last time."""
T = TypeVar("T")


class BenchError(Exception):
    """The measurement cannot go on; one line."""


@dataclass(frozen=True)
class Pictures:
    """What the camera sends: pictures a second, and their size in pixels."""

    rate: float
    width: int
    height: int

    @staticmethod
    def add_options(parser: ArgumentParser, size: str) -> None:
        """Adds the options that `read` reads; `size` is the default."""
        parser.add_argument("--rate", type=float, default=30.0, help="the camera's pictures a second, 1 to 1000")
        parser.add_argument("--size", default=size, metavar="WxH", help=f"of the pictures, in pixels (default: {size})")

    @staticmethod
    def read(parser: ArgumentParser, args: Namespace, least: int) -> Pictures:
        """Ends the program with a line where an option makes no sense; `least` is the shortest side."""
        width, _, height = args.size.partition("x")
        if not (width.isdigit() and height.isdigit() and least <= int(width) <= 8192 and least <= int(height) <= 8192):
            parser.error(f"--size is '{args.size}', it must be like 640x480, each side {least} to 8192")
        if not 1 <= args.rate <= 1000:
            parser.error("--rate must be 1 to 1000")
        return Pictures(args.rate, int(width), int(height))

    def camera(self, served: Child, environment: dict[str, str], folder: Path, lines: list[str]) -> Child:
        """A camera that watches the node's process; what it prints at its end is added to `lines`."""
        words = ["--watch", served.pid, "--rate", self.rate, "--width", self.width, "--height", self.height]
        return Child("bench.camera_stream", list(map(str, words)), environment, folder / "camera.log", lines.append)


def node_arguments(name: str, parameters: Mapping[str, object]) -> list[str]:
    """The node's command line."""
    words = [word for key, value in parameters.items() for word in ("-p", f"{key}:={value}")]
    return ["--ros-args", "-r", f"__node:={name}", *words]


def wait_for_answer(vlm: VLM, served: Child, camera: Child, log: Path) -> None:
    """Asks until the first answer comes; raises BenchError, with the end of the node's log, where none does."""
    began = time.monotonic()
    while True:
        try:
            vlm.ask("Is it there?", max_tokens=1, timeout=2.0)
            return
        except VlmError as error:
            ended = served.ended is not None or camera.ended is not None or error.code is ErrorCode.MODEL_ERROR
            if ended or time.monotonic() - began > START_SECONDS:
                raise BenchError(f"the node does not answer: {error.message} ({last_line(log)})") from error
        time.sleep(0.1)


def last_line(log: Path) -> str:
    """The end of a process's log, for an error."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "its log is empty"


def on_own_graph(name: str, seconds: float, gather: Callable[[dict[str, str], Path, Progress], T]) -> T | int:
    """Runs a measurement that takes so many seconds, showing its progress; `name` is the program's.

    `gather` is given the child processes' environment and a folder for their logs. Returns what it returns, or the exit status
    after one line: 1 where it raised BenchError, 130 after Ctrl-C.
    """
    from tqdm import tqdm

    use_own_graph()
    use_large_images()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
    with tempfile.TemporaryDirectory() as folder, tqdm(total=seconds, file=sys.stderr, bar_format=form, mininterval=0.5) as bar:
        bar.set_description("starting")

        def progress(phase: str, gone: float) -> None:
            bar.set_description(phase)
            bar.update(min(gone, seconds - bar.n))

        try:
            return gather({**os.environ, "ROS_LOG_DIR": folder}, Path(folder), progress)
        except BenchError as error:
            bar.write(f"{name}: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            bar.write(f"{name}: interrupted", file=sys.stderr)
            return _INTERRUPTED

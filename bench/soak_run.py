"""Runs the real node with a camera for a while, asks it everything that can be asked, and watches what it uses.

Clients of this process ask in turns, right and wrong questions, take answers back and let deadlines pass, as fast as the node
answers. Knows how to ask; what the figures mean is `bench.soak`'s.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rclpy
from rclpy.node import Node

from bench.processor_time import anonymous_bytes
from bench.robot import START_SECONDS, BenchError, Pictures, Progress, last_line, node_arguments, wait_for_answer
from mobilevlm_ros.client import VLM, spinning
from mobilevlm_ros.demo.processes import Child
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError

NAME = "soak_vlm"
CLIENTS = 2
CACHE_MB = 16
"""Memory for recent pictures: little, so that it is full before the node's memory is looked at."""
EXPECTED = (
    *(ErrorCode.NONE, ErrorCode.BAD_REQUEST, ErrorCode.PROMPT_TOO_LONG, ErrorCode.BUSY, ErrorCode.DEADLINE_EXCEEDED),
    *(ErrorCode.CANCELLED, ErrorCode.NO_GROUNDING, ErrorCode.STALE_IMAGE),
)
"""How requests of this run may end; the others mean a fault of the node."""


@dataclass(frozen=True)
class Plan:
    """How long, in seconds, and what the camera sends."""

    seconds: float
    pictures: Pictures

    @property
    def period(self) -> float:
        """Seconds between two samples."""
        return min(5.0, max(0.1, self.seconds / 200))


@dataclass(frozen=True)
class Sample:
    """The node at a moment: `time.monotonic` seconds, bytes of its own, threads and open files."""

    moment: float
    memory: int
    threads: int
    files: int


@dataclass(frozen=True)
class Gathered:
    """What came of a run: the samples, how requests ended, pictures that were sent, and pictures that the node answered about."""

    samples: tuple[Sample, ...]
    ends: dict[ErrorCode, int]
    published: int
    seen: int


def gather(plan: Plan, environment: dict[str, str], folder: Path, progress: Progress) -> Gathered:
    """Runs everything, and ends what it started.

    Args:
        environment: of the child processes.
        folder: for their logs.

    Raises:
        BenchError: the node ended, never answered, or a request ended as none should; with the end of its log.
    """
    lines: list[str] = []
    log = folder / "node.log"
    with ExitStack() as stack:
        parameters = {"model": "nano", "prefix_cache_mb": CACHE_MB, "max_image_age": 10.0}
        served = stack.enter_context(Child("mobilevlm_ros.ros.node", node_arguments(NAME, parameters), environment, log))
        camera = stack.enter_context(plan.pictures.camera(served, environment, folder, lines))
        vlm = VLM(stack.enter_context(_spun_node()), NAME, connect_timeout=START_SECONDS)
        wait_for_answer(vlm, served, camera, log)
        crowd = _Crowd(vlm)
        try:
            with crowd:
                samples = _watch(plan, served, crowd, progress)
        except OSError as error:
            raise BenchError(f"{error} ({last_line(log)})") from error
        camera.stop()
    if crowd.problem:
        raise BenchError(f"{crowd.problem} ({last_line(log)})")
    return Gathered(samples, dict(crowd.ends), json.loads(lines[-1])["published"] if lines else 0, len(crowd.seen))


class _Crowd:
    """The clients. A context manager: they ask while its block runs."""

    def __init__(self, vlm: VLM) -> None:
        self._vlm = vlm
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]
        self.ends: Counter[ErrorCode] = Counter()
        self.seen: set[str] = set()
        self.problem = ""

    def __enter__(self) -> _Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        for turn in itertools.count(number):
            if self._stop.is_set() or self.problem:
                return
            request = _REQUESTS[turn % len(_REQUESTS)]
            try:
                end, picture = ErrorCode.NONE, request(self._vlm, turn)
            except VlmError as error:
                end, picture = error.code, ""
                if error.code not in EXPECTED:
                    self.problem = f"a request ended with {error.code.name}: {error.message}"
            except Exception as error:  # noqa: BLE001 - told by the main thread
                end, picture, self.problem = ErrorCode.NONE, "", f"{type(error).__name__}: {error}"
            with self._lock:
                self.ends[end] += 1
                self.seen |= {picture} - {""}


def _watch(plan: Plan, served: Child, crowd: _Crowd, progress: Progress) -> tuple[Sample, ...]:
    samples: list[Sample] = []
    end = time.monotonic() + plan.seconds
    while (now := time.monotonic()) < end and not crowd.problem:
        if served.ended is not None:
            raise OSError(f"the node has ended with {served.ended}")
        folder = Path(f"/proc/{served.pid}")
        files, threads = len(list((folder / "fd").iterdir())), len(list((folder / "task").iterdir()))
        samples.append(Sample(now, anonymous_bytes(served.pid), threads, files))
        step = min(plan.period, max(0.0, end - now))
        time.sleep(step)
        progress("soaking", step)
    return tuple(samples)


def _question(vlm: VLM, turn: int) -> str:
    """Questions of many lengths."""
    return str(vlm.ask("What is on the table? " * (1 + turn % 7), max_tokens=8).info.header.frame_id)


def _grounding(vlm: VLM, turn: int) -> str:
    return str(vlm.ground(("the ball", "the red mug", "all boxes")[turn % 3]).info.header.frame_id)


def _choice(vlm: VLM, turn: int) -> str:
    return str(vlm.classify("What color is it?", ["red", "green", "blue"]).info.header.frame_id)


def _region(vlm: VLM, turn: int) -> str:
    return str(vlm.describe((2.0, 2.0, 90.0, 90.0), max_tokens=8).info.header.frame_id)


def _talk(vlm: VLM, turn: int) -> str:
    """A turn of one of some conversations, at times one that was forgotten."""
    stream = vlm.chat("And what else is there?", f"talk {turn % 40}", max_tokens=8)
    stream.text()
    return ""


def _taken_back(vlm: VLM, turn: int) -> str:
    """An answer that is taken back after its first words."""
    with vlm.chat("What is on the table?", max_tokens=64) as stream:
        next(iter(stream), "")
    return ""


def _too_late(vlm: VLM, turn: int) -> str:
    vlm.ask("What is on the table?", max_tokens=200, timeout=0.02)
    return ""


def _too_long(vlm: VLM, turn: int) -> str:
    vlm.ask("word " * 3000)
    return ""


def _nobodys_camera(vlm: VLM, turn: int) -> str:
    vlm.ask("What is it?", camera=f"nobody {turn}")
    return ""


_REQUESTS: tuple[Callable[[VLM, int], str], ...] = (
    *(_question, _grounding, _choice, _talk, _region, _question, _taken_back),
    *(_too_late, _question, _talk, _too_long, _grounding, _nobodys_camera),
)


@contextmanager
def _spun_node() -> Iterator[Any]:
    """The clients' node, spun in a thread of its own; Ctrl-C stays Python's."""
    rclpy.init(args=[], signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    node = Node("soak_clients")
    try:
        with spinning(node):
            yield node
    finally:
        node.destroy_node()
        rclpy.shutdown()

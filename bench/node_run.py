"""Runs the real node with a camera beside it, asks it and an engine of this process the same, and gathers what that took.

Three phases: a warm-up with questions, a rest in which the node has only the camera to serve, and the questions that are timed:
one to the node, one about the same picture to the engine, and so on, so that both see the same machine.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node

from bench.camera_stream import picture_bytes
from bench.processor_time import anonymous_bytes
from bench.robot import START_SECONDS, BenchError, Pictures, Progress, last_line, node_arguments, wait_for_answer
from mobilevlm_ros import tasks
from mobilevlm_ros.client import VLM
from mobilevlm_ros.demo.processes import Child
from mobilevlm_ros.models import shipped_package
from mobilevlm_ros.runtime.engine import Engine, EngineConfig
from mobilevlm_ros.runtime.errors import VlmError
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.sampling import SamplingParams
from mobilevlm_ros.tasks.settings import Settings

NAME = "bench_vlm"
QUESTION = "What is on the table?"
MAX_TOKENS = 16
CACHE_MB = 16
"""Memory for recent pictures, here and in the node: little, so that it is full before the node's memory is looked at."""
_PAUSE_SECONDS = 0.02
_MEMORY_SECONDS = 0.25


@dataclass(frozen=True)
class Plan:
    """What to measure: seconds of questions, and what the camera sends."""

    seconds: float
    pictures: Pictures

    @property
    def warm_up(self) -> float:
        """Seconds of questions that are not counted."""
        return max(1.0, self.seconds / 4)

    @property
    def rest(self) -> float:
        """Seconds without questions."""
        return max(1.0, self.seconds / 3)

    @property
    def diagnostics_period(self) -> float:
        """Seconds; long, so that in the rest telling of itself is in fewer than one of a hundred pictures' time."""
        return min(5.0, max(0.5, self.seconds / 10))


@dataclass(frozen=True)
class Asked:
    """One question, in milliseconds: to the node and to the engine, until the answer is there and the result's own stages."""

    node_ms: float
    node_stages_ms: float
    engine_ms: float
    engine_stages_ms: float


@dataclass(frozen=True)
class Gathered:
    """What came of a run.

    Attributes:
        asked: the timed questions.
        callbacks_ms: how long the callback ran for each picture of the rest, on the clock.
        callback_thread_ms: processor time of the callback's thread from one picture to the next: taking it from the middleware
            and the callback.
        own_ms, transport_ms: processor time for each picture, of all the node's own threads and of the middleware's.
        published, received: pictures that the camera sent, and that the node's diagnostics count.
        memory: monotonic seconds and the node's anonymous bytes, while it was asked.
    """

    asked: tuple[Asked, ...]
    callbacks_ms: tuple[float, ...]
    callback_thread_ms: tuple[float, ...]
    own_ms: tuple[float, ...]
    transport_ms: tuple[float, ...]
    published: int
    received: int
    memory: tuple[tuple[float, int], ...]


def gather(plan: Plan, environment: dict[str, str], folder: Path, progress: Progress) -> Gathered:
    """Runs everything, and ends what it started.

    Args:
        environment: of the child processes.
        folder: for their logs.

    Raises:
        BenchError: a process ended or never answered; with the end of its log.
    """
    lines: list[str] = []
    node_lines: list[str] = []
    with ExitStack() as stack:
        engine = stack.enter_context(Engine.open(shipped_package(), EngineConfig(prefix_cache_mb=CACHE_MB)))
        node_log = folder / "node.log"
        served = stack.enter_context(Child("bench.watched_node", _node_arguments(plan), environment, node_log, node_lines.append))
        camera = stack.enter_context(plan.pictures.camera(served, environment, folder, lines))
        run = _Run(plan, engine, served, camera, stack.enter_context(_own_node()), progress)
        try:
            wait_for_answer(run.vlm, served, camera, node_log)
            run.ask_for("warming up", plan.warm_up)
            began, ended = run.rest()
            asked, memory = run.ask_for("asking", plan.seconds)
            camera.stop()
            received = run.received()
            served.stop()
        except (VlmError, OSError) as error:
            raise BenchError(f"{error} ({last_line(node_log)})") from error
    if not lines or not node_lines:
        raise BenchError(f"camera or node told nothing ({last_line(folder / 'camera.log')}; {last_line(node_log)})")
    told = json.loads(lines[-1])
    sent, came = _between(told["notes"], began, ended), _between(json.loads(node_lines[-1]), began, ended)
    if min(len(sent), len(came)) < 2:
        raise BenchError(f"of {len(sent)} pictures {len(came)} came, too few to tell what one costs")
    own, transport = np.diff(sent[:, 1:], axis=0).T
    return Gathered(
        asked=asked,
        callbacks_ms=tuple(came[:, 1].tolist()),
        callback_thread_ms=tuple(np.diff(came[:, 2]).tolist()),
        own_ms=tuple(own.tolist()),
        transport_ms=tuple(transport.tolist()),
        published=told["published"],
        received=received,
        memory=memory,
    )


def _between(notes: list[list[float]], began: float, ended: float) -> np.ndarray:
    """The notes of a time, float64 [notes, 3]."""
    return np.array([note for note in notes if began <= note[0] <= ended]).reshape(-1, 3)


class _Run:
    """The phases."""

    def __init__(self, plan: Plan, engine: Engine, served: Child, camera: Child, own: Node, progress: Progress) -> None:
        self._plan, self._engine, self._served, self._camera, self._own = plan, engine, served, camera, own
        self._progress = progress
        self.vlm = VLM(own, NAME, connect_timeout=START_SECONDS)
        self._diagnostics: list[DiagnosticArray] = []
        self._subscription = own.create_subscription(DiagnosticArray, "/diagnostics", self._diagnostics.append, 10)

    def rest(self) -> tuple[float, float]:
        """Leaves the node alone with its camera; returns the first and last moment of that, in monotonic seconds."""
        time.sleep(0.5)
        began = time.monotonic()
        while (gone := time.monotonic() - began) < self._plan.rest:
            self._check_children()
            step = min(0.5, self._plan.rest - gone)
            time.sleep(step)
            self._progress("only the camera", step)
        return began, time.monotonic()

    def ask_for(self, phase: str, seconds: float) -> tuple[tuple[Asked, ...], tuple[tuple[float, int], ...]]:
        """Asks the node and the engine in turns; returns the questions' times and the samples of the node's memory."""
        asked: list[Asked] = []
        memory: list[tuple[float, int]] = []
        began = now = time.monotonic()
        while now - began < seconds:
            self._check_children()
            asked.append(self._ask())
            if not memory or now - memory[-1][0] >= _MEMORY_SECONDS:
                memory.append((now, anonymous_bytes(self._served.pid)))
            before, now = now, time.monotonic()
            self._progress(phase, now - before)
        return tuple(asked), tuple(memory)

    def received(self) -> int:
        """How many pictures the node has counted, when none come any longer."""
        del self._diagnostics[:]
        executor = self._own.executor
        assert executor is not None, "the client has asked, so it has an executor"
        end = time.monotonic() + 2 * self._plan.diagnostics_period + 5.0
        while len(self._diagnostics) < 2:  # the first may have been on its way already
            if time.monotonic() > end:
                raise BenchError("the node's diagnostics do not come")
            executor.spin_once(timeout_sec=0.2)
        for status in self._diagnostics[-1].status:
            for value in status.values:
                if value.key == "frames received":
                    return int(value.value)
        raise BenchError("the node's diagnostics count no frames")

    def _ask(self) -> Asked:
        time.sleep(_PAUSE_SECONDS)
        start = time.perf_counter()
        answer = self.vlm.ask(QUESTION, max_tokens=MAX_TOKENS)
        node_ms = (time.perf_counter() - start) * 1e3
        width, height = self._plan.pictures.width, self._plan.pictures.height
        seen = picture_bytes(int(answer.info.header.frame_id), width, height)
        frame = Frame(np.frombuffer(seen, np.uint8).reshape(height, width, 3))
        time.sleep(_PAUSE_SECONDS)
        start = time.perf_counter()
        result = tasks.ask(self._engine, frame, QUESTION, Settings(SamplingParams(MAX_TOKENS, temperature=0.0)))
        engine_ms = (time.perf_counter() - start) * 1e3
        return Asked(node_ms, _stages_ms(answer.info.timing), engine_ms, _stages_ms(result.timing))

    def _check_children(self) -> None:
        for child in (self._served, self._camera):
            if child.ended is not None:
                raise OSError(f"{child.name} has ended with {child.ended}")


def _stages_ms(timing: Any) -> float:
    """All stages, of the runtime's `Timing` or of the message of the same fields."""
    return float(timing.queue_ms + timing.encode_ms + timing.prefill_ms + timing.decode_ms)


def _node_arguments(plan: Plan) -> list[str]:
    parameters = {"model": "nano", "prefix_cache_mb": CACHE_MB, "diagnostics_period": plan.diagnostics_period, "temperature": 0.0}
    parameters["camera_linger"] = 0.0  # so that the pictures of the rest, in which nobody asks, come too
    return node_arguments(NAME, parameters)


@contextmanager
def _own_node() -> Iterator[Any]:
    """The client's node; Ctrl-C stays Python's."""
    rclpy.init(args=[], signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    node = Node("bench_client")
    try:
        yield node
    finally:
        node.destroy_node()
        rclpy.shutdown()

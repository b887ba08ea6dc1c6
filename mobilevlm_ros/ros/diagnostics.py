"""What the node tells of itself on `/diagnostics`: one status for the model and one for each camera.

A plain message, because diagnostic_updater is not to be had without a full ROS install. Counts what it is told and compares
with its last turn; knows neither the model nor the cameras beyond the values they hand over.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from mobilevlm_ros.ros.messages import Outcome
from mobilevlm_ros.ros.model import ModelStats
from mobilevlm_ros.runtime.errors import ErrorCode
from mobilevlm_ros.runtime.requests import Timing
from mobilevlm_ros.tasks.results import Result

_FAULTS = (ErrorCode.OUT_OF_MEMORY, ErrorCode.MODEL_ERROR)
"""Errors that mean that something is wrong with the node, not with a request or a camera."""


@dataclass(frozen=True)
class NodeView:
    """The node at one moment. `problem` is why it could not be configured, empty where nothing is wrong."""

    state: str
    problem: str
    model: str
    stats: ModelStats | None
    inside: int
    sessions: int


@dataclass(frozen=True)
class CameraView:
    """A camera at one moment. `age` is the newest frame's in seconds, None without one."""

    name: str
    topics: tuple[str, ...]
    received: int
    age: float | None
    max_age: float


class Ledger:
    """Remembers how requests ended. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[ErrorCode] = Counter()
        self._timing: Timing | None = None
        self._fault = ""

    def note(self, outcome: Outcome[Result]) -> None:
        """Counts an outcome; keeps its times, and its words where the node itself is at fault."""
        with self._lock:
            self._counts[outcome.error] += 1
            if outcome.result is not None:
                self._timing = outcome.result.timing
            if outcome.error in _FAULTS:
                self._fault = outcome.error_msg
            elif outcome.error is ErrorCode.NONE:
                self._fault = ""

    def read(self) -> tuple[dict[ErrorCode, int], Timing | None, str]:
        """Returns the counts, the last request's times and the fault that no later success has cleared."""
        with self._lock:
            return dict(self._counts), self._timing, self._fault


class Diagnostics:
    """Makes the messages; one caller."""

    def __init__(self, node_name: str, hardware_id: str, ledger: Ledger) -> None:
        self._name = node_name
        self._hardware_id = hardware_id
        self._ledger = ledger
        self._received: dict[str, tuple[int, float]] = {}

    def message(self, stamp: Time, now: float, node: NodeView, cameras: Iterable[CameraView]) -> DiagnosticArray:
        """Returns the state of things.

        Args:
            stamp: for the header.
            now: `time.monotonic` seconds, for the cameras' rates.
        """
        array = DiagnosticArray()
        array.header.stamp = stamp
        array.status = [self._node_status(node), *(self._camera_status(view, now, node.state) for view in cameras)]
        return array

    def _node_status(self, view: NodeView) -> DiagnosticStatus:
        counts, timing, fault = self._ledger.read()
        values: dict[str, object] = {"state": view.state, "model": view.model, "requests inside": view.inside}
        values["conversations"] = view.sessions
        if view.stats is not None:
            values["backend"] = view.stats.backend
            values["requests waiting for the model"] = view.stats.waiting
            values["requests being answered"] = view.stats.running
            values["prefix cache MiB"] = f"{view.stats.prefix_cache_bytes / 2**20:.1f}"
        for code in ErrorCode:
            if counts.get(code):
                values["requests ended well" if code is ErrorCode.NONE else f"requests ended {code.name}"] = counts[code]
        if timing is not None:
            for stage in ("queue", "encode", "prefill", "decode"):
                values[f"last {stage} ms"] = f"{getattr(timing, f'{stage}_ms'):.1f}"
        level, text = DiagnosticStatus.OK, view.state
        if view.problem:
            level, text = DiagnosticStatus.ERROR, view.problem
        elif fault:
            level, text = DiagnosticStatus.ERROR, fault
        elif view.state != "active":
            level = DiagnosticStatus.WARN
        return self._status("model", level, text, values)

    def _camera_status(self, view: CameraView, now: float, state: str) -> DiagnosticStatus:
        rate = self._rate(view, now)
        values: dict[str, object] = {"topics": " ".join(view.topics), "frames received": view.received}
        values["rate Hz"] = f"{rate:.1f}"
        if view.age is not None:
            values["newest frame's age s"] = f"{view.age:.2f}"
        level, text = DiagnosticStatus.OK, f"{rate:.1f} Hz"
        if state != "active":
            text = "not listened to while the node is not active"
        elif view.age is None:
            level, text = DiagnosticStatus.WARN, "no picture yet"
        elif abs(view.age) > view.max_age:
            level, text = DiagnosticStatus.STALE, f"the newest picture is {view.age:.2f} s old"
        return self._status(f"camera {view.name}", level, text, values)

    def _rate(self, view: CameraView, now: float) -> float:
        before, then = self._received.get(view.name, (view.received, now))
        self._received[view.name] = (view.received, now)
        return (view.received - before) / (now - then) if now > then else 0.0

    def _status(self, what: str, level: bytes, text: str, values: dict[str, object]) -> DiagnosticStatus:
        return DiagnosticStatus(
            level=level,
            name=f"{self._name}: {what}",
            message=text,
            hardware_id=self._hardware_id,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )

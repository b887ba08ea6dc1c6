"""What the node tells of itself on `/diagnostics`: a status for the model, and one for each camera and each standing query.

A plain message, because diagnostic_updater is not to be had without a full ROS install. Counts what it is told and compares
with its last turn; knows neither the model nor the cameras beyond the values they hand over.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from mobilevlm_ros.ros.camera import Listening
from mobilevlm_ros.ros.ledger import Account, Ledger
from mobilevlm_ros.ros.model import ModelStats
from mobilevlm_ros.ros.standing_watch import Counts
from mobilevlm_ros.runtime.errors import ErrorCode

STAGES = ("queue", "encode", "prefill", "decode")


@dataclass(frozen=True)
class NodeView:
    """The node at one moment.

    Attributes:
        problem: why it could not be configured or has lost its model; empty where nothing is wrong.
        memory: bytes of the process in memory.
        progress: what is being done where that takes long, else empty.
    """

    state: str
    problem: str
    model: str
    stats: ModelStats | None
    inside: int
    sessions: int
    memory: int = 0
    progress: str = ""


@dataclass(frozen=True)
class CameraView:
    """A camera at one moment.

    Attributes:
        topics: those that are listened to while it is wanted.
        age: the newest frame's in seconds, None without one.
        problem: why the newest frame cannot be read, as far as a request has tried; else empty.
        depth: the topics that positions come from: depth and camera_info; none where it is not used.
    """

    name: str
    topics: tuple[str, ...]
    received: int
    age: float | None
    max_age: float
    listening: Listening = Listening.YES
    problem: str = ""
    depth: tuple[str, ...] = ()


@dataclass(frozen=True)
class QueryView:
    """A standing query at one moment: its turns, its last answer in short, and the trouble that lasts, empty for none."""

    name: str
    counts: Counts
    value: str
    trouble: str


class Diagnostics:
    """Makes the messages; one caller."""

    def __init__(self, node_name: str, hardware_id: str, ledger: Ledger) -> None:
        self._name = node_name
        self._hardware_id = hardware_id
        self._ledger = ledger
        self._received: dict[str, tuple[int, float]] = {}
        self._told: float | None = None

    def message(
        self, stamp: Time, now: float, node: NodeView, cameras: Iterable[CameraView], queries: Iterable[QueryView] = ()
    ) -> DiagnosticArray:
        """Returns the state of things.

        Args:
            stamp: for the header.
            now: `time.monotonic` seconds, for the rates.
        """
        array = DiagnosticArray()
        array.header.stamp = stamp
        array.status = [self._node_status(node, now), *(self._camera_status(view, now, node.state) for view in cameras)]
        array.status += [self._query_status(view) for view in queries]
        return array

    def _node_status(self, view: NodeView, now: float) -> DiagnosticStatus:
        account = self._ledger.account()
        values: dict[str, object] = {"state": view.state, "model": view.model, "requests inside": view.inside}
        values["conversations"] = view.sessions
        values["memory MiB"] = f"{view.memory / 2**20:.1f}"
        if view.stats is not None:
            values["backend"] = view.stats.backend
            values["requests waiting for the model"] = view.stats.waiting
            values["requests being answered"] = view.stats.running
            values["prefix cache MiB"] = f"{view.stats.prefix_cache_bytes / 2**20:.1f}"
        for code in ErrorCode:
            if count := account.counts.get(code):
                values["requests ended well" if code is ErrorCode.NONE else f"requests ended {code.name}"] = count
        seconds = now - self._told if self._told is not None else 0.0
        self._told = now
        values["requests per s"] = f"{account.ended / seconds if seconds > 0 else 0.0:.1f}"
        values |= _times(account)
        level, text = DiagnosticStatus.OK, view.state
        if problem := view.problem or account.fault:
            level, text = DiagnosticStatus.ERROR, problem
        elif view.state != "active":
            level, text = DiagnosticStatus.WARN, view.progress or view.state
        elif view.stats is not None and view.stats.notice:
            level, text = DiagnosticStatus.WARN, view.stats.notice
        return self._status("model", level, text, values)

    def _camera_status(self, view: CameraView, now: float, state: str) -> DiagnosticStatus:
        rate = self._rate(view, now)
        values: dict[str, object] = {"topics": " ".join(view.topics), "listened to": view.listening.value}
        if view.depth:
            values["depth topics"] = " ".join(view.depth)
        values["frames received"] = view.received
        values["rate Hz"] = f"{rate:.1f}"
        if view.age is not None:
            values["newest frame's age s"] = f"{view.age:.2f}"
        level, text = DiagnosticStatus.OK, f"{rate:.1f} Hz"
        if state != "active":
            text = "not listened to while the node is not active"
        elif view.listening is Listening.NO:
            text = "idle: nobody asks"
        elif view.listening is Listening.OPENING:
            text = "just begun to listen, no picture yet"
        elif view.problem:
            level, text = DiagnosticStatus.ERROR, view.problem
        elif view.age is None:
            level, text = DiagnosticStatus.WARN, "no picture yet"
        elif abs(view.age) > view.max_age:
            level, text = DiagnosticStatus.STALE, f"the newest picture is {view.age:.2f} s old"
        return self._status(f"camera {view.name}", level, text, values)

    def _query_status(self, view: QueryView) -> DiagnosticStatus:
        counts = view.counts
        values: dict[str, object] = {"asked": counts.asked, "skipped, picture unchanged": counts.unchanged}
        values |= {"lost, node busy": counts.busy, "errors": counts.errors, "last latency ms": f"{counts.latency_ms:.1f}"}
        level = DiagnosticStatus.WARN if view.trouble else DiagnosticStatus.OK
        return self._status(f"query {view.name}", level, view.trouble or view.value, values)

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


def _times(account: Account) -> dict[str, object]:
    """The last request's times; and of those that ended since the last message, where there are any, the mean and the longest."""
    rows = [("last", account.last)] if account.last is not None else []
    if account.timed:
        rows += [("mean", account.mean), ("longest", account.longest)]
    return {f"{name} {stage} ms": f"{getattr(timing, f'{stage}_ms'):.1f}" for name, timing in rows for stage in STAGES}

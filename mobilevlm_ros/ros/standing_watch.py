"""One standing query on its way: when its turn comes, whether the picture is worth asking about, and what came of it so far.

Values and arithmetic; knows no node, messages or threads. Its user calls it with a lock held.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import Enum

from mobilevlm_ros.ros.standing_change import Finding
from mobilevlm_ros.ros.standing_query import StandingQuery
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.requests import CancelToken
from mobilevlm_ros.tasks.change_gate import Sight

SECOND = 1_000_000_000
RETRY_SECONDS = 1.0
"""When a turn that was lost, because the node was busy or there was trouble, is made up for at the latest."""

TROUBLE_SECONDS = 3.0
"""Trouble that lasts less is counted, and told to nobody."""


class Due(Enum):
    """What a query waits for."""

    NO = "its turn"
    LOOK = "a look at its camera, whose frames it counts and which may have stalled"
    TURN = "nothing: it is its turn"


@dataclass
class Counts:
    """How a query's turns went.

    Attributes:
        asked: the model answered.
        unchanged: not asked, because the picture had not changed.
        busy: lost, because the node served others or the query was still being answered.
        errors: there was no picture to ask about, or the model failed.
        latency_ms: of the last answer, from taking the picture on.
    """

    asked: int = 0
    unchanged: int = 0
    busy: int = 0
    errors: int = 0
    latency_ms: float = 0.0


@dataclass(frozen=True)
class Moment:
    """A moment on the node's clock, in nanoseconds, and how many frames the query's camera has delivered."""

    now_ns: int
    received: int


@dataclass
class Trouble:
    """Something that keeps a query from being answered, since a moment in `time.monotonic` seconds; `told` once it is known."""

    since: float
    told: ErrorCode | None = None
    message: str = ""


@dataclass
class Watch:
    """A query and its state."""

    query: StandingQuery
    counts: Counts = field(default_factory=Counts)
    running: CancelToken | None = None
    finding: Finding | None = None
    trouble: Trouble | None = None
    turn: Moment | None = None
    """The last turn, and `None` where the first is due."""
    _retry_ns: int | None = None
    _looked: float = 0.0
    _asked_ns: int = 0
    _asked: Sight | None = None
    _model: str = ""

    def reset(self) -> None:
        """The node has become active: the next turn is due, and whatever the picture then shows is asked about."""
        self.turn, self._retry_ns, self._asked, self.trouble = None, None, None, None

    def due(self, now: Moment) -> Due:
        """What is to be done now."""
        if self._is_turn(now):
            return Due.TURN
        if self.query.frames and time.monotonic() - self._looked >= RETRY_SECONDS:
            return Due.LOOK
        return Due.NO

    def _is_turn(self, now: Moment) -> bool:
        if self.turn is None or now.now_ns < self.turn.now_ns:  # a recording began again, and the clock with it
            return True
        if self._retry_ns is not None and now.now_ns >= self._retry_ns:
            return True
        if self.query.frames:
            if not self.turn.received and now.received:  # the camera's first picture
                return True
            return now.received - self.turn.received >= self.query.frames
        return now.now_ns - self.turn.now_ns >= self.query.period * SECOND

    def take_turn(self, now: Moment) -> None:
        """The turn is used up, whatever becomes of it."""
        self.turn, self._retry_ns, self._looked = now, None, time.monotonic()

    def looked(self) -> None:
        """The camera was looked at, out of turn."""
        self._looked = time.monotonic()

    def wants(self, sight: Sight, now_ns: int, model: str, min_change: float) -> bool:
        """Whether the query is to be asked about this picture now.

        Args:
            model: the name of the model that would answer; another one than before may see something else.
            min_change: for a query that has none of its own.
        """
        if self._asked is None or self._model != model or (self.trouble and self.trouble.told):
            return True
        if not 0 <= now_ns - self._asked_ns < self.query.refresh * SECOND:
            return True
        least = min_change if self.query.min_change is None else self.query.min_change
        return least == 0 or sight.difference(self._asked) >= least

    def lost(self, now_ns: int) -> None:
        """The turn was lost to others."""
        self.counts.busy += 1
        self._postpone(now_ns)

    def failed(self, error: VlmError, now_ns: int) -> bool:
        """The turn ended in trouble; returns whether it has lasted long enough to be told, and has not been told."""
        self.counts.errors += 1
        self._postpone(now_ns)
        trouble = self.trouble = self.trouble or Trouble(time.monotonic())
        if trouble.told is error.code or time.monotonic() - trouble.since < TROUBLE_SECONDS:
            return False
        trouble.told, trouble.message = error.code, error.message
        return True

    def answered(self, finding: Finding, sight: Sight, now_ns: int, model: str) -> tuple[Finding | None, Trouble | None]:
        """The model answered; returns the finding before and the trouble that this ends."""
        before, trouble = self.finding, self.trouble
        if before is None or finding.differs_from(before):
            self.finding = finding
        self._asked, self._asked_ns, self._model, self.trouble = sight, now_ns, model, None
        self.counts.asked += 1
        return before, trouble

    def _postpone(self, now_ns: int) -> None:
        seconds = RETRY_SECONDS if self.query.frames else min(self.query.period, RETRY_SECONDS)
        self._retry_ns = now_ns + round(seconds * SECOND)

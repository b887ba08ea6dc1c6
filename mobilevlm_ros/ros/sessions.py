"""Conversations: their turns, kept by name, bounded in number, length and age. Knows no ROS and no model."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from mobilevlm_ros.ros.camera import Snapshot
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.prompt import Turn


@dataclass(frozen=True)
class Bounds:
    """How much is kept: conversations, turns of each, and seconds since the last turn."""

    sessions: int
    turns: int
    timeout: float


@dataclass
class Session:
    """One conversation. Its user holds it alone, see `Sessions.use`."""

    name: str
    turns: list[Turn] = field(default_factory=list)
    snapshot: Snapshot | None = None  # the picture of the last turn
    last_used: float = 0.0
    in_use: bool = False


class Sessions:
    """Keeps conversations. Safe to use from any thread."""

    def __init__(self, bounds: Callable[[], Bounds]) -> None:
        """Args: bounds: asked each time, so that they may change while the node runs."""
        self._bounds = bounds
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._sessions)

    @contextmanager
    def use(self, name: str) -> Iterator[Session]:
        """Gives the named conversation to the block alone; an empty name, or one that is not known, begins a new one.

        Raises:
            VlmError: BUSY, where the conversation is answering another message.
        """
        session = self._begin(name)
        try:
            yield session
        finally:
            self._end(session)

    def clear(self) -> None:
        """Forgets every conversation that is not in use."""
        with self._lock:
            for name in [name for name, session in self._sessions.items() if not session.in_use]:
                del self._sessions[name]

    def _begin(self, name: str) -> Session:
        with self._lock:
            self._forget_old()
            session = self._sessions.get(name) if name else None
            if session is None:
                session = Session(name or secrets.token_hex(4))
                self._sessions[session.name] = session
            elif session.in_use:
                raise VlmError(ErrorCode.BUSY, f"the conversation '{name}' is answering another message")
            session.in_use = True
            self._sessions.move_to_end(session.name)
            return session

    def _end(self, session: Session) -> None:
        bounds = self._bounds()
        with self._lock:
            session.in_use = False
            session.last_used = time.monotonic()
            del session.turns[: -bounds.turns]
            if not session.turns:
                self._sessions.pop(session.name, None)
            idle = [name for name, other in self._sessions.items() if not other.in_use]
            for name in idle[: max(0, len(self._sessions) - bounds.sessions)]:
                del self._sessions[name]

    def _forget_old(self) -> None:
        horizon = time.monotonic() - self._bounds().timeout
        for name, session in list(self._sessions.items()):
            if not session.in_use and session.last_used < horizon:
                del self._sessions[name]

"""The bounded line in which requests wait for the model."""

from __future__ import annotations

import threading
from typing import Generic, Protocol, TypeVar

from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.requests import Limits


class Waiting(Protocol):
    """What waits: anything with limits."""

    @property
    def limits(self) -> Limits: ...


J = TypeVar("J", bound=Waiting)


class WaitingLine(Generic[J]):
    """Higher priority first, then first come first served. Safe to use from several threads."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._jobs: list[J] = []
        self._closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: J) -> None:
        """Join the line.

        Raises:
            VlmError: BUSY at once if the line is full, NOT_ACTIVE if it is closed.
        """
        with self._changed:
            if self._closed:
                raise VlmError(ErrorCode.NOT_ACTIVE, "the model is not loaded any more")
            if len(self._jobs) >= self._capacity:
                raise VlmError(ErrorCode.BUSY, f"{self._capacity} requests are waiting already")
            self._jobs.append(job)
            self._changed.notify_all()

    def take(self) -> J | None:
        """The next job, or None if nobody waits."""
        with self._changed:
            if not self._jobs:
                return None
            best = max(range(len(self._jobs)), key=lambda i: (self._jobs[i].limits.priority, -i))
            return self._jobs.pop(best)

    def take_ended(self) -> list[J]:
        """Those whose deadline passed, or that were taken back, while they waited."""
        with self._changed:
            ended = [job for job in self._jobs if job.limits.ended()]
            self._jobs = [job for job in self._jobs if job not in ended]
            return ended

    def wait(self) -> bool:
        """Wait until somebody is in line; False once the line is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            return not self._closed

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self) -> list[J]:
        """Let nobody in any more; returns those who waited."""
        with self._changed:
            self._closed = True
            left, self._jobs = self._jobs, []
            self._changed.notify_all()
            return left

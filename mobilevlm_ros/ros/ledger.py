"""How requests ended: what diagnostics tell of them. Knows outcomes; knows neither messages nor the model."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import astuple, dataclass

from mobilevlm_ros.ros.messages import Outcome
from mobilevlm_ros.runtime.errors import ErrorCode
from mobilevlm_ros.runtime.requests import Timing
from mobilevlm_ros.tasks.results import Result

_FAULTS = (ErrorCode.OUT_OF_MEMORY, ErrorCode.MODEL_ERROR)
"""Errors that mean that something is wrong with the node, not with a request or a camera."""

_WORKS = (ErrorCode.NONE, ErrorCode.NO_GROUNDING)
"""Ends that show that the model works."""


@dataclass(frozen=True)
class Account:
    """What the ledger tells.

    Attributes:
        counts: how often requests ended in each way since the start.
        last: the times of the last request that reached the model.
        ended: requests that ended since the account before.
        timed: of these, those that reached the model.
        mean, longest: the times of those, stage by stage.
        fault: what is wrong with the node, as long as no later request has shown that it works again; else empty.
    """

    counts: dict[ErrorCode, int]
    last: Timing | None
    ended: int
    timed: int
    mean: Timing
    longest: Timing
    fault: str


class Ledger:
    """Remembers how requests ended. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[ErrorCode] = Counter()
        self._last: Timing | None = None
        self._fault = ""
        self._begin()

    def note(self, outcome: Outcome[Result]) -> None:
        """Counts an outcome; keeps its times, and its words where the node itself is at fault."""
        with self._lock:
            self._counts[outcome.error] += 1
            self._ended += 1
            if outcome.result is not None:
                self._add(outcome.result.timing)
            if outcome.error in _FAULTS:
                self._fault = outcome.error_msg
            elif outcome.error in _WORKS:
                self._fault = ""

    def account(self) -> Account:
        """Returns the state of things, and begins a new period."""
        with self._lock:
            mean = Timing(*(total / max(1, self._timed) for total in astuple(self._total)))
            account = Account(dict(self._counts), self._last, self._ended, self._timed, mean, self._longest, self._fault)
            self._begin()
            return account

    def _begin(self) -> None:
        self._ended = self._timed = 0
        self._total = self._longest = Timing()

    def _add(self, timing: Timing) -> None:
        self._last = timing
        self._timed += 1
        self._total = self._total + timing
        self._longest = Timing(*map(max, astuple(self._longest), astuple(timing)))

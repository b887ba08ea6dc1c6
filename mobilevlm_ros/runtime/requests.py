"""What the engine is asked for and what it gives back. Values and hand-over between threads; no model runs here."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Generic, TypeVar

import numpy as np

from mobilevlm_ros.runtime.errors import VlmError
from mobilevlm_ros.runtime.sampling import Alternatives


class Priority(IntEnum):
    """Which waiting request goes first; the numbers are those of `mobilevlm_msgs/RequestOptions`."""

    LOW = 0
    NORMAL = 1
    HIGH = 2


class FinishReason(Enum):
    """Why an answer ended."""

    STOP = "stop"  # the model ended it
    LENGTH = "length"  # max_tokens or the context was reached
    CANCELLED = "cancelled"
    DEADLINE = "deadline"


class CancelToken:
    """Lets any thread take a request back; it ends before its next token."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """Take the request back. May be called more than once, and after its end."""
        self._event.set()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._event.is_set()


@dataclass(frozen=True)
class Limits:
    """A request's place among others.

    Attributes:
        priority: among waiting requests the higher goes first, then the earlier.
        deadline: `time.monotonic()` seconds after which nobody wants the answer.
        cancel: takes the request back.
    """

    priority: Priority = Priority.NORMAL
    deadline: float | None = None
    cancel: CancelToken = field(default_factory=CancelToken)

    def ended(self) -> FinishReason | None:
        """Why the request should end now, if it should."""
        if self.cancel.cancelled:
            return FinishReason.CANCELLED
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return FinishReason.DEADLINE
        return None


class Cost:
    """Milliseconds that were spent once for several requests, and count for the first of them only."""

    def __init__(self, ms: float = 0.0) -> None:
        self._ms = ms

    def claim(self) -> float:
        """The milliseconds, the first time; 0 afterwards."""
        ms, self._ms = self._ms, 0.0
        return ms


@dataclass(frozen=True, eq=False)
class Picture:
    """A letterboxed picture, uint8 [size, size, 3] RGB, a digest that tells equal ones, and what making the two took."""

    pixels: np.ndarray
    digest: bytes
    cost: Cost = field(default_factory=Cost)


@dataclass(frozen=True)
class Timing:
    """Milliseconds that a request spent in each stage; a stage answered from a cache is 0.

    `encode_ms` is letterboxing the picture, which each picture needs once, and the vision encoder's run.
    """

    queue_ms: float = 0.0
    encode_ms: float = 0.0
    prefill_ms: float = 0.0
    decode_ms: float = 0.0

    def __add__(self, other: Timing) -> Timing:
        return Timing(
            self.queue_ms + other.queue_ms,
            self.encode_ms + other.encode_ms,
            self.prefill_ms + other.prefill_ms,
            self.decode_ms + other.decode_ms,
        )


@dataclass(frozen=True, eq=False)
class Generated:
    """A finished answer.

    Attributes:
        tokens: without the end token.
        probabilities: the model's probability for each token that was chosen; tokens that the answer's form forced have none.
        first_log_probabilities: the distribution that the first token was chosen from, as logarithms: float64 [vocab].
        finish: why it ended.
        prompt_tokens: the prompt's length, the picture's tokens included.
        timing: where the time went.
        alternatives: for each choice, what else could have stood there; empty unless the request's sampling asks for them.
    """

    tokens: tuple[int, ...]
    probabilities: tuple[float, ...]
    first_log_probabilities: np.ndarray
    finish: FinishReason
    prompt_tokens: int
    timing: Timing
    alternatives: tuple[Alternatives, ...] = ()


@dataclass(frozen=True)
class Scored:
    """Logarithms of the probabilities that the model gives each option as the whole answer, in the options' order."""

    log_probabilities: tuple[float, ...]
    prompt_tokens: int
    timing: Timing


T = TypeVar("T")


class Handover(Generic[T]):
    """One outcome, passed once from one thread to others."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._outcome: T | VlmError | None = None

    def set(self, outcome: T | VlmError) -> None:
        """Pass the outcome on; the first one counts."""
        if not self._ready.is_set():
            self._outcome = outcome
            self._ready.set()

    def wait(self) -> T:
        """Wait for the outcome; a VlmError is raised."""
        self._ready.wait()
        if isinstance(self._outcome, VlmError):
            raise self._outcome
        assert self._outcome is not None
        return self._outcome


class Generation:
    """An answer being made. Iterating gives its tokens as they come; `result` waits for the end."""

    def __init__(self) -> None:
        self._tokens: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._outcome: Handover[Generated] = Handover()

    def __iter__(self) -> Iterator[int]:
        """The tokens, once, to one reader. Ends with the answer; errors are told by `result`."""
        while (token := self._tokens.get()) is not None:
            yield token

    def result(self) -> Generated:
        """Wait for the end.

        Raises:
            VlmError: the request failed.
        """
        return self._outcome.wait()

    def push(self, token: int) -> None:
        """Engine's side: a token came."""
        self._tokens.put(token)

    def finish(self, outcome: Generated | VlmError) -> None:
        """Engine's side: no more tokens come."""
        self._outcome.set(outcome)
        self._tokens.put(None)


class Scoring:
    """Options being scored; `result` waits for the end."""

    def __init__(self) -> None:
        self._outcome: Handover[Scored] = Handover()

    def result(self) -> Scored:
        """Wait for the end.

        Raises:
            VlmError: the request failed, was cancelled or passed its deadline.
        """
        return self._outcome.wait()

    def finish(self, outcome: Scored | VlmError) -> None:
        """Engine's side."""
        self._outcome.set(outcome)

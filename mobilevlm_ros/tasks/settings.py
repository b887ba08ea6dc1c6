"""How a caller wants a task to be done."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from mobilevlm_ros.runtime.requests import CancelToken, Limits, Priority
from mobilevlm_ros.runtime.sampling import SamplingParams


@dataclass(frozen=True)
class Settings:
    """One request's wishes; the defaults suit a question that a person asks.

    Attributes:
        sampling: how the answer's tokens are chosen. Grounding and classification do not sample.
        priority: which waiting request goes first.
        timeout: seconds from now until nobody wants the answer; None waits as long as it takes.
        cancel: takes the request back.
    """

    sampling: SamplingParams = field(default_factory=SamplingParams)
    priority: Priority = Priority.NORMAL
    timeout: float | None = None
    cancel: CancelToken = field(default_factory=CancelToken)

    def limits(self) -> Limits:
        """The engine's view of these settings; the timeout runs from this call."""
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        return Limits(self.priority, deadline, self.cancel)

"""Notices a model that hangs: one that has work and finishes no part of it, or whose backend says that it cannot go on.

Looks from a thread of its own, because those of the executor may all be waiting for the model. It counts its own looks and not
the clock, so that a process that was stopped, or a machine that slept, is not taken for a model that hangs. What follows is its
owner's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from mobilevlm_ros.ros.model import Model

LONGEST_PAUSE = 1.0
"""Seconds between two looks, at most."""

LOOKS = 8
"""Looks in a row at a model that stands still before it is taken to hang, at least."""


class Watchdog:
    """Looks at models until one hangs; a context manager."""

    def __init__(self, models: Callable[[], Sequence[Model]], limit: Callable[[], float], on_hang: Callable[[str], None]) -> None:
        """
        Args:
            models: those that are loaded now.
            limit: seconds that a model with work may stand still; asked at each look.
            on_hang: called once, in the watchdog's thread, with the reason.
        """
        self._models = models
        self._limit = limit
        self._on_hang = on_hang
        self._standing: dict[int, tuple[int, float]] = {}  # by model: steps at the last look, and seconds without another
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mobilevlm-watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closed.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def look(self, seconds: float) -> str:
        """Looks once.

        Args:
            seconds: since the last look.

        Returns:
            Why a model is given up, or nothing.
        """
        standing, limit = {}, self._limit()
        for model in self._models():
            stats = model.stats()
            if stats.lost:
                return f"the model '{model.name}' cannot go on: {stats.lost}"
            before, still = self._standing.get(id(model), (-1, 0.0))
            still = still + seconds if stats.busy and stats.steps == before else 0.0
            if still > limit:
                return f"the model '{model.name}' hangs: it made no progress for {limit:g} s"
            standing[id(model)] = (stats.steps, still)
        self._standing = standing
        return ""

    def _work(self) -> None:
        while not self._closed.wait(pause := min(LONGEST_PAUSE, self._limit() / LOOKS)):
            if reason := self.look(pause):
                self._on_hang(reason)
                return

"""SIGINT and SIGTERM as an event that a loop can wait for."""

from __future__ import annotations

import signal
import threading


def stop_event() -> threading.Event:
    """Returns an event that the process's first SIGINT or SIGTERM sets. To be called in the main thread."""
    event = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: event.set())
    return event

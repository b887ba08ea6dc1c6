"""What TensorRT says: its errors are kept for the one line that a user sees, the rest is left out."""

from __future__ import annotations

from typing import Any

_KEPT = 8


class Log:
    """The latest errors."""

    def __init__(self) -> None:
        self._errors: list[str] = []

    def note(self, text: str) -> None:
        """Keeps an error."""
        self._errors = [*self._errors, text][-_KEPT:]

    def last_error(self) -> str:
        """The latest error as one line, the first sentence of all that came with it; forgets what it tells."""
        errors, self._errors = self._errors, []
        return " ".join(errors[0].split()) if errors else "no reason given"


def make_logger(trt: Any) -> tuple[Log, Any]:
    """A log and the logger that fills it; TensorRT wants the logger to live as long as what was made with it."""
    log = Log()

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                log.note(msg)

    return log, Logger()

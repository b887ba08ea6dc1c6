"""What a caller of the client did wrong, as against what went wrong with a request (`VlmError`)."""

from __future__ import annotations


class ClientUsageError(RuntimeError):
    """The client is used in a way that cannot work. Its text is one line that says what to do instead."""

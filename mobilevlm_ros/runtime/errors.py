"""The error codes that every layer speaks, and the exception that carries them.

The same numbers stand in `mobilevlm_msgs/ErrorCode`; a test holds the two together. Nothing here knows ROS.
"""

from __future__ import annotations

from enum import IntEnum


class ErrorCode(IntEnum):
    """Why a request ended without a full answer; the meanings are those of `mobilevlm_msgs/ErrorCode`."""

    NONE = 0
    NO_IMAGE = 1
    STALE_IMAGE = 2
    BAD_IMAGE = 3
    PROMPT_TOO_LONG = 4
    BAD_REQUEST = 5
    BUSY = 6
    DEADLINE_EXCEEDED = 7
    CANCELLED = 8
    NO_GROUNDING = 9
    OUT_OF_MEMORY = 10
    MODEL_ERROR = 11
    NOT_ACTIVE = 12


class VlmError(Exception):
    """A request, a model package or a picture that cannot be served, with the code that says why.

    Its text is one line that a user can act on.
    """

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class PackageError(VlmError):
    """A model package that is missing, damaged or of another schema."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.MODEL_ERROR, message)


class BackendError(VlmError):
    """An inference backend that failed while it ran the model."""

    def __init__(self, message: str, code: ErrorCode = ErrorCode.MODEL_ERROR) -> None:
        super().__init__(code, message)


class BackendLostError(BackendError):
    """A backend that cannot go on in this process, such as a GPU's after a fault; only a new process helps."""

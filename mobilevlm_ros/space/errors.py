"""Why a region has no position. A grounding is whole without one, so this is no error of the request."""

from __future__ import annotations

from enum import Enum


class Reason(Enum):
    """What is missing for a position."""

    OFF = "depth is not used"
    NO_DEPTH = "no depth image"
    NO_CAMERA_INFO = "no camera_info"
    STAMPS_APART = "no depth image of the picture's time"
    BAD_DEPTH = "the depth image cannot be read"
    BAD_CAMERA_INFO = "the camera_info cannot be used"
    NOT_REGISTERED = "depth image and picture do not lie on one another"
    NO_VALID_PIXELS = "too few depths in the box"
    NO_TRANSFORM = "no transform into the wanted frame"


class NoPositionError(Exception):
    """A region has no position, or not in the wanted frame.

    Attributes:
        reason: what is missing.
        message: one line that says it with its numbers.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        self.reason = reason
        self.message = " ".join(message.split())
        super().__init__(self.message)

"""OpenCV, imported when something needs it: a machine that looks at picture files only can do without."""

from __future__ import annotations

import os
from typing import Any

from mobilevlm_ros.runtime.errors import ErrorCode, VlmError


def opencv(what: str) -> Any:
    """The module cv2, with its own chatter on stderr switched off.

    Args:
        what: needs it, for the message.

    Raises:
        VlmError: BAD_REQUEST if it cannot be imported.
    """
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        import cv2
    except ImportError as error:
        remedy = "install mobilevlm_ros[media], or apt's python3-opencv"
        raise VlmError(ErrorCode.BAD_REQUEST, f"{what} needs OpenCV: {remedy}") from error
    return cv2

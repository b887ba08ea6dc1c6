"""Pictures of live topics to RGB. Encodings outside the table of `pictures/messages.py` are tried with this robot's cv_bridge."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import Image

from mobilevlm_ros.pictures import messages
from mobilevlm_ros.pictures.messages import ENCODINGS, Pixels, compressed_to_rgb, unknown_encoding
from mobilevlm_ros.pictures.opencv import opencv
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError

__all__ = ["ENCODINGS", "Pixels", "compressed_to_rgb", "to_rgb"]

opencv("the node")  # at once, so that a robot without it says so when the node starts and not with its first picture


def to_rgb(message: Image) -> Pixels:
    """Returns the picture of an uncompressed message, uint8 [height, width, 3] RGB; as `pictures.messages.to_rgb`.

    Raises:
        VlmError: BAD_IMAGE, where size, step, data and encoding disagree or nobody here knows the encoding.
    """
    if message.encoding.lower() in ENCODINGS:
        return messages.to_rgb(message)
    messages.check_size(message.width, message.height)
    problem = unknown_encoding(message)
    try:
        from cv_bridge import CvBridge
    except Exception as error:  # absent on a pip-only machine; broken beside a newer NumPy
        raise problem from error
    try:
        pixels = np.ascontiguousarray(CvBridge().imgmsg_to_cv2(message, "rgb8"))
    except Exception as error:
        raise VlmError(ErrorCode.BAD_IMAGE, f"{problem.message}; cv_bridge cannot read it either: {error}") from error
    if pixels.shape != (message.height, message.width, 3) or pixels.dtype != np.uint8:
        raise problem
    return pixels

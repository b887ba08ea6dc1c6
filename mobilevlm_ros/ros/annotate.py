"""Annotated pictures as messages."""

from __future__ import annotations

import array

import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from mobilevlm_ros.pictures.drawing import Pixels


def image_message(pixels: Pixels, header: Header) -> Image:
    """Returns a picture, uint8 [height, width, 3] RGB, as an `rgb8` message."""
    height, width = pixels.shape[:2]
    message = Image(header=header, height=height, width=width, encoding="rgb8", step=3 * width)
    # An array is taken over as it is; bytes or an ndarray would be checked element by element.
    data = array.array("B")
    data.frombytes(memoryview(np.ascontiguousarray(pixels)).cast("B"))
    message.data = data
    return message

"""Depth images as REP-118 has them: 16UC1 in millimetres with 0 for no depth, 32FC1 in metres with NaN or infinity for none.

The message is checked against its data, then viewed in place; only the part that is asked for becomes metres. A message is
whatever has the fields of `sensor_msgs/Image`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilevlm_ros.pictures.messages import ImageMessage, check_size
from mobilevlm_ros.runtime.errors import VlmError
from mobilevlm_ros.space.errors import NoPositionError, Reason

Metres = npt.NDArray[np.float32]

_KINDS = {"16uc1": ("u2", 1e-3), "mono16": ("u2", 1e-3), "32fc1": ("f4", 1.0)}
"""Type of a sample and metres to its unit; some drivers call their millimetres mono16."""


@dataclass(frozen=True)
class DepthImage:
    """A depth image in the memory of its message.

    Attributes:
        samples: uint16 or float32 [height, width], in either byte order.
        unit: metres to one of a sample.
    """

    samples: npt.NDArray[Any]
    unit: float

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.samples.shape[1])

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.samples.shape[0])

    def metres(self, rows: slice, columns: slice) -> Metres:
        """Returns a part, float32 [rows, columns] along the camera's axis; NaN where there is no depth."""
        part = self.samples[rows, columns].astype(np.float32) * np.float32(self.unit)
        part[~(np.isfinite(part) & (part > 0))] = np.nan
        return part


def depth_image(message: ImageMessage) -> DepthImage:
    """Returns a message's depth image, which stays in the message's memory.

    Raises:
        NoPositionError: BAD_DEPTH, where the encoding is no depth or size, step and data disagree.
    """
    try:
        check_size(message.width, message.height)
    except VlmError as error:
        raise _bad(error.message) from error
    kind = _KINDS.get(message.encoding.lower())
    if kind is None:
        raise _bad(f"the depth topic carries '{message.encoding}', it must be 16UC1 or 32FC1")
    dtype = np.dtype(f"{'>' if message.is_bigendian else '<'}{kind[0]}")
    if message.step < message.width * dtype.itemsize:
        raise _bad(f"{message.width} depths need a step of {message.width * dtype.itemsize} bytes or more, not {message.step}")
    if len(message.data) != message.height * message.step:
        raise _bad(f"the depth image should have {message.height * message.step} bytes, it has {len(message.data)}")
    shape, strides = (message.height, message.width), (message.step, dtype.itemsize)
    return DepthImage(np.ndarray(shape, dtype, memoryview(message.data), strides=strides), kind[1])


def _bad(message: str) -> NoPositionError:
    return NoPositionError(Reason.BAD_DEPTH, message)

"""A camera picture as the runtime sees it. Knows nothing of cameras, encodings or files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mobilevlm_ros.runtime.errors import ErrorCode, VlmError

MAX_SIDE = 16384


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture: uint8 [height, width, 3], RGB. The array must not change while a request uses it.

    Raises:
        VlmError: BAD_IMAGE if the array has another shape or dtype, is empty, or a side is over 16384 pixels.
    """

    pixels: np.ndarray

    def __post_init__(self) -> None:
        shape = self.pixels.shape
        if self.pixels.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3:
            found = f"{self.pixels.dtype} {list(shape)}"
            raise VlmError(ErrorCode.BAD_IMAGE, f"a picture must be uint8 [height, width, 3], not {found}")
        if not (0 < shape[0] <= MAX_SIDE and 0 < shape[1] <= MAX_SIDE):
            raise VlmError(ErrorCode.BAD_IMAGE, f"a picture of {shape[1]} x {shape[0]} pixels: each side must be 1 to {MAX_SIDE}")

    @property
    def width(self) -> int:
        """Pixels a row."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.pixels.shape[0])

"""A depth image as a picture to look at: grey, the nearest bright, the farthest dark, and black where there is no depth.

The samples' unit does not matter, because the range is the picture's own. Knows no messages.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_FARTHEST, _NEAREST = 32, 255
_OUTLIERS = 1.0
"""Percent of the samples on either side that do not count for the range, so that a stray one does not darken the rest."""

_ENOUGH = 50_000
"""Samples that the range is taken from."""


def depth_to_grey(depth: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Returns the picture, uint8 of the same shape.

    Args:
        depth: distances of any real dtype, [height, width] or more dimensions; 0, negative, NaN and infinite ones are none.
    """
    distances = np.asarray(depth, np.float32)
    valid = np.isfinite(distances) & (distances > 0)
    grey = np.zeros(distances.shape, np.uint8)
    some = distances[valid]
    if not some.size:
        return grey
    near, far = np.percentile(some[:: max(1, some.size // _ENOUGH)], (_OUTLIERS, 100 - _OUTLIERS))
    share = np.clip((some - near) / max(far - near, np.finfo(np.float32).tiny), 0, 1)
    grey[valid] = np.round(_NEAREST - share * (_NEAREST - _FARTHEST)).astype(np.uint8)
    return grey

"""Dataset pictures from files, as the official evaluation reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mobilevlm_ros.evaluate.dataset import Fit
from mobilevlm_ros.pictures import read_stored_picture
from mobilevlm_ros.runtime.frame import Frame


def load_picture(path: Path, fit: Fit = Fit.PAD) -> Frame:
    """A picture file in RGB. Orientation tags are not heeded, because the datasets' boxes were drawn on the pixels as stored.

    With Fit.CENTRE_CROP only the centred square of the short edge is kept, so that padding adds nothing. The official script
    crops after it has resized, which differs by less than a pixel of the model's square.

    Raises:
        VlmError: BAD_IMAGE if there is no such file, it is no picture, or it is damaged.
    """
    frame = read_stored_picture(path)
    return frame if fit is Fit.PAD else _centred_square(frame)


def _centred_square(frame: Frame) -> Frame:
    side = min(frame.width, frame.height)
    left, top = (frame.width - side) // 2, (frame.height - side) // 2
    return Frame(np.ascontiguousarray(frame.pixels[top : top + side, left : left + side]))

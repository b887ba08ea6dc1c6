"""A dataset's picture with the right boxes in green, the answer's in red, and the words below."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mobilevlm_ros.pictures.drawing import Mark, draw, words
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.geometry import Box

WIDTH = 480
RIGHT, ANSWER = (0, 160, 60), (220, 30, 30)


def annotate(frame: Frame, right: tuple[Box, ...], boxes: tuple[Box, ...], lines: list[str]) -> Image.Image:
    """A picture of WIDTH pixels' width with boxes drawn in and `lines` of text below, wrapped.

    Args:
        right: the right boxes in pixels of the frame.
        boxes: the answer's boxes, likewise; what lies outside is cut off, an empty box is not drawn.
    """
    height = max(1, round(frame.height * WIDTH / frame.width))
    resized = np.asarray(Image.fromarray(frame.pixels).resize((WIDTH, height)))
    scale = (WIDTH / frame.width, height / frame.height)
    marks = [Mark(box.scaled(*scale), "", color) for color, group in ((RIGHT, right), (ANSWER, boxes)) for box in group]
    return Image.fromarray(np.concatenate([draw(resized, marks), words(lines, WIDTH)]))

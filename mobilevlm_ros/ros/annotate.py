"""Draws boxes and words into pictures. Knows arrays and boxes; no topics, no model."""

from __future__ import annotations

import array
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from mobilevlm_ros.ros.images import Pixels
from mobilevlm_ros.runtime.geometry import Box

_COLOURS = ((0, 200, 83), (41, 121, 255), (255, 145, 0), (213, 0, 249), (255, 23, 68), (0, 184, 212))
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class Mark:
    """A box in pixels of the picture, and the words beside it."""

    box: Box
    label: str


def draw(pixels: Pixels, marks: Sequence[Mark], caption: str = "") -> Pixels:
    """Returns a copy of a picture with boxes, their labels, and a caption along the lower edge.

    Args:
        pixels: uint8 [height, width, 3], RGB.
        marks: drawn in order, each in a colour of its own.
        caption: wrapped to the picture's width; at most the lower half is covered.

    Returns:
        uint8 of the same shape. Letters outside ASCII are drawn as '?', because the font has no others.
    """
    canvas = np.array(pixels, order="C")
    scale = max(0.35, min(canvas.shape[:2]) / 900)
    for index, mark in enumerate(marks):
        _draw_mark(canvas, mark, _COLOURS[index % len(_COLOURS)], scale)
    if caption:
        _draw_caption(canvas, caption, scale)
    return canvas


def image_message(pixels: Pixels, header: Header) -> Image:
    """Returns a picture, uint8 [height, width, 3] RGB, as an `rgb8` message."""
    height, width = pixels.shape[:2]
    message = Image(header=header, height=height, width=width, encoding="rgb8", step=3 * width)
    # An array is taken over as it is; bytes or an ndarray would be checked element by element.
    data = array.array("B")
    data.frombytes(memoryview(np.ascontiguousarray(pixels)).cast("B"))
    message.data = data
    return message


def _draw_mark(canvas: Pixels, mark: Mark, colour: tuple[int, int, int], scale: float) -> None:
    height, width = canvas.shape[:2]
    box = mark.box.clipped(width - 1, height - 1)
    x1, y1, x2, y2 = (round(value) for value in (box.x1, box.y1, box.x2, box.y2))
    thickness = max(2, round(3 * scale))
    cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, thickness, cv2.LINE_AA)
    label = _ascii(mark.label)
    if not label:
        return
    (text_width, text_height), below = cv2.getTextSize(label, _FONT, scale, 1)
    pad = max(2, round(4 * scale))
    left = min(x1, max(0, width - text_width - 2 * pad))
    top = y1 - text_height - below - 2 * pad
    if top < 0:  # no room above the box: inside it
        top = y1
    cv2.rectangle(canvas, (left, top), (left + text_width + 2 * pad, top + text_height + below + 2 * pad), colour, cv2.FILLED)
    cv2.putText(canvas, label, (left + pad, top + pad + text_height), _FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)


def _draw_caption(canvas: Pixels, caption: str, scale: float) -> None:
    height, width = canvas.shape[:2]
    pad = max(3, round(6 * scale))
    line_height = cv2.getTextSize("Ag", _FONT, scale, 1)[0][1] + 2 * pad
    lines = _wrapped(_ascii(caption), width - 2 * pad, scale)[: max(1, height // 2 // line_height)]
    top = max(0, height - line_height * len(lines))
    canvas[top:] = canvas[top:] // 4
    for index, line in enumerate(lines):
        baseline = top + line_height * (index + 1) - pad
        cv2.putText(canvas, line, (pad, baseline), _FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)


def _wrapped(text: str, width: int, scale: float) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        candidate = f"{lines[-1]} {word}" if lines else word
        if lines and cv2.getTextSize(candidate, _FONT, scale, 1)[0][0] <= width:
            lines[-1] = candidate
        else:
            lines.append(word)
    return lines


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode("ascii")

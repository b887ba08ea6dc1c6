"""Draws boxes and words into pictures. Knows arrays and boxes; no model, no ROS, and no library but NumPy and Pillow."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from mobilevlm_ros.runtime.geometry import Box

Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

COLOURS: tuple[Colour, ...] = ((0, 160, 70), (41, 121, 255), (225, 100, 0), (213, 0, 249), (235, 20, 60), (0, 135, 155))
"""What boxes are drawn in, one after the other; white letters can be read on each."""

_PAPER: Colour = (255, 255, 255)
_INK: Colour = (30, 30, 30)
_SMALLEST_FONT = 11


@dataclass(frozen=True)
class Mark:
    """A box in pixels of the picture and the words beside it; without a colour it gets one of its own."""

    box: Box
    label: str
    colour: Colour | None = None


def draw(pixels: Pixels, marks: Sequence[Mark], caption: str = "") -> Pixels:
    """Returns a copy of a picture with boxes, their labels, and a caption along the lower edge.

    Args:
        pixels: uint8 [height, width, 3], RGB.
        marks: drawn in order; what reaches outside is cut off, and a box that covers nothing of the picture is not drawn.
        caption: one or more lines, wrapped to the picture's width; at most the lower half is covered.

    Returns:
        uint8 of the same shape. The font has the letters of ASCII: accents are left out, other letters are drawn as '?'.
    """
    canvas = np.array(pixels, order="C")
    font = _font(max(_SMALLEST_FONT, min(canvas.shape[:2]) // 30))
    for index, mark in enumerate(marks):
        _draw_mark(canvas, mark, mark.colour or COLOURS[index % len(COLOURS)], font)
    if caption:
        _draw_caption(canvas, caption, font)
    return canvas


def words(lines: Sequence[str], width: int, size: int = 14) -> Pixels:
    """Returns dark words on white, wrapped: uint8 [height, width, 3], RGB, as high as they need.

    Args:
        size: of the letters, in pixels.
    """
    font = _font(size)
    margin, line_height = size // 2, round(size * 1.3)
    wrapped = [part for line in lines for part in (_wrapped(line, width - 2 * margin, font) or [""])]
    canvas = np.full((len(wrapped) * line_height + 2 * margin, width, 3), _PAPER, np.uint8)
    for number, line in enumerate(wrapped):
        _write(canvas, line, margin, margin + number * line_height, _INK, font)
    return canvas


def _draw_mark(canvas: Pixels, mark: Mark, colour: Colour, font: ImageFont.FreeTypeFont) -> None:
    height, width = canvas.shape[:2]
    box = mark.box.clipped(width, height)
    if not box.area > 0:
        return
    x1, y1, x2, y2 = (round(value) for value in (box.x1, box.y1, box.x2, box.y2))
    x2, y2 = min(x2, width - 1), min(y2, height - 1)
    thickness = max(2, round(font.size / 7))
    _outline(canvas, (x1, y1, x2, y2), thickness + 2, _PAPER)  # a rim, so that green shows on green
    _outline(canvas, (x1, y1, x2, y2), thickness, colour)
    label = _drawable(mark.label)
    if not label:
        return
    pad = max(2, round(font.size / 5))
    tall = sum(font.getmetrics()) + 2 * pad
    wide = math.ceil(font.getlength(label)) + 2 * pad
    left = min(x1, max(0, width - wide))
    top = y1 - tall if y1 >= tall else y1  # where there is no room above the box: inside it
    canvas[top : top + tall, left : left + wide] = colour
    _write(canvas, label, left + pad, top + pad, _PAPER, font)


def _outline(canvas: Pixels, corners: tuple[int, int, int, int], thickness: int, colour: Colour) -> None:
    """Four bars along a box's sides, half of their thickness outside."""
    x1, y1, x2, y2 = corners
    outside = thickness // 2
    left, top, right, bottom = max(0, x1 - outside), max(0, y1 - outside), x2 + outside + 1, y2 + outside + 1
    canvas[top : top + thickness, left:right] = colour
    canvas[max(top, bottom - thickness) : bottom, left:right] = colour
    canvas[top:bottom, left : left + thickness] = colour
    canvas[top:bottom, max(left, right - thickness) : right] = colour


def _draw_caption(canvas: Pixels, caption: str, font: ImageFont.FreeTypeFont) -> None:
    height, width = canvas.shape[:2]
    pad = max(3, round(font.size / 3))
    line_height = sum(font.getmetrics()) + pad
    room = max(1, height // 2 // line_height)
    lines = [line for part in caption.split("\n") for line in _wrapped(part, width - 2 * pad, font)]
    if len(lines) > room:
        lines = [*lines[: room - 1], f"{lines[room - 1]} ..."]
    top = max(0, height - line_height * len(lines))
    canvas[top:] //= 4
    for index, line in enumerate(lines):
        _write(canvas, line, pad, top + line_height * index + pad // 2, _PAPER, font)


def _write(canvas: Pixels, text: str, left: int, top: int, colour: Colour, font: ImageFont.FreeTypeFont) -> None:
    """Blends one line of text into the canvas; what reaches outside is cut off."""
    text = _drawable(text)
    size = (math.ceil(font.getlength(text)), sum(font.getmetrics()))
    if 0 in size:
        return
    image = Image.new("L", size)
    ImageDraw.Draw(image).text((0, 0), text, fill=255, font=font)
    under = canvas[top : top + size[1], left : left + size[0]]
    cover = np.asarray(image)[: under.shape[0], : under.shape[1], None].astype(np.uint16)
    under[:] = (under * (255 - cover) + np.array(colour, np.uint16) * cover) // 255


def _wrapped(text: str, width: int, font: ImageFont.FreeTypeFont) -> list[str]:
    lines: list[list[str]] = []
    space, filled = font.getlength(" "), 0.0
    for word in _drawable(text).split():
        length = font.getlength(word)
        if lines and filled + space + length <= width:
            lines[-1].append(word)
            filled += space + length
        else:
            lines.append([word])
            filled = length
    return [" ".join(line) for line in lines]


def _drawable(text: str) -> str:
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return "".join(letter if letter.isprintable() else " " for letter in plain.encode("ascii", "replace").decode("ascii"))


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # Pillow's own, of which every size exists
    return font

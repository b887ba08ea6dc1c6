"""A dataset's picture with the right box in green, the answer's in red, and the words below. Needs Pillow only."""

from __future__ import annotations

import textwrap

from PIL import Image, ImageDraw, ImageFont

from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.geometry import Box

WIDTH = 480
RIGHT, ANSWER = (0, 160, 60), (220, 30, 30)
_PAPER, _INK = (255, 255, 255), (30, 30, 30)
_FONT_SIZE, _LINE, _MARGIN, _COLUMNS = 14, 18, 6, 66


def annotate(frame: Frame, right: Box | None, boxes: tuple[Box, ...], lines: list[str]) -> Image.Image:
    """A picture of WIDTH pixels' width with boxes drawn in and `lines` of text below, wrapped.

    Args:
        right: the right box in pixels of the frame.
        boxes: the answer's boxes, likewise; what lies outside is cut off, an empty box is not drawn.
    """
    scale = WIDTH / frame.width
    height = max(1, round(frame.height * scale))
    wrapped = [part for line in lines for part in (textwrap.wrap(line, _COLUMNS) or [""])]
    sheet = Image.new("RGB", (WIDTH, height + len(wrapped) * _LINE + 2 * _MARGIN), _PAPER)
    sheet.paste(Image.fromarray(frame.pixels).resize((WIDTH, height)), (0, 0))
    draw = ImageDraw.Draw(sheet)
    for box, color in [(right, RIGHT), *((box, ANSWER) for box in boxes)]:
        inside = None if box is None else box.clipped(frame.width, frame.height)
        if inside is not None and inside.area > 0:
            corners = inside.scaled(scale, height / frame.height)
            around = (corners.x1 - 1, corners.y1 - 1, corners.x2 + 1, corners.y2 + 1)
            draw.rectangle(around, outline=_PAPER, width=5)  # a rim, so that green shows on green
            draw.rectangle((corners.x1, corners.y1, corners.x2, corners.y2), outline=color, width=3)
    font = ImageFont.load_default(_FONT_SIZE)
    for number, line in enumerate(wrapped):
        draw.text((_MARGIN, height + _MARGIN + number * _LINE), line, fill=_INK, font=font)
    return sheet

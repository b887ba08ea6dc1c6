"""A reliability curve as a picture: the share of right answers over their mean score, and how many there are of each score."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from mobilevlm_ros.evaluate.calibration import ReliabilityBin

SIDE = 320
CURVE, IDEAL, COUNTS = (200, 60, 30), (160, 160, 160), (205, 215, 235)
_LEFT, _TOP, _RIGHT, _BELOW = 56, 14, 14, 46
_PAPER, _INK, _GRID = (255, 255, 255), (30, 30, 30), (232, 232, 232)
_FONT_SIZE = 12
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def reliability_chart(table: Sequence[ReliabilityBin]) -> Image.Image:
    """Draw a reliability table: a point for each bin, joined; the diagonal, where scores are probabilities; columns of counts.

    The highest column is the fullest bin; the bin's count stands above it where it is not 0.
    """
    image = Image.new("RGB", (_LEFT + SIDE + _RIGHT, _TOP + SIDE + _BELOW), _PAPER)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(_FONT_SIZE)
    fullest = max((entry.count for entry in table), default=1)
    for entry in table:
        draw.rectangle((*_point(entry.low, entry.count / fullest), *_point(entry.high, 0.0)), fill=COUNTS, outline=_PAPER)
    _axes(draw, font)
    draw.line([_point(0.0, 0.0), _point(1.0, 1.0)], fill=IDEAL, width=2)
    points = [_point(entry.mean_score, entry.right) for entry in table]
    if len(points) > 1:
        draw.line(points, fill=CURVE, width=2)
    for entry, (x, y) in zip(table, points):
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=CURVE)
        middle, base = _point((entry.low + entry.high) / 2, 0.0)
        draw.text((middle, base - 2), str(entry.count), fill=_INK, font=font, anchor="ms")
    return image


def _axes(draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> None:
    for tick in _TICKS:
        draw.line([_point(tick, 0.0), _point(tick, 1.0)], fill=_GRID)
        draw.line([_point(0.0, tick), _point(1.0, tick)], fill=_GRID)
        x, base = _point(tick, 0.0)
        left, y = _point(0.0, tick)
        draw.text((x, base + 6), f"{tick:g}", fill=_INK, font=font, anchor="ma")
        draw.text((left - 6, y), f"{tick:g}", fill=_INK, font=font, anchor="rm")
    draw.text((_LEFT + SIDE / 2, _TOP + SIDE + _BELOW - 4), "mean score", fill=_INK, font=font, anchor="ms")
    draw.text((4, _TOP), "right", fill=_INK, font=font, anchor="la")


def _point(x: float, y: float) -> tuple[float, float]:
    return _LEFT + x * SIDE, _TOP + (1 - y) * SIDE

"""Boxes in the model's own words: `[0.61, 0.36, 0.92, 0.83]`, that is x1, y1, x2, y2 with two decimals."""

from __future__ import annotations

import re

from mobilevlm_ros.runtime.geometry import Box

BOX_FORM = r" ?\[(0\.[0-9]{2}|1\.00), (0\.[0-9]{2}|1\.00), (0\.[0-9]{2}|1\.00), (0\.[0-9]{2}|1\.00)\]"
"""A regular expression for an answer that is one box."""

_NUMBER = r"\s*(\d(?:\.\d{1,6})?)\s*"
_BOX = re.compile(rf"\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]")


def format_box(box: Box) -> str:
    """A box with coordinates 0 to 1 as the model writes it; what reaches outside is cut off."""
    inside = box.clipped(1.0, 1.0)
    return f"[{inside.x1:.2f}, {inside.y1:.2f}, {inside.x2:.2f}, {inside.y2:.2f}]"


def parse_boxes(text: str) -> list[Box]:
    """Every well-formed box in a text, in its order: coordinates 0 to 1, the second corner right of and below the first."""
    boxes = []
    for match in _BOX.finditer(text):
        box = Box(*(float(group) for group in match.groups()))
        if box.x1 < box.x2 <= 1.0 and box.y1 < box.y2 <= 1.0:
            boxes.append(box)
    return boxes

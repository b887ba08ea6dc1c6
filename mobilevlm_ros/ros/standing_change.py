"""Whether what a standing query found out is something else than before. Compares values; knows no messages, cameras or model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mobilevlm_ros.runtime.geometry import Box
from mobilevlm_ros.tasks import Answer, Classification, Grounding
from mobilevlm_ros.tasks.results import Result

MOVED_IOU = 0.5
"""A region whose box has less than this in common with the one before, as intersection over union, has moved."""


@dataclass(frozen=True)
class Finding:
    """What counts of a result: its words, its label, or "present" or "absent" with the boxes in shares of the picture."""

    value: str
    boxes: tuple[Box, ...] = ()

    @staticmethod
    def of(result: Result) -> Finding:
        """Returns what counts of an answer, a classification or a grounding."""
        if isinstance(result, Grounding):
            boxes = tuple(region.box_normalized for region in result.regions)
            return Finding("present" if boxes else "absent", boxes)
        if isinstance(result, Classification):
            return Finding(result.label)
        assert isinstance(result, Answer)
        return Finding(result.text)

    def differs_from(self, before: Finding) -> bool:
        """Whether the words differ in more than case, spaces and a full stop, or a region came, went or moved."""
        return _bare(self.value) != _bare(before.value) or not _are_same(self.boxes, before.boxes)


def _bare(words: str) -> str:
    return " ".join(words.casefold().split()).rstrip(".")


def _are_same(boxes: Sequence[Box], before: Sequence[Box]) -> bool:
    """Whether each box has its own counterpart before, in whatever order."""
    if len(boxes) != len(before):
        return False
    left = list(before)
    for box in boxes:
        nearest = max(left, key=box.iou)
        if box.iou(nearest) < MOVED_IOU:
            return False
        left.remove(nearest)
    return True

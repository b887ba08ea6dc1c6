"""Which of many regions to keep: the best first, and of those that mean the same thing only the best."""

from __future__ import annotations

from collections.abc import Iterable

from mobilevlm_ros.runtime.geometry import Box
from mobilevlm_ros.tasks.results import Region

SAME = 0.5


def same_thing(first: Box, second: Box) -> bool:
    """Whether two boxes mean the same thing: they have more than half of the smaller one in common.

    That holds for every two boxes whose intersection over union is more than a half, and for a part of a thing and the whole.
    """
    return first.shared_area(second) > SAME * min(first.area, second.area)


def best_apart(regions: Iterable[Region]) -> tuple[Region, ...]:
    """Non-maximum suppression: the regions by falling score, less those that mean the same thing as a better one.

    Of equal scores the earlier region goes first.
    """
    kept: list[Region] = []
    for region in sorted(regions, key=lambda one: -one.score):
        if not any(same_thing(region.box, better.box) for better in kept):
            kept.append(region)
    return tuple(kept)

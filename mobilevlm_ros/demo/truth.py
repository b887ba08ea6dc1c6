"""What is truly to be seen in the demo's recording, what is asked about it, and whether an answer is right.

Read from the JSON file beside the bag: `frames`, one for each picture of the bag with its scene and things, and `story`, the
steps of the demo. Needs no ROS.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from mobilevlm_ros.runtime.geometry import Box

RIGHT_IOU = 0.5
"""A box is right from this intersection over union with the true one."""


class Kind(str, Enum):
    """What a step does."""

    ASK = "ask"
    GROUND = "ground"
    CHAT = "chat"


@dataclass(frozen=True)
class Thing:
    """Something in a picture, its box in pixels."""

    name: str
    box: Box


@dataclass(frozen=True)
class Picture:
    """One picture of the bag."""

    scene: int
    things: tuple[Thing, ...]

    def box_of(self, name: str) -> Box | None:
        """Returns the box of the thing with this name such as "red mug", or None where there is not exactly one."""
        boxes = [thing.box for thing in self.things if thing.name == name]
        return boxes[0] if len(boxes) == 1 else None


@dataclass(frozen=True)
class Step:
    """One step of the story, in a scene: a question, an expression, or the messages of a conversation.

    `right` holds the right answer for each text; for a grounding it is the thing's name.
    """

    scene: int
    kind: Kind
    texts: tuple[str, ...]
    right: tuple[str, ...]


@dataclass(frozen=True)
class Recording:
    """The truth about a bag."""

    pictures: tuple[Picture, ...]
    story: tuple[Step, ...]


def read(path: Path) -> Recording:
    """Returns the truth file's content."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    return Recording(
        tuple(Picture(frame["scene"], tuple(_thing(thing) for thing in frame["things"])) for frame in raw["frames"]),
        tuple(Step(step["scene"], Kind(step["kind"]), tuple(step["texts"]), tuple(step["right"])) for step in raw["story"]),
    )


def says(text: str, right: str) -> bool:
    """Returns whether an answer says what is right: the same words, whatever their case and punctuation."""
    return _words(right) == _words(text)


def points_at(box: Box, true: Box) -> bool:
    """Returns whether a box lies on the true one."""
    return box.iou(true) >= RIGHT_IOU


def _thing(raw: dict[str, Any]) -> Thing:
    return Thing(f"{raw['color']} {raw['shape']}", Box(*raw["box"]))


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())

"""Referring expression generation: a box in, words out."""

from __future__ import annotations

from mobilevlm_ros.runtime.engine import Engine
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.geometry import Box, Letterbox
from mobilevlm_ros.tasks.ask import ask
from mobilevlm_ros.tasks.boxes import format_box
from mobilevlm_ros.tasks.results import Answer
from mobilevlm_ros.tasks.settings import Settings


def describe_region(engine: Engine, frame: Frame, box: Box, settings: Settings | None = None) -> Answer:
    """Put the part of a picture inside `box`, in source pixels, into words.

    Raises:
        VlmError: BAD_REQUEST if the box is empty or lies outside the picture; else as for `ask`.
    """
    inside = box.clipped(frame.width, frame.height)
    if not inside.area > 0:
        corners = f"({box.x1:g}, {box.y1:g}) to ({box.x2:g}, {box.y2:g})"
        raise VlmError(ErrorCode.BAD_REQUEST, f"the box {corners} covers nothing of the {frame.width} x {frame.height} picture")
    model_box = Letterbox(frame.width, frame.height).to_model(inside, engine.manifest.box_frame)
    question = engine.manifest.phrasings.describe_region.format(box=format_box(model_box))
    return ask(engine, frame, question, settings)

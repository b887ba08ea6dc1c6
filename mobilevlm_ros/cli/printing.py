"""Results as JSON objects, one a line, with the same keys in every command."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobilevlm_ros.pictures.source import Sample
    from mobilevlm_ros.runtime.geometry import Box
    from mobilevlm_ros.tasks.results import Answer, Region, Result


def print_json(result: Result, sample: Sample, model: str, load_ms: float, **specific: object) -> None:
    """Print one result: what is specific to the task, then what all results tell.

    `time` is seconds from the beginning of a video or bag, `stamp_ns` the picture's ROS stamp; null where there is none.
    """
    timing = {"load_ms": load_ms, **asdict(result.timing)}
    common = {
        "prompt_tokens": result.prompt_tokens,
        "answer_tokens": result.answer_tokens,
        "confidence": round(result.confidence, 6),
        "image": sample.name,
        "time": None if sample.seconds is None else round(sample.seconds, 6),
        "stamp_ns": sample.stamp_ns,
        "model": model,
        "error": result.error.name,
        "error_msg": result.error_msg,
        "timing": {name: round(value, 3) for name, value in timing.items()},
    }
    print(json.dumps({**specific, **common}, ensure_ascii=False), flush=True)


def answer_as_json(answer: Answer) -> dict[str, object]:
    """What is specific to an answer in words."""
    return {"question": answer.question, "text": answer.text, "token_ids": list(answer.token_ids)}


def region_as_json(region: Region) -> dict[str, object]:
    """A region with its boxes as x1, y1, x2, y2: in pixels, and in 0 to 1 of the picture's width and height."""
    return {
        "phrase": region.phrase,
        "score": round(region.score, 6),
        "box": _corners(region.box, 2),
        "box_normalized": _corners(region.box_normalized, 6),
    }


def print_piece(piece: str) -> None:
    """Print a piece of an answer as it comes."""
    print(piece, end="", flush=True)


def _corners(box: Box, digits: int) -> list[float]:
    return [round(value, digits) for value in (box.x1, box.y1, box.x2, box.y2)]

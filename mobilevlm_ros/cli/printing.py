"""Results as JSON objects, one a line, with the same keys in every command."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from mobilevlm_ros.runtime.geometry import Box
from mobilevlm_ros.tasks import Region
from mobilevlm_ros.tasks.results import Result


def print_json(result: Result, image: Path, model: str, load_ms: float, **specific: object) -> None:
    """Print one result: what is specific to the task, then what all results tell."""
    timing = {"load_ms": load_ms, **asdict(result.timing)}
    common = {
        "prompt_tokens": result.prompt_tokens,
        "answer_tokens": result.answer_tokens,
        "confidence": round(result.confidence, 6),
        "image": str(image),
        "model": model,
        "error": result.error.name,
        "error_msg": result.error_msg,
        "timing": {name: round(value, 3) for name, value in timing.items()},
    }
    print(json.dumps({**specific, **common}, ensure_ascii=False), flush=True)


def region_as_json(region: Region) -> dict[str, object]:
    """A region with its boxes as x1, y1, x2, y2: in pixels, and in 0 to 1 of the picture's width and height."""
    return {
        "phrase": region.phrase,
        "score": round(region.score, 6),
        "box": _corners(region.box, 2),
        "box_normalized": _corners(region.box_normalized, 6),
    }


def _corners(box: Box, digits: int) -> list[float]:
    return [round(value, digits) for value in (box.x1, box.y1, box.x2, box.y2)]

"""What the tests of the formats share: files, pictures, and answers without a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from mobilevlm_ros.evaluate.dataset import Benchmark, Item, Prediction, ScoredBox, Scores
from mobilevlm_ros.evaluate.formats import Source
from mobilevlm_ros.evaluate.result import answered_items
from mobilevlm_ros.runtime.geometry import Box


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_lines(path: Path, records: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def write_picture(path: Path, width: int = 40, height: int = 30, color: tuple[int, int, int] = (90, 90, 90)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), color).save(path)
    return path


def source(annotations: Path, images: Path | None = None, split: str | None = None, ocr: Path | None = None) -> Source:
    return Source(annotations, images or annotations.parent, split, ocr)


def said(item: Item, text: str, confidence: float = 0.5) -> Prediction:
    """A prediction as the runner makes it of an answer in words."""
    return Prediction(id=item.id, question_id=item.question_id, prompt=item.question, text=text, confidence=confidence)


def found(item: Item, box: Box | None, score: float = 0.9, refused: bool = False) -> Prediction:
    """A prediction as the runner makes it of a grounding in a picture of 100 x 100; refused: the thing was taken for absent."""
    served = () if box is None or refused else (ScoredBox(box, score),)
    return Prediction(id=item.id, text="" if box is None else "[...]", boxes=served, forced_box=box, width=100, height=100)


def score(benchmark: Benchmark, texts: Mapping[str, str]) -> Scores:
    """The benchmark's scores of answers by item id."""
    predictions = {item.id: said(item, texts[item.id]) for item in benchmark.items if item.id in texts}
    return benchmark.score(answered_items(benchmark, benchmark.items, predictions))

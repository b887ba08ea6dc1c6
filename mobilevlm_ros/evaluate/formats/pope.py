"""POPE: is a thing in the picture? Asked for things that are there and for absent ones of three kinds.

A file holds one JSON object a line with `question_id`, `image`, `text` and `label`, for one category: random, popular or
adversarial, named by the file (`coco_pope_random.json`) or by a `category` of each line. The published number is the mean of the
three categories' F1, in percent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mobilevlm_ros.evaluate.dataset import MAX_TOKENS, SHORT_ANSWER, Answered, Grade, Item, Prediction, Scores
from mobilevlm_ros.evaluate.errors import DatasetError
from mobilevlm_ros.evaluate.formats.files import Source, checked, image_below, read_lines
from mobilevlm_ros.evaluate.metrics import BinaryCounts, mean, pope_says_yes

_CATEGORY_IN_NAME = re.compile(r"pope_(\w+)")
_MEASURES = ("accuracy", "precision", "recall", "f1", "yes_ratio")


@dataclass(frozen=True)
class Pope:
    """One or several files of POPE."""

    items: tuple[Item, ...]
    notes: tuple[str, ...] = ()
    name: str = "pope"
    max_tokens: int = MAX_TOKENS

    def grade(self, item: Item, prediction: Prediction) -> Grade:
        """Whether the answer was read as it should be."""
        got = "yes" if pope_says_yes(prediction.text) else "no"
        return Grade(float(got == item.references[0]), item.references[0], got)

    def score(self, answered: Sequence[Answered]) -> Scores:
        """Each category's measures, and their mean over the categories."""
        groups: dict[str, list[tuple[bool, bool]]] = {}
        for one in answered:
            pair = (one.grade.got == "yes", one.grade.expected == "yes")
            groups.setdefault(one.item.metadata["category"], []).append(pair)
        by_category = {name: _measure(pairs) for name, pairs in sorted(groups.items())}
        average = {measure: mean(scores[measure] for scores in by_category.values()) for measure in _MEASURES}
        return {"mean of categories": {"items": float(len(answered)), **average}, **by_category}


def _measure(pairs: list[tuple[bool, bool]]) -> dict[str, float]:
    counts = BinaryCounts.of(pairs)
    return {"items": float(counts.total), **{measure: float(getattr(counts, measure)) for measure in _MEASURES}}


def read_pope(source: Source) -> Pope:
    """Read one category's file, or all `*pope_*.json` and `.jsonl` files of a folder."""
    items = []
    for path in _files(source.annotations):
        named = _CATEGORY_IN_NAME.search(path.stem)
        for record in read_lines(path):
            category = record.text("category", default=named[1] if named else "all")
            question_id = record.text("question_id")
            label = record.text("label").strip().lower()
            if label not in ("yes", "no"):
                raise DatasetError(f"{record.where}: the label is {label!r}, it must be yes or no")
            item = Item(
                id=f"{category}:{question_id}",
                question_id=question_id,
                image=image_below(source.images, record.text("image")),
                question=f"{record.text('text')}\n{SHORT_ANSWER}",
                references=(label,),
                metadata={"category": category},
            )
            items.append(item)
    return Pope(checked(items, source.annotations))


def _files(annotations: Path) -> list[Path]:
    if not annotations.is_dir():
        return [annotations]
    found = sorted(path for path in annotations.iterdir() if "pope_" in path.name and path.suffix in (".json", ".jsonl"))
    if not found:
        raise DatasetError(f"{annotations}: no file with a name like coco_pope_random.json in this folder")
    return found

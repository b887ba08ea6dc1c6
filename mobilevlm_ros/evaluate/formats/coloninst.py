"""ColonINST: colonoscopy pictures; classify (CLS), name a region (REG), locate (REC).

Format and rules are those of ai4colonoscopy/IntelliScope. The questions stand in the file, each in one of five wordings a task.
An answer in words is right if it equals the truth in lower case and nothing else: a full stop makes it wrong. A box is four whole
numbers in angle brackets, `{<x1><y1><x2><y2>}`, in pixels of the picture with the last pixel included; an answer with more or
fewer numbers overlaps nothing. The public evaluator's `avg_precision` is here "precision@0.5" (overlap over, not at, 0.5); its
`avg_recall` divides by the four coordinates and is not reported.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from mobilevlm_ros.evaluate.dataset import Answered, Grade, Item, Prediction, Scores
from mobilevlm_ros.evaluate.errors import DatasetError
from mobilevlm_ros.evaluate.formats.files import Record, Source, checked, image_below, read_json, records
from mobilevlm_ros.evaluate.metrics import mean, voc_iou
from mobilevlm_ros.runtime.geometry import Box

MAX_TOKENS = 40


class ColonTask(Enum):
    """What a ColonINST question asks for."""

    CLS = "cls"
    REG = "reg"
    REC = "rec"


PROMPTS: dict[ColonTask, tuple[str, ...]] = {
    ColonTask.CLS: (
        "Categorize the object.",
        "Determine the object's category.",
        "Identify the category of the object.",
        "Classify the object's category.",
        "Assign the object to its corresponding category.",
    ),
    ColonTask.REG: (
        "What category does {box} belong to?",
        "Can you tell me the category of {box}?",
        "Could you provide the category for {box}?",
        "Please specify the category of {box}.",
        "What is the category for {box}?",
    ),
    ColonTask.REC: (
        "Where is the location of {category}?",
        "Could you give the position of {category}?",
        "Where is {category} located?",
        "Could you specify the location of {category}?",
        "Please specify the coordinates of {category}.",
    ),
}
"""The published wordings."""

_NUMBER = re.compile(r"<\s*(\d+)\s*>")
_WHOLE_BOX = re.compile(r"\{(?:<\s*\d+\s*>){4}\}")


def _pattern(wordings: tuple[str, ...]) -> re.Pattern[str]:
    """Matches any of the wordings with anything in the place of the box or the category."""
    return re.compile("|".join(re.sub(r"\\{\w+\\}", ".+", re.escape(wording)) for wording in wordings))


_PATTERNS = {task: _pattern(wordings) for task, wordings in PROMPTS.items()}


def format_corners(box: tuple[int, int, int, int]) -> str:
    """A box as ColonINST writes it."""
    return "{" + "".join(f"<{value}>" for value in box) + "}"


def parse_corners(text: str) -> tuple[int, ...]:
    """All whole numbers in angle brackets; a box has four."""
    return tuple(int(value) for value in _NUMBER.findall(text))


@dataclass(frozen=True)
class ColonInst:
    """A file of ColonINST."""

    items: tuple[Item, ...]
    notes: tuple[str, ...]
    name: str = "coloninst"
    max_tokens: int = MAX_TOKENS

    def grade(self, item: Item, prediction: Prediction) -> Grade:
        """Equality in lower case, or overlap in whole pixels."""
        expected, got = item.references[0].lower(), prediction.text.lower()
        if item.metadata["task"] is not ColonTask.REC:
            return Grade(float(got == expected), expected, got)
        found, right = parse_corners(got), parse_corners(expected)
        return Grade(voc_iou(found, right), expected, got, _drawable(right), _drawable(found))

    def score(self, answered: Sequence[Answered]) -> Scores:
        """Accuracy for CLS and REG, mean overlap for REC."""
        scores: Scores = {}
        for task in ColonTask:
            values = [one.grade.value for one in answered if one.item.metadata["task"] is task]
            if not values:
                continue
            count = float(len(values))
            if task is ColonTask.REC:
                over = mean(value > 0.5 for value in values)
                scores[task.value] = {"items": count, "mean_iou": mean(values), "precision@0.5": over}
            else:
                scores[task.value] = {"items": count, "accuracy": mean(values)}
        return scores


def read_coloninst(source: Source) -> ColonInst:
    """Read a file of ColonINST; `id` is the picture's path below the picture folder, as in the published files."""
    items = []
    unknown = 0
    for index, record in enumerate(records(read_json(source.annotations), str(source.annotations))):
        question, answer = _question_and_answer(record)
        task = _task_of(question, answer)
        unknown += _PATTERNS[task].fullmatch(question) is None
        name = record.text("id")
        item = Item(
            id=f"{index}:{name}",
            question_id=name,
            image=image_below(source.images, name),
            question=question,
            references=(answer,),
            metadata={"task": task},
        )
        items.append(item)
    notes = (f"{unknown} of {len(items)} questions are in none of the published wordings",) if unknown else ()
    return ColonInst(checked(items, source.annotations), notes)


def _question_and_answer(record: Record) -> tuple[str, str]:
    said: dict[str, str] = {}
    for turn in record.records("conversations"):
        said.setdefault(turn.text("from"), turn.text("value"))
    if not {"human", "gpt"} <= said.keys():
        raise DatasetError(f"{record.where}: the conversation has no turn of 'human' or none of 'gpt'")
    return said["human"].replace("<image>", "").strip(), said["gpt"]


def _task_of(question: str, answer: str) -> ColonTask:
    if _WHOLE_BOX.fullmatch(answer.strip()):
        return ColonTask.REC
    return ColonTask.REG if _WHOLE_BOX.search(question) else ColonTask.CLS


def _drawable(corners: tuple[int, ...]) -> tuple[Box, ...]:
    if len(corners) != 4:
        return ()
    x1, y1, x2, y2 = corners
    return (Box(x1, y1, x2 + 1, y2 + 1),)

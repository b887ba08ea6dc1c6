"""TextVQA: questions about text in pictures, with ten people's answers to each.

The annotations are the challenge's own file (`data`, a list with `image_id`, `question`, `answers`). LLaVA and MobileVLM give the
model the picture's OCR tokens along with the question ("Reference OCR token: ..."), and their published numbers depend on it: the
tokens come from the challenge's Rosetta file, given apart. Questions begin with a capital and go on in lower case, as in LLaVA's
file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mobilevlm_ros.evaluate.dataset import MAX_TOKENS, SHORT_ANSWER, Answered, Grade, Item, Prediction, Scores
from mobilevlm_ros.evaluate.errors import DatasetError
from mobilevlm_ros.evaluate.formats.files import IMAGE_SUFFIXES, Record, Source, checked, image_below, read_json
from mobilevlm_ros.evaluate.metrics import VQA_ANNOTATORS, mean, vqa_accuracy


@dataclass(frozen=True)
class TextVqa:
    """A file of TextVQA."""

    items: tuple[Item, ...]
    notes: tuple[str, ...]
    name: str = "textvqa"
    max_tokens: int = MAX_TOKENS

    def grade(self, item: Item, prediction: Prediction) -> Grade:
        """The VQA challenge's soft accuracy."""
        expected = max(item.references, key=item.references.count)
        return Grade(vqa_accuracy(prediction.text, item.references), expected, prediction.text)

    def score(self, answered: Sequence[Answered]) -> Scores:
        """The mean soft accuracy."""
        return {"all": {"items": float(len(answered)), "accuracy": mean(one.grade.value for one in answered)}}


def read_textvqa(source: Source) -> TextVqa:
    """Read the annotations; a picture is `<image_id>.jpg` in the picture folder."""
    tokens = _read_tokens(source.ocr) if source.ocr else {}
    items, without = [], 0
    for index, record in enumerate(Record(read_json(source.annotations), str(source.annotations)).records("data")):
        image_id = record.text("image_id")
        answers = record.texts("answers")
        if len(answers) != VQA_ANNOTATORS:
            raise DatasetError(f"{record.where}: {len(answers)} answers, expected {VQA_ANNOTATORS}")
        seen = tokens.get(image_id, ())
        without += source.ocr is not None and not seen
        item = Item(
            id=record.text("question_id", default=str(index)),
            question_id=image_id,
            image=_picture(source.images, image_id),
            question=_prompt(record.text("question"), seen),
            references=answers,
        )
        items.append(item)
    return TextVqa(checked(items, source.annotations), _notes(source, without))


def _prompt(question: str, tokens: Sequence[str]) -> str:
    lines = [question.capitalize(), SHORT_ANSWER]
    if tokens:
        lines.insert(1, f"Reference OCR token: {', '.join(tokens)}")
    return "\n".join(lines)


def _picture(folder: Path, image_id: str) -> Path:
    named = [image_below(folder, f"{image_id}{suffix}") for suffix in IMAGE_SUFFIXES]
    return next((path for path in named if path.is_file()), named[0])


def _notes(source: Source, without: int) -> tuple[str, ...]:
    if source.ocr is None:
        return ("asked without OCR tokens; the published numbers are with them (give the Rosetta file with --ocr)",)
    return (f"questions without OCR tokens in {source.ocr.name}: {without}",) if without else ()


def _read_tokens(path: Path) -> dict[str, tuple[str, ...]]:
    return {one.text("image_id"): one.texts("ocr_tokens") for one in Record(read_json(path), str(path)).records("data")}

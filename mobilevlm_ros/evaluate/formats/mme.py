"""MME: two yes/no questions about each picture, one to be answered yes and one no, in fourteen subtasks.

The dataset is a folder with a folder for each subtask, which holds the pictures with a text file of the same name for each,
beside them or in `images/` and `questions_answers_YN/`. A line of such a file is question, tab, answer. A subtask's score is its
accuracy plus the share of pictures with both answers right, in percent; perception and cognition add up their subtasks, to at
most 2000 and 800. As LLaVA and MobileVLM do, the wish to answer yes or no is replaced by the one for a short answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mobilevlm_ros.evaluate.dataset import MAX_TOKENS, SHORT_ANSWER, Answered, Grade, Item, Prediction, Scores
from mobilevlm_ros.evaluate.errors import DatasetError
from mobilevlm_ros.evaluate.formats.files import IMAGE_SUFFIXES, Source, checked, read_text
from mobilevlm_ros.evaluate.metrics import MmeScore, mme_label, mme_score

KINDS = {
    "perception": (
        "existence",
        "count",
        "position",
        "color",
        "posters",
        "celebrity",
        "scene",
        "landmark",
        "artwork",
        "OCR",
    ),
    "cognition": ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"),
}
_YES_OR_NO = "Please answer yes or no."


@dataclass(frozen=True)
class Mme:
    """The subtasks of MME that a folder holds."""

    items: tuple[Item, ...]
    notes: tuple[str, ...]
    name: str = "mme"
    max_tokens: int = MAX_TOKENS

    def grade(self, item: Item, prediction: Prediction) -> Grade:
        """Whether the answer was read as the right one of yes and no."""
        got = mme_label(prediction.text)
        return Grade(float(got == item.references[0]), item.references[0], got)

    def score(self, answered: Sequence[Answered]) -> Scores:
        """Each subtask's score, and the sums for perception and cognition."""
        by_subtask: dict[str, list[Answered]] = {}
        for one in answered:
            by_subtask.setdefault(one.item.metadata["subtask"], []).append(one)
        subtasks = {name: _score(members) for name, members in by_subtask.items()}
        scores: Scores = {}
        for kind, names in KINDS.items():
            present = [name for name in names if name in subtasks]
            if present:
                count = sum(len(by_subtask[name]) for name in present)
                scores[kind] = {"items": float(count), "score": sum(subtasks[name].score for name in present)}
        for name, result in subtasks.items():
            scores[name] = {
                "items": float(len(by_subtask[name])),
                "accuracy": result.accuracy,
                "accuracy_plus": result.accuracy_plus,
                "score": result.score,
            }
        return scores


def _score(members: Sequence[Answered]) -> MmeScore:
    return mme_score((one.item.metadata["picture"], one.grade.value == 1.0) for one in members)


def read_mme(source: Source) -> Mme:
    """Read all subtasks that the folder holds, in the published order; others are left out."""
    folder = source.annotations
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; MME is a folder with a folder for each subtask")
    known = [name for names in KINDS.values() for name in names]
    items = [item for name in known if (folder / name).is_dir() for item in _read_subtask(folder / name, source)]
    if not items:
        raise DatasetError(f"{folder}: none of MME's subtasks ({', '.join(known[:3])}, ...) is in this folder")
    missing = [name for name in known if not (folder / name).is_dir()]
    notes = (f"not in the folder, so missing from the sums: {', '.join(missing)}",) if missing else ()
    return Mme(checked(items, folder), notes)


def _read_subtask(folder: Path, source: Source) -> list[Item]:
    texts = folder / "questions_answers_YN"
    images = source.images / folder.name
    if texts.is_dir():
        images /= "images"
    else:
        texts = folder
    return [item for path in sorted(texts.glob("*.txt")) for item in _read_pair(path, _picture(images, path.stem), folder.name)]


def _read_pair(path: Path, picture: Path, subtask: str) -> list[Item]:
    items = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        question, tab, answer = line.partition("\t")
        label = answer.strip().lower()
        if not tab or label not in ("yes", "no"):
            raise DatasetError(f"{path}, line {number}: expected a question, a tab, and Yes or No")
        item = Item(
            id=f"{subtask}/{path.stem}:{number}",
            question_id=f"{subtask}/{picture.name}",
            image=picture,
            question=f"{question.replace(_YES_OR_NO, '').strip()}\n{SHORT_ANSWER}",
            references=(label,),
            metadata={"subtask": subtask, "picture": path.stem},
        )
        items.append(item)
    return items


def _picture(folder: Path, stem: str) -> Path:
    named = [folder / f"{stem}{suffix}" for suffix in IMAGE_SUFFIXES]
    return next((path for path in named if path.is_file()), named[0])

"""ScienceQA-IMG: multiple choice from school books, the questions that have a picture.

The annotations are ScienceQA's own: `problems.json`, questions by id, and `pid_splits.json`, the ids of each split. The prompt is
LLaVA's: the hint as context, the question, the choices with letters, and the wish for the letter. The official MobileVLM script
crops the picture to its centred square here, where all the others pad it. An answer counts if it is one capital letter, begins
with one, a full stop and a space, or holds "The answer is X" once and something after the letter; nothing else does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mobilevlm_ros.evaluate.dataset import Answered, Fit, Grade, Item, Prediction, Scores
from mobilevlm_ros.evaluate.errors import DatasetError
from mobilevlm_ros.evaluate.formats.files import Record, Source, checked, image_below, read_json
from mobilevlm_ros.evaluate.metrics import mean

LETTERS = "ABCDE"
LETTER_ONLY = "Answer with the option's letter from the given choices directly."
MAX_TOKENS = 1024
"""As the official script for this benchmark; a model that answers with a letter ends long before."""

_STATED = re.compile(r"The answer is ([A-Z]).")  # whatever character follows, as in the public evaluator
_NO_CHOICE = "none"


def chosen_letter(answer: str, choices: int) -> str | None:
    """The letter that an answer names by LLaVA's rules; None where it names none of the `choices`."""
    if answer in tuple(LETTERS):
        letter = answer
    elif answer[:1] in tuple(LETTERS) and answer[1:3] == ". ":
        letter = answer[0]
    else:
        stated = _STATED.findall(answer)
        letter = stated[0] if len(stated) == 1 else ""
    return letter if letter and letter in LETTERS[:choices] else None


@dataclass(frozen=True)
class ScienceQa:
    """The questions with a picture of one split of ScienceQA."""

    items: tuple[Item, ...]
    notes: tuple[str, ...]
    name: str = "scienceqa"
    max_tokens: int = MAX_TOKENS

    def grade(self, item: Item, prediction: Prediction) -> Grade:
        """Whether the right letter was chosen."""
        got = chosen_letter(prediction.text, item.metadata["choices"])
        return Grade(float(got == item.references[0]), item.references[0], got or _NO_CHOICE)

    def score(self, answered: Sequence[Answered]) -> Scores:
        """Accuracy over all and by subject; `no_choice` is the share of answers that named no choice."""
        groups: dict[str, list[Answered]] = {"all": list(answered)}
        for one in answered:
            groups.setdefault(one.item.metadata["subject"], []).append(one)
        return {
            group: {
                "items": float(len(members)),
                "accuracy": mean(one.grade.value for one in members),
                "no_choice": mean(one.grade.got == _NO_CHOICE for one in members),
            }
            for group, members in groups.items()
        }


def read_scienceqa(source: Source) -> ScienceQa:
    """Read a split, `test` if none is named; a picture is `<id>/<image>` in the picture folder or its folder of the split."""
    folder = source.annotations if source.annotations.is_dir() else source.annotations.parent
    problems_file = folder / "problems.json" if source.annotations.is_dir() else source.annotations
    problems = Record(read_json(problems_file), str(problems_file)).value
    split = source.split or "test"
    splits = Record(read_json(folder / "pid_splits.json"), str(folder / "pid_splits.json"))
    if split not in splits.value:
        raise DatasetError(f"{splits.where}: no split {split!r}; there are {', '.join(splits.value)}")
    ids = splits.texts(split)
    items = []
    for key in ids:
        record = Record(problems.get(key), f"{problems_file}: {key}")
        if record.value.get("image"):
            items.append(_item(key, record, source.images, split))
    notes = (f"questions left out because they have no picture: {len(ids) - len(items)}",) if len(items) < len(ids) else ()
    return ScienceQa(checked(items, problems_file), notes)


def _item(key: str, record: Record, images: Path, split: str) -> Item:
    choices, answer = record.texts("choices"), record.integer("answer")
    if not 0 <= answer < len(choices) <= len(LETTERS):
        raise DatasetError(f"{record.where}: answer {answer} of {len(choices)} choices; at most {len(LETTERS)} are allowed")
    name = f"{key}/{record.text('image')}"
    in_split = image_below(images / split, name)
    return Item(
        id=key,
        question_id=key,
        image=in_split if in_split.is_file() else image_below(images, name),
        question=_prompt(record, choices),
        references=(LETTERS[answer],),
        fit=Fit.CENTRE_CROP,
        metadata={"choices": len(choices), "subject": record.text("subject", default="unknown")},
    )


def _prompt(record: Record, choices: Sequence[str]) -> str:
    hint = record.text("hint", default="").strip()
    lines = [f"Context: {hint}"] if hint else []
    lines.append(record.text("question"))
    lines += [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices)]
    return "\n".join([*lines, LETTER_ONLY])

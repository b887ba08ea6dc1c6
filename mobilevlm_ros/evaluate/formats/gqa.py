"""GQA: compositional questions about scenes, answered in a word or two.

The questions file is a JSON object of questions by id with `question`, `imageId`, `answer`, `isBalanced` and `types`. As GQA's
evaluator does, only balanced questions count; as LLaVA does before it, an answer loses its full stop and is put in lower case,
then it must equal the truth. A question is open if its structural type is "query", else binary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mobilevlm_ros.evaluate.dataset import MAX_TOKENS, SHORT_ANSWER, Answered, Grade, Item, Prediction, Scores
from mobilevlm_ros.evaluate.formats.files import Record, Source, checked, image_below, read_json
from mobilevlm_ros.evaluate.metrics import mean


@dataclass(frozen=True)
class Gqa:
    """A file of GQA questions."""

    items: tuple[Item, ...]
    notes: tuple[str, ...]
    name: str = "gqa"
    max_tokens: int = MAX_TOKENS

    def grade(self, item: Item, prediction: Prediction) -> Grade:
        """Equality after LLaVA's normalisation."""
        got = prediction.text.rstrip(".").lower()
        return Grade(float(got == item.references[0]), item.references[0], got)

    def score(self, answered: Sequence[Answered]) -> Scores:
        """Accuracy over all, and by what the questions' answers and structures are."""
        groups: dict[str, list[float]] = {"all": []}
        for one in answered:
            for group in ("all", one.item.metadata["answer"], one.item.metadata["structure"]):
                groups.setdefault(group, []).append(one.grade.value)
        return {group: {"items": float(len(values)), "accuracy": mean(values)} for group, values in groups.items()}


def read_gqa(source: Source) -> Gqa:
    """Read a questions file; a picture is `<imageId>.jpg` in the picture folder."""
    questions = Record(read_json(source.annotations), str(source.annotations)).value
    items = []
    for key, value in questions.items():
        record = Record(value, f"{source.annotations}: {key}")
        if not record.value.get("isBalanced", True):
            continue
        structure = Record(record.value.get("types", {}), f"{record.where}: types").text("structural", default="unknown")
        item = Item(
            id=key,
            question_id=key,
            image=image_below(source.images, f"{record.text('imageId')}.jpg"),
            question=f"{record.text('question')}\n{SHORT_ANSWER}",
            references=(record.text("answer"),),
            metadata={"structure": structure, "answer": "open" if structure == "query" else "binary"},
        )
        items.append(item)
    left_out = len(questions) - len(items)
    notes = (f"questions left out because they are not balanced: {left_out}",) if left_out else ()
    return Gqa(checked(items, source.annotations), notes)

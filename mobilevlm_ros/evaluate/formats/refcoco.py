"""Referring expressions (RefCOCO, RefCOCO+, RefCOCOg and what is written like them): find the one thing that a phrase means.

`referring.py` reads the files; here are the rules. A box is right if it overlaps the truth by half or more (Acc@0.5). The
published way asks for a box without asking whether the thing is there; that is group "box always". The way a robot is served asks
for presence first: group "presence checked", where a thing taken for absent is a miss. Items marked absent have one measure: how
often a box came back nevertheless. Where there are scored boxes, a reliability table tells how far a score can be trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mobilevlm_ros.evaluate.dataset import Answered, Grade, Item, Prediction, Scores
from mobilevlm_ros.evaluate.formats.files import Source
from mobilevlm_ros.evaluate.formats.referring import read_referring
from mobilevlm_ros.evaluate.metrics import accuracy_at_iou, calibration_error, mean, overlap, reliability
from mobilevlm_ros.tasks.ground import MAX_BOX_TOKENS

THRESHOLD = 0.5


@dataclass(frozen=True)
class RefCoco:
    """A set of referring expressions."""

    items: tuple[Item, ...]
    notes: tuple[str, ...]
    name: str = "refcoco"
    max_tokens: int = MAX_BOX_TOKENS

    def grade(self, item: Item, prediction: Prediction) -> Grade:
        """The overlap of the first box; for an absent thing, whether there is none."""
        served = tuple(scored.box for scored in prediction.boxes)
        if item.absent:
            return Grade(float(not served), "nothing", prediction.text or "nothing", None, served)
        right = item.source_box(prediction.width, prediction.height)
        forced = prediction.forced_box
        drawn = (forced,) if forced is not None else ()
        return Grade(overlap(forced, right), "the box", prediction.text or "nothing", right, drawn)

    def score(self, answered: Sequence[Answered]) -> Scores:
        """Accuracy and mean overlap with and without the presence check, false positives, and calibration."""
        scores: Scores = {}
        present = [one for one in answered if not one.item.absent]
        absent = [one for one in answered if one.item.absent]
        if present:
            forced = [one.grade.value for one in present]
            checked = [_served_overlap(one) for one in present]
            scores["box always"] = _located(forced) | {"no_box": mean(one.prediction.forced_box is None for one in present)}
            scores["presence checked"] = _located(checked) | {"no_box": mean(not one.prediction.boxes for one in present)}
        if absent:
            false_positives = mean(bool(one.prediction.boxes) for one in absent)
            scores["absent"] = {"items": float(len(absent)), "false_positive_rate": false_positives}
        return scores | _calibration(answered)


def _located(overlaps: Sequence[float]) -> dict[str, float]:
    accuracy = accuracy_at_iou(overlaps, THRESHOLD)
    return {"items": float(len(overlaps)), "acc@0.5": accuracy, "mean_iou": mean(overlaps)}


def _served_overlap(one: Answered) -> float:
    first = one.prediction.boxes[0].box if one.prediction.boxes else None
    return overlap(first, one.item.source_box(one.prediction.width, one.prediction.height))


def _calibration(answered: Sequence[Answered]) -> Scores:
    served = [one for one in answered if one.prediction.boxes]
    if not served:
        return {}
    scored = [(one.prediction.boxes[0].score, not one.item.absent and _served_overlap(one) >= THRESHOLD) for one in served]
    table = reliability(scored)
    scores: Scores = {"calibration": {"items": float(len(scored)), "calibration_error": calibration_error(table)}}
    for entry in table:
        name = f"score {entry.low:.1f} to {entry.high:.1f}"
        scores[name] = {"items": float(entry.count), "mean_score": entry.mean_score, "right": entry.right}
    return scores


def read_refcoco(source: Source) -> RefCoco:
    """Read referring expressions from any of the files that `referring.py` knows."""
    found = read_referring(source)
    return RefCoco(found.items, found.notes)

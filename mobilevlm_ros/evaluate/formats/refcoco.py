"""Referring expressions (RefCOCO, RefCOCO+, RefCOCOg, gRefCOCO and what is written like them): find what a phrase means.

`referring.py` reads the files; here are the rules. A box is right if it overlaps the truth by half or more (Acc@0.5).

One thing: the published way asks for a box without asking whether the thing is there: group "box always". The way a robot is
served asks for presence first: group "presence checked", where a thing taken for absent is a miss ("missed").
Absent things have one measure: how often a box came back nevertheless. "presence from 0.3" says what would be missed and what
would come back for absent things if a thing counted as there from a probability of 0.3 on.
Several things: a box is found if it is matched to a right one of its own. "exact" is the share of expressions for which all were
found and nothing else, which gRefCOCO calls precision at F1 = 1; "several, 2 there" are the expressions that mean two things.
Where there are scored boxes, "calibration" and a reliability table tell how far a score can be trusted: "fitted_scale" and
"fitted_offset" are the `score_calibration` that would fit these scores best, which are 1 and 0 where nothing is left to mend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mobilevlm_ros.evaluate.calibration import brier, calibration_error, fit_logistic, ranking, reliability
from mobilevlm_ros.evaluate.dataset import Answered, Grade, Item, Prediction, Scores
from mobilevlm_ros.evaluate.formats.files import Source
from mobilevlm_ros.evaluate.formats.referring import read_referring
from mobilevlm_ros.evaluate.metrics import accuracy_at_iou, matched, mean, overlap, ratio
from mobilevlm_ros.runtime.geometry import Box
from mobilevlm_ros.tasks.look import MAX_BOX_TOKENS

THRESHOLD = 0.5
SWEEP = (0.1, 0.3, 0.5, 0.7, 0.9, 0.99)
_MANY = 3


@dataclass(frozen=True)
class RefCoco:
    """A set of referring expressions."""

    items: tuple[Item, ...]
    notes: tuple[str, ...]
    name: str = "refcoco"
    max_tokens: int = MAX_BOX_TOKENS

    def grade(self, item: Item, prediction: Prediction) -> Grade:
        """The overlap of the first box; for an absent thing, whether there is none; for several things, F1 of the boxes."""
        served = tuple(scored.box for scored in prediction.boxes)
        if item.several is not None:
            return _grade_several(item.several, served, prediction.text)
        if item.absent:
            return Grade(float(not served), "nothing", prediction.text or "nothing", (), served)
        right = item.source_box(prediction.width, prediction.height)
        forced = prediction.forced_box
        drawn = (forced,) if forced is not None else ()
        return Grade(overlap(forced, right), "the box", prediction.text or "nothing", (right,) if right else (), drawn)

    def score(self, answered: Sequence[Answered]) -> Scores:
        """Accuracy, false positives, instances and calibration, each where there are items for it."""
        several = [one for one in answered if one.item.several is not None]
        single = [one for one in answered if one.item.several is None]
        return _score_single(single) | _score_several(several) | _calibration(single)


def _score_single(single: Sequence[Answered]) -> Scores:
    scores: Scores = {}
    present = [one for one in single if not one.item.absent]
    absent = [one for one in single if one.item.absent]
    if present:
        forced = [one.grade.value for one in present]
        checked = [_served_overlap(one) for one in present]
        scores["box always"] = _located(forced) | {"missed": mean(one.prediction.forced_box is None for one in present)}
        scores["presence checked"] = _located(checked) | {"missed": mean(not one.prediction.boxes for one in present)}
    if absent:
        false_positives = mean(bool(one.prediction.boxes) for one in absent)
        scores["absent"] = {"items": float(len(absent)), "false_positive_rate": false_positives}
    return scores | _presence_sweep(present, absent)


def _located(overlaps: Sequence[float]) -> dict[str, float]:
    accuracy = accuracy_at_iou(overlaps, THRESHOLD)
    return {"items": float(len(overlaps)), "acc@0.5": accuracy, "mean_iou": mean(overlaps)}


def _served_overlap(one: Answered) -> float:
    first = one.prediction.boxes[0].box if one.prediction.boxes else None
    return overlap(first, one.item.source_box(one.prediction.width, one.prediction.height))


def _presence_sweep(present: Sequence[Answered], absent: Sequence[Answered]) -> Scores:
    """What other thresholds of presence would do; only where both kinds of things were asked for."""
    if not present or not absent:
        return {}
    scores: Scores = {}
    for threshold in SWEEP:
        there = [_presence(one) >= threshold for one in present]
        scores[f"presence from {threshold:g}"] = {
            "items": float(len(present) + len(absent)),
            "missed": mean(not seen for seen in there),
            "false_positive_rate": mean(_presence(one) >= threshold for one in absent),
            "acc@0.5": mean(seen and one.grade.value >= THRESHOLD for seen, one in zip(there, present)),
        }
    return scores


def _presence(one: Answered) -> float:
    """The probability that the model gave; answers kept from before it was recorded say only whether a box came back."""
    presence = one.prediction.presence
    return presence if presence is not None else float(bool(one.prediction.boxes))


def _grade_several(right: tuple[Box, ...], served: tuple[Box, ...], text: str) -> Grade:
    found = matched(served, right, THRESHOLD)
    f1 = 2 * found / (len(right) + len(served)) if right or served else 1.0
    return Grade(f1, f"{len(right)} boxes", text or "nothing", right, served)


def _score_several(several: Sequence[Answered]) -> Scores:
    if not several:
        return {}
    scores: Scores = {"several": _instances(several)}
    for count in range(_MANY + 1):
        group = [one for one in several if min(len(one.item.several or ()), _MANY) == count]
        if group:
            scores[f"several, {count}{' or more' if count == _MANY else ''} there"] = _instances(group)
    return scores


def _instances(several: Sequence[Answered]) -> dict[str, float]:
    right = sum(len(one.grade.right_boxes) for one in several)
    served = sum(len(one.grade.boxes) for one in several)
    found = sum(matched(one.grade.boxes, one.grade.right_boxes, THRESHOLD) for one in several)
    return {
        "items": float(len(several)),
        "exact": mean(one.grade.value == 1 for one in several),
        "recall": ratio(found, right),
        "precision": ratio(found, served),
        "boxes_an_item": ratio(served, len(several)),
    }


def _calibration(single: Sequence[Answered]) -> Scores:
    served = [one for one in single if one.prediction.boxes]
    if not served:
        return {}
    scored = [(one.prediction.boxes[0].score, not one.item.absent and _served_overlap(one) >= THRESHOLD) for one in served]
    table = reliability(scored)
    scale, offset = fit_logistic(scored)
    scores: Scores = {
        "calibration": {
            "items": float(len(scored)),
            "mean_score": mean(score for score, _ in scored),
            "right": mean(right for _, right in scored),
            "calibration_error": calibration_error(table),
            "brier": brier(scored),
            "ranking": ranking(scored),
            "fitted_scale": scale,
            "fitted_offset": offset,
        }
    }
    for entry in table:
        name = f"score {entry.low:.1f} to {entry.high:.1f}"
        scores[name] = {"items": float(entry.count), "mean_score": entry.mean_score, "right": entry.right}
    return scores


def read_refcoco(source: Source) -> RefCoco:
    """Read referring expressions from any of the files that `referring.py` knows."""
    found = read_referring(source)
    return RefCoco(found.items, found.notes)

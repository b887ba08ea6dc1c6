"""Measures, as pure functions of answers and truths. Each says whose rules it follows.

Knows no files, no model and no prompts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mobilevlm_ros.evaluate.normalize import normalize_answer
from mobilevlm_ros.runtime.geometry import Box

VQA_ANNOTATORS = 10


def mean(values: Iterable[float]) -> float:
    """The arithmetic mean; 0 of nothing."""
    found = list(values)
    return sum(found) / len(found) if found else 0.0


def ratio(part: float, whole: float) -> float:
    """`part` / `whole`; 0 where `whole` is 0."""
    return part / whole if whole else 0.0


def voc_iou(first: Sequence[int], second: Sequence[int]) -> float:
    """Intersection over union of boxes (x1, y1, x2, y2) whose last pixels belong to them, as PASCAL VOC counts: a box from 3 to
    5 is 3 pixels wide. 0 if either has not exactly four numbers. Source: ColonINST's evaluator."""
    if len(first) != 4 or len(second) != 4:
        return 0.0
    width = min(first[2], second[2]) - max(first[0], second[0]) + 1
    height = min(first[3], second[3]) - max(first[1], second[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    areas = sum((box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (first, second))
    return shared / (areas - shared)


def accuracy_at_iou(overlaps: Sequence[float], threshold: float = 0.5) -> float:
    """Share of overlaps that reach `threshold`. Source: referring expression papers, where 0.5 itself counts."""
    return ratio(sum(overlap >= threshold for overlap in overlaps), len(overlaps))


def vqa_accuracy(answer: str, annotators: Sequence[str]) -> float:
    """The VQA challenge's soft accuracy of an answer, 0 to 1.

    The mean over the ten ways to leave one annotator out of min(1, matches among the nine others / 3), after normalisation.

    Raises:
        ValueError: there are not ten annotators.
    """
    if len(annotators) != VQA_ANNOTATORS:
        raise ValueError(f"{len(annotators)} annotators, the measure is defined for {VQA_ANNOTATORS}")
    said = normalize_answer(answer)
    agree = [normalize_answer(annotator) == said for annotator in annotators]
    total = sum(agree)
    return mean(min(1.0, (total - left_out) / 3) for left_out in agree)


def pope_says_yes(answer: str) -> bool:
    """POPE's reading of an answer: no if its first sentence has the word "No", "no" or "not", else yes.

    Words are what single spaces part, after commas are dropped; so "NO" and "nothing" are yes, and so is an empty answer.
    Source: POPE's evaluator as LLaVA ships it.
    """
    words = answer.split(".")[0].replace(",", "").split(" ")
    return not {"No", "no", "not"}.intersection(words)


@dataclass(frozen=True)
class BinaryCounts:
    """Answers to yes/no questions, with yes as the positive one. Measures that would divide by zero are 0."""

    true_positive: int
    false_positive: int
    true_negative: int
    false_negative: int

    @staticmethod
    def of(pairs: Iterable[tuple[bool, bool]]) -> BinaryCounts:
        """Count pairs of (said yes, is yes)."""
        counts = Counter(pairs)
        return BinaryCounts(counts[True, True], counts[True, False], counts[False, False], counts[False, True])

    @property
    def total(self) -> int:
        """All answers."""
        return self.true_positive + self.false_positive + self.true_negative + self.false_negative

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return ratio(self.true_positive + self.true_negative, self.total)

    @property
    def precision(self) -> float:
        """Share of right ones among those that said yes."""
        return ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float:
        """Share of those that are yes for which yes was said."""
        return ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return ratio(2 * self.precision * self.recall, self.precision + self.recall)

    @property
    def yes_ratio(self) -> float:
        """Share of answers that said yes."""
        return ratio(self.true_positive + self.false_positive, self.total)


def mme_label(answer: str) -> str:
    """MME's reading of an answer: "yes", "no" or "other", by its first four characters in lower case, where yes goes first.

    Source: MME's calculation tool.
    """
    start = answer.lower()[:4]
    return next((label for label in ("yes", "no") if label in start), "other")


@dataclass(frozen=True)
class MmeScore:
    """An MME subtask: the share of right answers, and of pictures of whose two questions both were answered right."""

    accuracy: float
    accuracy_plus: float

    @property
    def score(self) -> float:
        """0 to 200: the sum of both in percent."""
        return 100 * (self.accuracy + self.accuracy_plus)


def mme_score(answers: Iterable[tuple[str, bool]]) -> MmeScore:
    """An MME subtask's score from (picture, right?) of each answer.

    A picture with one answer only cannot be right twice, so it is left out of the second measure.
    """
    by_picture: dict[str, list[bool]] = {}
    for picture, right in answers:
        by_picture.setdefault(picture, []).append(right)
    every = [right for rights in by_picture.values() for right in rights]
    pairs = [all(rights) for rights in by_picture.values() if len(rights) > 1]
    return MmeScore(mean(every), mean(pairs))


def overlap(found: Box | None, right: Box | None) -> float:
    """Intersection over union of two boxes in continuous coordinates; 0 where either is missing."""
    return found.iou(right) if found is not None and right is not None else 0.0


def matched(found: Sequence[Box], right: Sequence[Box], threshold: float) -> int:
    """How many boxes are found: each of `found`, best first, takes the free right box that it overlaps most.

    The overlap must reach `threshold`, an intersection over union.
    """
    free = list(right)
    count = 0
    for box in found:
        best = max(free, key=box.iou, default=None)
        if best is not None and box.iou(best) >= threshold:
            free.remove(best)
            count += 1
    return count

"""Measures, each against cases worked by hand and the public evaluators' rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.evaluate.metrics import (
    BinaryCounts,
    accuracy_at_iou,
    matched,
    mme_label,
    mme_score,
    overlap,
    pope_says_yes,
    voc_iou,
    vqa_accuracy,
)
from mobilevlm_ros.runtime.geometry import Box

CORNERS = st.lists(st.integers(0, 50), min_size=4, max_size=4)


def test_voc_counts_the_last_pixel() -> None:
    # 0..9 and 5..14 are 10 pixels wide each and share 5: areas 100 and 100, shared 5 * 10 = 50, union 150.
    assert voc_iou((0, 0, 9, 9), (5, 0, 14, 9)) == pytest.approx(50 / 150)
    # One pixel is a box.
    assert voc_iou((3, 3, 3, 3), (3, 3, 3, 3)) == 1
    # Neighbours that touch at an edge share nothing: 4 is the last column of one, 5 the first of the other.
    assert voc_iou((0, 0, 4, 4), (5, 0, 9, 4)) == 0


@pytest.mark.parametrize("malformed", [(), (1, 2, 3), (1, 2, 3, 4, 5), (1, 2, 3, 4, 1, 2, 3, 4)])
def test_a_box_without_exactly_four_numbers_overlaps_nothing(malformed: tuple[int, ...]) -> None:
    assert voc_iou(malformed, (1, 2, 3, 4)) == 0
    assert voc_iou((1, 2, 3, 4), malformed) == 0


@given(CORNERS, CORNERS)
def test_overlap_is_symmetric_and_within_bounds_whatever_the_corners(first: list[int], second: list[int]) -> None:
    assert 0 <= voc_iou(first, second) <= 1
    assert voc_iou(first, second) == voc_iou(second, first)


@given(CORNERS)
def test_only_a_box_in_order_overlaps_itself(corners: list[int]) -> None:
    x1, y1, x2, y2 = corners
    assert voc_iou(corners, corners) == (1.0 if x1 <= x2 and y1 <= y2 else 0.0)


def test_a_missing_box_overlaps_nothing() -> None:
    assert overlap(None, Box(0, 0, 1, 1)) == 0
    assert overlap(Box(0, 0, 2, 1), Box(1, 0, 3, 1)) == pytest.approx(1 / 3)


def test_an_overlap_of_one_half_itself_is_right() -> None:
    assert accuracy_at_iou([0.5, 0.49, 1.0, 0.0]) == 0.5
    assert accuracy_at_iou([]) == 0


@pytest.mark.parametrize(
    ("agreeing", "accuracy"),
    [
        (0, 0.0),
        (1, 0.3),  # left out once: 0 matches; nine times: 1/3. 9 * 1/3 / 10
        (2, 0.6),  # twice 1/3, eight times 2/3
        (3, 0.9),  # three times 2/3, seven times 1
        (4, 1.0),
        (10, 1.0),
    ],
)
def test_vqa_accuracy_is_soft_up_to_four_of_ten(agreeing: int, accuracy: float) -> None:
    annotators = ["two"] * agreeing + ["seven"] * (10 - agreeing)
    assert vqa_accuracy("The 2.", annotators) == pytest.approx(accuracy)


def test_vqa_accuracy_needs_ten_annotators() -> None:
    with pytest.raises(ValueError, match="9 annotators"):
        vqa_accuracy("yes", ["yes"] * 9)


@pytest.mark.parametrize(
    ("answer", "yes"),
    [
        ("Yes", True),
        ("No", False),
        ("no", False),
        ("No, there is none", False),
        ("There is not", False),
        ("Yes. But no dog", True),  # only the first sentence counts
        ("unknown", True),  # no word of denial in it
        ("I don't know", True),
        ("nothing", True),
        ("NO", True),  # the public evaluator heeds case
        ("There is\nno dog", True),  # words are parted by spaces only
        ("", True),
    ],
)
def test_pope_reads_everything_without_a_denial_as_yes(answer: str, yes: bool) -> None:
    assert pope_says_yes(answer) is yes


def test_pope_measures_by_hand() -> None:
    # Said yes, is yes: 3 true positives, 1 false positive, 4 true negatives, 2 false negatives.
    pairs = [(True, True)] * 3 + [(True, False)] + [(False, False)] * 4 + [(False, True)] * 2
    counts = BinaryCounts.of(pairs)
    assert counts == BinaryCounts(3, 1, 4, 2)
    assert counts.accuracy == pytest.approx(7 / 10)
    assert counts.precision == pytest.approx(3 / 4)
    assert counts.recall == pytest.approx(3 / 5)
    assert counts.f1 == pytest.approx(2 / 3)  # 2 * 0.75 * 0.6 / 1.35
    assert counts.yes_ratio == pytest.approx(4 / 10)


def test_measures_that_would_divide_by_zero_are_zero() -> None:
    counts = BinaryCounts.of([(False, True)])
    assert (counts.precision, counts.recall, counts.f1, counts.accuracy) == (0, 0, 0, 0)
    assert BinaryCounts.of([]).yes_ratio == 0


@given(st.lists(st.tuples(st.booleans(), st.booleans())))
def test_each_answer_is_counted_once(pairs: list[tuple[bool, bool]]) -> None:
    counts = BinaryCounts.of(pairs)
    assert counts.total == len(pairs)
    assert all(0 <= value <= 1 for value in (counts.accuracy, counts.precision, counts.recall, counts.f1, counts.yes_ratio))


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("Yes", "yes"),
        ("yes.", "yes"),
        ("No, it is not", "no"),
        (" No", "no"),
        ("not sure", "no"),
        ("unknown", "other"),  # "unkn"
        ("know", "no"),  # the first four characters hold "no"
        ("The answer is yes", "other"),
        ("", "other"),
    ],
)
def test_mme_reads_the_first_four_characters(answer: str, label: str) -> None:
    assert mme_label(answer) == label


def test_an_mme_picture_counts_twice_over_if_both_its_answers_are_right() -> None:
    # Three pictures: both right, one right, none right. Accuracy 3/6, accuracy plus 1/3, score 50 + 33.33.
    answers = [("a", True), ("b", True), ("a", True), ("b", False), ("c", False), ("c", False)]
    found = mme_score(answers)
    assert (found.accuracy, found.accuracy_plus) == (pytest.approx(3 / 6), pytest.approx(1 / 3))
    assert found.score == pytest.approx(250 / 3)


def test_an_mme_picture_with_one_answer_is_in_the_accuracy_only() -> None:
    found = mme_score([("a", True), ("a", True), ("b", False)])
    assert (found.accuracy, found.accuracy_plus) == (pytest.approx(2 / 3), 1)


def test_a_right_box_is_matched_once_and_by_the_best() -> None:
    left, right = Box(0, 0, 10, 10), Box(20, 0, 30, 10)
    near = Box(1, 0, 11, 10)
    assert matched([left, right], [right, left], 0.5) == 2
    assert matched([left, near], [left, right], 0.5) == 1
    assert matched([near], [left, Box(1, 0, 10, 10)], 0.85) == 1  # 90 of 110 with the first, 90 of 100 with the second
    assert matched([], [left], 0.5) == matched([left], [], 0.5) == 0

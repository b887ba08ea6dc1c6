"""When the answer to a standing query counts as another one."""

from __future__ import annotations

import pytest

from mobilevlm_ros.ros.standing_change import MOVED_IOU, Finding
from mobilevlm_ros.runtime.errors import ErrorCode
from mobilevlm_ros.runtime.geometry import Box
from mobilevlm_ros.runtime.requests import Timing
from mobilevlm_ros.tasks import Answer, Classification, Grounding, Region

HERE, THERE = Box(0.1, 0.1, 0.3, 0.3), Box(0.6, 0.6, 0.8, 0.8)


def at(*boxes: Box) -> Finding:
    return Finding("present" if boxes else "absent", boxes)


@pytest.mark.parametrize(("first", "second"), [("Yes", "yes."), ("a red mug", " a  red mug"), ("Two", "two")])
def test_case_spaces_and_a_full_stop_are_no_change(first: str, second: str) -> None:
    assert not Finding(first).differs_from(Finding(second))


@pytest.mark.parametrize(("first", "second"), [("yes", "no"), ("1", "11"), ("", "yes"), ("1.5", "15")])
def test_other_words_are_a_change(first: str, second: str) -> None:
    assert Finding(first).differs_from(Finding(second))


def test_a_thing_that_comes_or_goes_is_a_change() -> None:
    assert at(HERE).differs_from(at())
    assert at().differs_from(at(HERE))
    assert at(HERE, THERE).differs_from(at(HERE))
    assert not at().differs_from(at())


def test_a_box_has_moved_where_it_has_too_little_in_common_with_the_one_before() -> None:
    width = HERE.x2 - HERE.x1
    little, much = HERE.shifted(width * 0.3, 0), HERE.shifted(width * 0.4, 0)
    assert HERE.iou(much) < MOVED_IOU < HERE.iou(little)
    assert not at(little).differs_from(at(HERE))
    assert at(much).differs_from(at(HERE))


def test_the_order_of_several_boxes_does_not_count() -> None:
    assert not at(THERE, HERE).differs_from(at(HERE, THERE))


def test_two_boxes_do_not_share_one_before() -> None:
    assert at(HERE, HERE).differs_from(at(HERE, THERE))


def test_what_counts_of_a_result_is_its_words_its_label_or_its_boxes() -> None:
    told = (0.9, 150, 3, Timing(), ErrorCode.NONE, "")
    assert Finding.of(Answer(*told, "Is it?", "Yes", (5,))) == Finding("Yes")
    assert Finding.of(Classification(*told, "no", (0.1, 0.9))) == Finding("no")
    region = Region("the mug", 0.9, Box(10, 10, 30, 30), HERE)
    assert Finding.of(Grounding(*told, "the mug", (region,), "", 0.9)) == Finding("present", (HERE,))
    assert Finding.of(Grounding(*told, "the mug", (), "", 0.1)) == Finding("absent")

"""The client's results: what they print, and that they keep what the messages say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="needs ROS 2")

from geometry_msgs.msg import Point, Vector3
from mobilevlm_msgs import msg as vlm_msgs
from mobilevlm_msgs.srv import Classify
from std_msgs.msg import Header

from mobilevlm_ros.client import ErrorCode, VlmError
from mobilevlm_ros.client.options import duration, request_options
from mobilevlm_ros.client.results import answer_of, classification_of, finding_of, raise_for, regions_of


def mug(**fields: object) -> vlm_msgs.Region:
    box = vlm_msgs.Box2D(x1=10.4, y1=20.0, x2=30.0, y2=40.6)
    return vlm_msgs.Region(phrase="the red mug", score=0.987, box=box, **fields)


def test_an_answer_prints_as_its_text() -> None:
    assert str(answer_of(vlm_msgs.Answer(question="What is it?", text="A mug."))) == "A mug."


@pytest.mark.parametrize(
    ("text", "is_yes"), [("Yes", True), ("yes, it is", True), ("No.", False), ("Nobody knows", None), ("", None), ("...", None)]
)
def test_an_answer_tells_yes_from_no(text: str, is_yes: bool | None) -> None:
    assert answer_of(vlm_msgs.Answer(text=text)).is_yes is is_yes


def test_regions_are_a_sequence_and_print_a_line_for_each() -> None:
    regions = regions_of(vlm_msgs.Regions(expression="all red mugs", regions=[mug(), mug()]))
    assert len(regions) == 2
    assert list(regions) == [regions[0], regions[1]]
    assert str(regions) == "the red mug: (10, 20) to (30, 41), score 0.99\nthe red mug: (10, 20) to (30, 41), score 0.99"


def test_a_region_with_depth_tells_its_position_and_its_frame() -> None:
    placed = mug(
        has_position=True,
        position_header=Header(frame_id="base_link"),
        position=Point(x=1.0, y=-0.25, z=0.5),
        extent=Vector3(x=0.1, y=0.1, z=0.2),
    )
    (region,) = regions_of(vlm_msgs.Regions(regions=[placed]))
    assert region.position
    assert tuple(region.position.point) == (1.0, -0.25, 0.5)
    assert tuple(region.position.extent) == (0.1, 0.1, 0.2)
    assert str(region).endswith("score 0.99, (1.00, -0.25, 0.50) m in base_link")


def test_a_region_without_depth_says_why_it_has_no_position() -> None:
    (region,) = regions_of(vlm_msgs.Regions(regions=[mug(position_msg="no depth")]))
    assert (region.position, region.position_msg) == (None, "no depth")


def test_a_classification_keeps_the_labels_with_their_probabilities() -> None:
    result = classification_of(Classify.Response(label="open", probabilities=[0.75, 0.25]), ["open", "closed"])
    assert (str(result), result.labels, result.probabilities) == ("open", ("open", "closed"), (0.75, 0.25))


def test_a_finding_prints_as_its_value_or_as_its_trouble() -> None:
    message = vlm_msgs.StandingAnswer(name="door", value="open", previous="closed", changed=True)
    assert str(finding_of(message)) == "open"
    message.error_code, message.error_msg = int(ErrorCode.STALE_IMAGE), "the camera has stopped"
    assert str(finding_of(message)) == "STALE_IMAGE: the camera has stopped"


def test_an_error_code_of_a_newer_node_is_still_an_error() -> None:
    with pytest.raises(VlmError, match="something new") as caught:
        raise_for(999, "something new")
    assert caught.value.code is ErrorCode.MODEL_ERROR


@given(st.floats(0.0, 1e6))
def test_seconds_keep_their_nanoseconds(seconds: float) -> None:
    message = duration(seconds)
    assert 0 <= message.nanosec < 1_000_000_000
    assert message.sec + message.nanosec * 1e-9 == pytest.approx(seconds, abs=1e-9, rel=1e-12)


def test_options_that_are_left_out_are_the_messages_own_defaults() -> None:
    assert request_options() == vlm_msgs.RequestOptions()

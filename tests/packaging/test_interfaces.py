"""What mobilevlm_msgs promises: the numbers, the fields and the defaults that clients are written against."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobilevlm_ros.runtime.errors import ErrorCode

pytestmark = pytest.mark.ros

msg = pytest.importorskip("mobilevlm_msgs.msg", reason="the interfaces are not built, or ROS 2 is not set up: . .venv/ros_env.sh")
srv = pytest.importorskip("mobilevlm_msgs.srv", reason="the interfaces are not built")
action = pytest.importorskip("mobilevlm_msgs.action", reason="the interfaces are not built")

SOURCES = Path(__file__).resolve().parents[2] / "msg"
SERVICES = ("Ask", "Classify", "DescribeRegion", "Ground")
MODEL_SERVICES = ("ListModels", "SelectModel")
STANDING_SERVICES = ("AddQuery", "ListQueries", "RemoveQuery")


def test_the_error_codes_of_messages_and_runtime_are_the_same() -> None:
    named = {name: getattr(msg.ErrorCode, name) for name in dir(msg.ErrorCode) if name.isupper()}
    numbers = {name: value for name, value in named.items() if isinstance(value, int)}
    assert numbers == {code.name: code.value for code in ErrorCode}


@pytest.mark.parametrize(
    "result",
    [
        *(msg.Answer, msg.Regions, msg.StandingAnswer, action.Chat.Result),
        *(getattr(srv, name).Response for name in (*SERVICES, *MODEL_SERVICES, *STANDING_SERVICES)),
    ],
)
def test_every_result_carries_an_error_code_and_its_sentence(result: type) -> None:
    fields = result.get_fields_and_field_types()  # type: ignore[attr-defined]
    assert fields["error_code"] == "uint16"
    assert fields["error_msg"] == "string"
    assert result().error_code == msg.ErrorCode.NONE


@pytest.mark.parametrize("request_type", [*(getattr(srv, name).Request for name in SERVICES), action.Chat.Goal])
def test_every_request_takes_the_same_options(request_type: type) -> None:
    fields = request_type.get_fields_and_field_types()  # type: ignore[attr-defined]
    assert fields["options"] == "mobilevlm_msgs/RequestOptions"


def test_default_options_leave_every_choice_to_the_node() -> None:
    options = msg.RequestOptions()
    assert options.camera == ""
    assert options.frame_policy == msg.RequestOptions.NEWEST
    assert options.priority == msg.RequestOptions.PRIORITY_NORMAL
    assert (options.max_age.sec, options.max_age.nanosec) == (0, 0)
    assert (options.timeout.sec, options.timeout.nanosec) == (0, 0)
    assert options.max_tokens == 0
    assert options.temperature == -1.0


def test_how_many_regions_come_back_is_left_to_the_expression() -> None:
    assert srv.Ground.Request().max_regions == 0


def test_results_say_what_they_are_about_and_what_they_cost() -> None:
    assert set(msg.ResultInfo.get_fields_and_field_types()) == {
        "header", "camera", "model", "confidence", "prompt_tokens", "answer_tokens", "timing",
    }  # fmt: skip
    assert set(msg.Timing.get_fields_and_field_types()) == {"queue_ms", "encode_ms", "prefill_ms", "decode_ms"}


def test_the_model_services_tell_what_answers_and_what_could() -> None:
    for name in MODEL_SERVICES:
        fields = getattr(srv, name).Response.get_fields_and_field_types()
        assert (fields["active"], fields["available"]) == ("string", "sequence<string>")
    assert srv.SelectModel.Request.get_fields_and_field_types() == {"name": "string"}


def test_a_standing_query_needs_only_a_name_and_a_text() -> None:
    query = msg.StandingQuery()
    assert (query.kind, query.publish, query.camera, query.labels) == (msg.StandingQuery.ASK, msg.StandingQuery.ON_CHANGE, "", [])
    assert (query.period.sec, query.frames, query.refresh.sec, query.min_change, query.max_tokens) == (0, 0, 0, -1.0, 0)
    assert srv.AddQuery.Request.get_fields_and_field_types() == {"query": "mobilevlm_msgs/StandingQuery"}
    assert srv.ListQueries.Response.get_fields_and_field_types()["answers"] == "sequence<mobilevlm_msgs/StandingAnswer>"


def test_a_region_has_its_box_in_pixels_and_in_shares_and_may_have_a_position() -> None:
    fields = msg.Region.get_fields_and_field_types()
    assert fields["box"] == fields["box_normalized"] == "mobilevlm_msgs/Box2D"
    assert fields["position"] == "geometry_msgs/Point"
    assert fields["position_header"] == "std_msgs/Header"
    assert msg.Region().has_position is False
    assert msg.Region().position_msg == ""
    assert srv.Ground.Request().target_frame == ""


def test_chat_feedback_streams_text() -> None:
    assert action.Chat.Feedback.get_fields_and_field_types() == {"text": "string", "tokens": "uint32"}


def test_every_interface_file_is_built() -> None:
    listed = (SOURCES / "CMakeLists.txt").read_text(encoding="utf-8")
    files = [path for kind in ("msg", "srv", "action") for path in (SOURCES / kind).iterdir()]
    assert [path.name for path in files if f'"{path.parent.name}/{path.name}"' not in listed] == []
    modules = {"msg": msg, "srv": srv, "action": action}
    assert [path.name for path in files if not hasattr(modules[path.parent.name], path.stem)] == []

"""Standing queries on their way: whose turn it is, what is asked, what is told, and who goes first."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from mobilevlm_ros.ros.admission import Entrant, Gate
from mobilevlm_ros.ros.standing_query import MOST_QUERIES, parse
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.requests import CancelToken, Priority
from tests.ros.standing_room import Room, picture, until


@pytest.fixture
def room() -> Iterator[Room]:
    made = Room()
    yield made
    made.close()


@pytest.fixture
def impatient(room: Room, monkeypatch: pytest.MonkeyPatch) -> Room:
    """Trouble is told after half a second."""
    monkeypatch.setattr("mobilevlm_ros.ros.standing_watch.TROUBLE_SECONDS", 0.5)
    return room


@pytest.fixture
def small() -> Iterator[Room]:
    """One request at once."""
    made = Room(rows=1, queue_size=1)
    yield made
    made.close()


def test_an_answer_is_told_once_and_a_still_picture_is_not_asked_about_again(room: Room) -> None:
    room.show(50)
    room.start("level; ask: how bright?; every: 0.05 s")
    until(lambda: room.standing("level").counts.unchanged >= 5)
    assert room.values("level") == ["50"]
    assert len(room.model.asked) == 1
    assert room.told[0].changed
    assert room.told[0].header.frame_id == "optical"
    assert (room.told[0].answer.question, room.told[0].answer.text, room.told[0].answer.info.model) == (
        "how bright?",
        "50",
        "fake",
    )


def test_each_change_is_told_once_with_what_was_before(room: Room) -> None:
    room.start("level; ask: how bright?; every: 0.05 s")
    for level in (50, 90, 50):
        room.show(level)
        until(lambda level=level: room.values("level")[-1:] == [str(level)])  # type: ignore[misc]
        time.sleep(0.15)
    assert room.values("level") == ["50", "90", "50"]
    assert [message.previous for message in room.told] == ["", "50", "90"]


def test_a_change_too_small_for_the_gate_waits_until_it_has_added_up(room: Room) -> None:
    room.start("level; ask: how bright?; every: 0.05 s; min_change: 10")
    room.show(50)
    until(lambda: room.values("level") == ["50"])
    for level in (53, 56, 59):
        room.show(level)
        time.sleep(0.12)
    assert len(room.model.asked) == 1
    room.show(61)
    until(lambda: room.values("level") == ["50", "61"])


def test_without_a_least_change_every_turn_is_asked_and_only_changes_are_told(room: Room) -> None:
    room.show(50)
    room.start("level; ask: how bright?; every: 0.05 s; min_change: 0")
    until(lambda: len(room.model.asked) >= 4)
    assert room.values("level") == ["50"]


def test_always_tells_each_answer(room: Room) -> None:
    room.show(50)
    room.start("level; ask: how bright?; every: 0.05 s; min_change: 0; publish: always")
    until(lambda: len(room.told) >= 3)
    assert [message.changed for message in room.told[:3]] == [True, False, False]


def test_after_a_while_it_is_asked_again_though_nothing_has_changed(room: Room) -> None:
    room.show(50)
    room.start("level; ask: how bright?; every: 0.05 s; refresh: 0.2 s")
    until(lambda: len(room.model.asked) >= 3)
    counts = room.standing("level").counts
    assert counts.unchanged >= 2


def test_another_model_is_asked_about_the_same_picture(room: Room) -> None:
    room.show(50)
    room.start("level; ask: how bright?; every: 0.05 s")
    until(lambda: room.standing("level").counts.unchanged >= 2)
    room.model.name = "another"
    until(lambda: len(room.model.asked) == 2)
    until(lambda: room.standing("level").counts.unchanged >= 5)
    assert len(room.model.asked) == 2


def test_every_nth_frame_is_looked_at(room: Room) -> None:
    room.start("level; ask: how bright?; every: 5 frames; min_change: 0")
    slot = room.slots["front"]
    for number in range(1, 32):
        slot.put(picture("front", number))
        until(lambda: room.standing("level").counts.asked * 5 >= slot.received)
    assert [frame.pixels[0, 0, 0] for frame in room.model.frames] == [1, 6, 11, 16, 21, 26, 31]


def test_a_choice_and_a_grounding_are_asked_too(room: Room) -> None:
    room.start("dark; ask: is it dark?; labels: no, yes; every: 0.05 s", "thing; ground: the thing; every: 0.05 s")
    for level in (50, 120, 125, 200):
        room.show(level)
        time.sleep(0.2)
    assert room.values("dark") == ["yes", "no"]
    assert room.values("thing") == ["absent", "present", "present"]
    boxes = [message.regions.regions[0].box.x1 for message in room.told if message.name == "thing" and message.regions.regions]
    assert boxes == pytest.approx([0.1, 0.5])


def test_what_is_asked_has_the_lowest_priority_and_draws_nothing() -> None:
    room = Room(temperature=1.0)
    room.show(50)
    room.start("level; ask: how bright?; max_tokens: 7")
    until(lambda: room.model.asked)
    settings = room.model.asked[0][1]
    room.close()
    assert (settings.priority, settings.sampling.temperature, settings.sampling.max_tokens) == (Priority.LOW, 0.0, 7)


def test_each_query_looks_at_its_own_camera(room: Room) -> None:
    room.show(50)
    room.show(90, "rear")
    room.start("first; ask: how bright?", "rear; ask: how bright?; camera: rear")
    until(lambda: room.values("first") == ["50"] and room.values("rear") == ["90"])


def test_queries_about_one_picture_share_its_pixels(room: Room) -> None:
    room.slots["front"].put(picture("front", 50))
    room.start("first; ask: how bright?", "second; ask: how bright?")
    until(lambda: len(room.told) == 2)
    assert room.model.frames[0] is room.model.frames[1]


def test_a_request_takes_a_standing_questions_place_and_that_is_asked_later(small: Room) -> None:
    small.show(50)
    small.model.hold.clear()
    small.start("level; ask: how bright?; every: 0.1 s")
    until(lambda: len(small.model.asked) == 1)
    with small.gate.enter(CancelToken()):
        until(lambda: small.standing("level").counts.busy >= 2)
        assert small.gate.inside == 1
    small.model.hold.set()
    until(lambda: small.values("level") == ["50"])


def test_a_turn_that_comes_while_the_last_one_is_on_its_way_is_lost_and_never_in_line(room: Room) -> None:
    room.show(50)
    room.model.hold.clear()
    room.start("level; ask: how bright?; every: 0.05 s; min_change: 0")
    until(lambda: room.standing("level").counts.busy >= 4)
    assert len(room.model.asked) == 1
    room.model.hold.set()
    until(lambda: len(room.model.asked) >= 2)


def test_one_of_the_models_places_stays_free_and_all_queries_get_their_turn(room: Room) -> None:
    room.show(50)
    room.model.hold.clear()
    room.start(*(f"q{number}; ask: number {number}?; every: 0.05 s; min_change: 0" for number in range(6)))
    until(lambda: room.gate.inside == room.options.rows - 1)
    time.sleep(0.2)
    assert room.gate.inside == room.options.rows - 1
    room.model.hold.set()
    until(lambda: all(standing.counts.asked >= 3 for standing in room.queries.overview()))


def test_a_camera_that_stalls_is_told_once_and_its_return_too(impatient: Room) -> None:
    room = impatient
    room.show(50)
    room.start("level; ask: how bright?; every: 0.1 s")
    until(lambda: room.values("level") == ["50"])
    room.show(None)
    until(lambda: len(room.told) == 2)
    time.sleep(0.3)
    assert (room.told[1].error_code, room.told[1].value, room.told[1].previous) == (ErrorCode.STALE_IMAGE, "", "50")
    assert "s old" in room.told[1].error_msg
    assert len(room.log) == 1
    assert room.standing("level").counts.errors >= 4
    assert room.standing("level").trouble
    room.show(50)
    until(lambda: len(room.told) == 3)
    assert (room.told[2].value, room.told[2].changed, room.told[2].error_code) == ("50", False, ErrorCode.NONE)
    assert "answered again" in room.log[1]
    assert not room.standing("level").trouble


def test_counted_frames_that_stay_away_are_trouble_too(impatient: Room) -> None:
    room = impatient
    room.show(50)
    room.start("level; ask: how bright?; every: 3 frames")
    until(lambda: room.values("level") == ["50"])
    room.show(None)
    until(lambda: len(room.told) == 2)
    assert room.told[1].error_code == ErrorCode.STALE_IMAGE


def test_trouble_that_passes_is_counted_and_not_told(room: Room) -> None:
    room.show(50)
    room.model.fail = RuntimeError("broken")
    room.start("level; ask: how bright?; every: 0.05 s")
    until(lambda: room.standing("level").counts.errors >= 2)
    room.model.fail = None
    until(lambda: room.values("level") == ["50"])
    assert not room.log


def test_nothing_is_asked_while_the_node_is_not_active_and_all_again_when_it_is(room: Room) -> None:
    room.show(50)
    room.start("level; ask: how bright?; every: 0.05 s; publish: always")
    until(lambda: len(room.told) == 1)
    room.end()
    asked = len(room.model.asked)
    time.sleep(0.2)
    assert len(room.model.asked) == asked
    assert room.slots["front"].demand.idle_seconds > 0.1
    room.gate.open(2, 2)
    room.queries.open(2)
    until(lambda: len(room.told) == 2)
    assert not room.told[1].changed


def test_going_down_ends_what_is_on_its_way(room: Room) -> None:
    room.show(50)
    room.model.hold.clear()
    room.start("level; ask: how bright?")
    until(lambda: room.model.asked)
    started = time.monotonic()
    room.end()
    assert time.monotonic() - started < 1.0
    assert room.gate.inside == 0
    assert not room.told


def test_a_camera_is_listened_to_while_a_query_looks_at_it(room: Room) -> None:
    room.start("rear; ask: how bright?; camera: rear")
    assert room.slots["rear"].demand.idle_seconds == 0.0
    room.queries.add(parse("front; ask: how bright?"))
    room.queries.remove("rear")
    time.sleep(0.05)
    assert room.slots["front"].demand.idle_seconds == 0.0
    assert room.slots["rear"].demand.idle_seconds > 0.0


def test_queries_come_and_go_while_others_are_asked(room: Room) -> None:
    room.show(50)
    room.start()
    room.queries.add(parse("level; ask: how bright?"))
    until(lambda: room.values("level") == ["50"])
    room.queries.add(parse("more; ask: and now?"))
    until(lambda: room.values("more") == ["50"])
    assert [standing.query.name for standing in room.queries.overview()] == ["level", "more"]
    assert [standing.last.value for standing in room.queries.overview()] == ["50", "50"]
    room.queries.remove("level")
    assert [standing.query.name for standing in room.queries.overview()] == ["more"]


def test_a_query_that_is_removed_while_it_is_asked_is_taken_back_and_tells_nothing(room: Room) -> None:
    room.show(50)
    room.model.hold.clear()
    room.start("level; ask: how bright?")
    until(lambda: room.model.asked)
    room.queries.remove("level")
    until(lambda: room.gate.inside == 0)
    assert not room.told


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("level; ask: how bright?", ErrorCode.BAD_REQUEST, "'level' already"),
        ("top; ask: how bright?; camera: top", ErrorCode.BAD_REQUEST, "there are: front, rear"),
    ],
)
def test_a_query_that_cannot_be_kept_is_refused(room: Room, text: str, code: ErrorCode, words: str) -> None:
    room.start("level; ask: how bright?")
    with pytest.raises(VlmError, match=words) as caught:
        room.queries.add(parse(text))
    assert caught.value.code is code
    assert len(room.queries.overview()) == 1


def test_their_number_is_bounded(room: Room) -> None:
    room.start(*(f"q{number}; ask: what?" for number in range(MOST_QUERIES)))
    with pytest.raises(VlmError, match=str(MOST_QUERIES)) as caught:
        room.queries.add(parse("more; ask: what?"))
    assert caught.value.code is ErrorCode.BUSY


def test_none_are_kept_before_the_node_is_configured_and_after_it_is_cleaned_up(room: Room) -> None:
    for forget in (lambda: None, room.queries.forget):
        forget()
        with pytest.raises(VlmError) as caught:
            room.queries.add(parse("level; ask: how bright?"))
        assert caught.value.code is ErrorCode.NOT_ACTIVE
        room.queries.keep([parse("level; ask: how bright?")])
    assert len(room.queries.overview()) == 1


def test_what_is_not_there_cannot_be_removed(room: Room) -> None:
    with pytest.raises(VlmError, match="there are: none"):
        room.queries.remove("level")


def test_more_requests_than_the_model_answers_at_once_send_the_youngest_standing_one_away() -> None:
    gate = Gate()
    gate.open(8, 4)
    standing = [CancelToken() for _ in range(3)]
    with ExitStack() as inside:
        for token in standing:
            inside.enter_context(gate.enter(token, Entrant.STANDING))
        with pytest.raises(VlmError), gate.enter(CancelToken(), Entrant.STANDING):
            pass
        inside.enter_context(gate.enter(CancelToken()))
        assert not any(token.cancelled for token in standing)
        inside.enter_context(gate.enter(CancelToken()))
        assert [token.cancelled for token in standing] == [False, False, True]
        for _ in range(6):
            inside.enter_context(gate.enter(CancelToken()))
        assert all(token.cancelled for token in standing)
        with pytest.raises(VlmError) as caught, gate.enter(CancelToken()):
            pass
        assert caught.value.code is ErrorCode.BUSY

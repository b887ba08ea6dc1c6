"""LLaVA-format data: what is taken, and the one line about what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.finetune.dataset import Sample, check_pictures, picture_names, read_samples
from mobilevlm_ros.finetune.errors import FinetuneError
from mobilevlm_ros.runtime.prompt import Turn
from tests.finetune.helpers import item, write_data, write_pictures

words = st.text(min_size=1, max_size=20).filter(lambda text: text.strip() and "<image>" not in text)


def read_one(tmp_path: Path, record: Any) -> Sample:
    (sample,) = read_samples(write_data(tmp_path, [record]))
    return sample


def test_a_conversation_about_a_picture_keeps_its_turns(tmp_path: Path) -> None:
    sample = read_one(tmp_path, item([("What?", "A ball."), ("Where?", "There.")], "a/b.png", id="7"))
    assert sample == Sample("7", "a/b.png", (Turn("What?", "A ball."), Turn("Where?", "There.")))


def test_an_item_without_a_picture_is_text_alone(tmp_path: Path) -> None:
    assert read_one(tmp_path, item([("What?", "Nothing.")])).image is None
    assert read_one(tmp_path, item([("What?", "Nothing.")], image=None)).image is None


@pytest.mark.parametrize(
    "shown", ["<image>\nWhat?", "What?\n<image>", "<image>What?", "  <image> \n What? ", "<image><image>What?"]
)
def test_the_picture_goes_before_the_first_question_wherever_it_was_marked(tmp_path: Path, shown: str) -> None:
    record = item([("", "A ball.")], "a.png")
    record["conversations"][0]["value"] = shown
    assert read_one(tmp_path, record).turns == (Turn("What?", "A ball."),)


def test_a_first_message_of_the_model_is_skipped(tmp_path: Path) -> None:
    record = item([("What?", "A ball.")])
    record["conversations"].insert(0, {"from": "gpt", "value": "Hello!"})
    assert read_one(tmp_path, record).turns == (Turn("What?", "A ball."),)


@given(turns=st.lists(st.tuples(words, words), min_size=1, max_size=4))
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, turns: list[tuple[str, str]]) -> None:
    sample = read_one(tmp_path_factory.mktemp("data"), item(turns))
    assert sample.turns == tuple(Turn(question, answer.strip()) for question, answer in turns)


def changed(place: int, **change: Any) -> dict[str, Any]:
    record = item([("What?", "A ball."), ("Where?", "There.")], "a.png")
    record["conversations"][place].update(change)
    return record


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("text", "not a JSON object"),
        ({"id": "7"}, "'conversations' is no list"),
        (item([], id="7"), "no messages"),
        (item([("What?", "A ball.")], image=3), "'image' is 3"),
        ({"conversations": ["hello"]}, "a message is not an object"),
        (changed(1, value=None), "a message is not an object"),
        (changed(2, **{"from": "gpt"}), "message 2 is from 'gpt', wanted 'human'"),
        (changed(1, **{"from": "system"}), "message 1 is from 'system', wanted 'gpt'"),
        (changed(0, value="What?"), "first question lacks <image>"),
        (changed(2, value="And <image>?"), "the picture belongs to the first question"),
        (changed(1, value="See <image>"), "the picture belongs to the first question"),
        (item([("What is <image>?", "That.")]), "has no picture"),
        (changed(0, value="<image>"), "an empty question"),
        (changed(3, value=" \n"), "an empty answer"),
        ({"conversations": [{"from": "human", "value": "What?"}]}, "the last question has no answer"),
    ],
)
def test_a_wrong_item_is_told_by_file_and_number(tmp_path: Path, record: Any, message: str) -> None:
    with pytest.raises(FinetuneError) as caught:
        read_samples(write_data(tmp_path, [item([("What?", "A ball.")]), record]))
    assert message in str(caught.value)
    assert f"{tmp_path / 'data.json'}: item 1" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "message"), [("{", "not readable as JSON"), ("{}", "wanted a list"), ("[]", "wanted a list")])
def test_a_file_of_another_kind_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "data.json").write_text(text)
    with pytest.raises(FinetuneError, match=message):
        read_samples(tmp_path / "data.json")


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError, match="No such file"):
        read_samples(tmp_path / "data.json")


def test_missing_pictures_are_counted_and_some_are_named(tmp_path: Path) -> None:
    (there,) = write_pictures(tmp_path, 1)
    samples = [Sample("x", name, (Turn("a", "b"),)) for name in (there, *(f"gone{n}.png" for n in range(7)), "gone0.png")]
    with pytest.raises(FinetuneError, match=r"missing: gone0.png, gone1.png, gone2.png, gone3.png, gone4.png and 2 more"):
        check_pictures(samples, tmp_path)
    seen: list[None] = []
    check_pictures(samples[:1] * 2, tmp_path, lambda: seen.append(None))
    assert len(seen) == 1


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(FinetuneError, match="not readable as a picture: a.png"):
        check_pictures([Sample("x", "a.png", (Turn("a", "b"),))], tmp_path)


def test_every_picture_is_named_once() -> None:
    samples = [Sample("x", name, ()) for name in ("b", "a", None, "b")]
    assert picture_names(samples) == ["b", "a"]

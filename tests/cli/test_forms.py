"""Answers that are kept to a form: JSON of a schema, a regular expression."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("rosbags", reason="the picture is taken from a bag")

from mobilevlm_ros.cli import main
from tests.recordings import bag_pictures

SCHEMA = {
    "type": "object",
    "properties": {"color": {"enum": ["red", "orange", "blue"]}, "count": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["color", "count"],
    "additionalProperties": False,
}


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "first.png"
    Image.fromarray(bag_pictures()[0]).save(path)
    return str(path)


def write(tmp_path: Path, schema: object) -> str:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(schema))
    return str(path)


def test_an_answer_is_json_of_the_schema_and_its_value_stands_among_the_keys(
    picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--json-schema", write(tmp_path, SCHEMA), "--temperature", "0", "--json"]
    assert main(["ask", picture, "What color is the ball?", *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["value"] == json.loads(found["text"])
    assert set(found["value"]) == {"color", "count"}
    assert found["value"]["color"] in ("red", "orange", "blue")


def test_without_json_the_text_is_the_json(picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", picture, "What is it?", "--json-schema", write(tmp_path, SCHEMA)]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"color", "count"}


def test_json_that_was_cut_off_is_an_error(picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", picture, "What?", "--json-schema", write(tmp_path, SCHEMA), "--max-tokens", "3"]) == 1
    assert "cut off after 3 tokens, before its JSON was whole" in capsys.readouterr().err


def test_an_answer_matches_the_expression_as_a_whole(picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    for pattern in ("[0-9]{2}", "red|orange|blue", "(yes|no), [a-z]+"):
        assert main(["ask", picture, "What color is the ball?", "--regex", pattern, "--temperature", "0"]) == 0
        assert re.fullmatch(pattern, capsys.readouterr().out.strip())


def test_a_form_leaves_the_choice_to_the_model(picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["ask", picture, "What color is the ball?", "--regex", "Red|Orange|Blue", "--temperature", "0"])
    assert capsys.readouterr().out == "Orange\n"


@pytest.mark.parametrize(
    ("option", "content", "said"),
    [
        ("--json-schema", '{"type": "nonsense"}', "JSON schema cannot be used"),
        ("--json-schema", "{", "not JSON"),
        ("--json-schema", None, "schema.json: No such file"),
        ("--regex", "(", "regular expression"),
    ],
)
def test_a_form_that_cannot_be_used_is_one_line(
    option: str, content: str | None, said: str, picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "schema.json"
    if content is not None and option == "--json-schema":
        path.write_text(content)
    value = str(path) if option == "--json-schema" else str(content)
    assert main(["ask", picture, "What?", option, value]) == 1
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1

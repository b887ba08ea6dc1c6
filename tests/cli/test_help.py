"""What a newcomer finds from `mobilevlm --help`."""

from __future__ import annotations

import re

import pytest

from mobilevlm_ros.cli import main
from tests.environments import run_without

COMMANDS = [
    *("models", "fetch", "convert", "build", "ask", "ground", "classify", "describe", "chat"),
    *("eval", "finetune", "bench", "doctor"),
]


def help_text(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as done:
        main([*arguments, "--help"])
    assert done.value.code == 0
    return capsys.readouterr().out


def test_all_commands_are_listed_in_the_order_in_which_they_are_needed(capsys: pytest.CaptureFixture[str]) -> None:
    listed = re.findall(r"^    (\w+) +\w", help_text([], capsys), flags=re.MULTILINE)
    assert listed == COMMANDS


def test_the_exit_codes_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = [line for line in help_text([], capsys).splitlines() if line.startswith("exit codes:")]
    assert re.findall(r"\b(\d+)\b", line) == ["0", "1", "2", "130"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_is_for_and_shows_examples_of_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_text([command], capsys)
    examples = text.split("examples:\n")[1]
    assert f"  mobilevlm {command}" in examples or f"| mobilevlm {command}" in examples
    assert f"usage: mobilevlm {command}" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_speaks_json(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--json" in help_text([command], capsys)


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["ask"], ["ask", "a.png", "What?", "--every", "soon"]])
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(arguments)
    assert done.value.code == 2
    assert "usage: mobilevlm" in capsys.readouterr().err


def test_help_and_one_line_errors_work_where_no_library_is_installed(tmp_path_factory: pytest.TempPathFactory) -> None:
    for command in COMMANDS:
        done = run_without(tmp_path_factory.mktemp("nothing"), ["*"], [command, "--help"])
        assert (done.returncode, done.stderr) == (0, "")
    done = run_without(tmp_path_factory.mktemp("nothing"), ["*"], ["ask", "a.png", "What?"])
    assert done.returncode == 1
    assert done.stderr == "mobilevlm: this needs numpy, which is missing; 'mobilevlm doctor' says how to get it\n"

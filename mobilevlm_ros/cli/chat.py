"""`mobilevlm chat`: a conversation about a picture, in the terminal."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mobilevlm_ros.cli.options import Commands, add_command, add_model_options, add_sampling_options, open_engine, sampling_of
from mobilevlm_ros.cli.printing import answer_as_json, print_json, print_piece

if TYPE_CHECKING:
    from mobilevlm_ros.runtime.prompt import Turn

EXAMPLES = """  mobilevlm chat kitchen.jpg
  printf 'What is it?\\nWhat color is it?\\n' | mobilevlm chat kitchen.jpg
  mobilevlm chat kitchen.jpg --json < questions.txt | jq -r .text
"""


def add_chat_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command to the `mobilevlm` parser."""
    parser = add_command(commands, "chat", "talk about a picture, a line a turn; an empty line ends", EXAMPLES, run)
    parser.add_argument("image", type=Path, help="picture file")
    add_model_options(parser)
    add_sampling_options(parser)


def run(args: argparse.Namespace) -> int:
    """Answer each line of stdin."""
    from mobilevlm_ros.pictures.files import read_picture
    from mobilevlm_ros.pictures.source import Sample
    from mobilevlm_ros.runtime.prompt import Turn
    from mobilevlm_ros.tasks import Settings, chat

    settings = Settings(sampling_of(args))
    sample = Sample(str(args.image), None, None, read_picture(args.image))
    history: list[Turn] = []
    start = time.perf_counter()
    with open_engine(args) as engine:
        load_ms = (time.perf_counter() - start) * 1e3
        while message := _next_message():
            answer = chat(engine, sample.frame, history, message, settings, None if args.json else print_piece)
            if args.json:
                print_json(answer, sample, engine.manifest.name, load_ms, **answer_as_json(answer))
            else:
                print(flush=True)
            history.append(Turn(message, answer.text))
    return 0


def _next_message() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().strip()
    if not sys.stdout.isatty():
        print("> ", end="", file=sys.stderr, flush=True)  # what goes on through the pipe are answers alone
        return sys.stdin.readline().strip()
    try:
        return input("> ").strip()
    except EOFError:
        return ""

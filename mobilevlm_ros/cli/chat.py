"""`mobilevlm chat`: a conversation about a picture, in the terminal."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from mobilevlm_ros.cli.options import Commands, add_command, add_model_options, add_sampling_options, open_engine, sampling_of
from mobilevlm_ros.cli.printing import print_json
from mobilevlm_ros.pictures import read_picture
from mobilevlm_ros.runtime.prompt import Turn
from mobilevlm_ros.tasks import Settings, chat

EXAMPLES = """  mobilevlm chat kitchen.jpg
  printf 'What is it?\\nWhat color is it?\\n' | mobilevlm chat kitchen.jpg
"""


def add_chat_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command to the `mobilevlm` parser."""
    parser = add_command(commands, "chat", "talk about a picture, a line a turn; an empty line ends", EXAMPLES, run)
    parser.add_argument("image", type=Path, help="picture file")
    add_model_options(parser)
    add_sampling_options(parser)


def run(args: argparse.Namespace) -> int:
    """Answer each line of stdin."""
    settings = Settings(sampling_of(args))
    frame = read_picture(args.image)
    history: list[Turn] = []
    start = time.perf_counter()
    with open_engine(args) as engine:
        load_ms = (time.perf_counter() - start) * 1e3
        while message := _next_message():
            on_text = None if args.json else _print_piece
            answer = chat(engine, frame, history, message, settings, on_text)
            if args.json:
                print_json(answer, args.image, engine.manifest.name, load_ms, text=answer.text, token_ids=list(answer.token_ids))
            else:
                print()
            history.append(Turn(message, answer.text))
    return 0


def _next_message() -> str:
    if sys.stdin.isatty():
        try:
            return input("> ").strip()
        except EOFError:
            return ""
    return sys.stdin.readline().strip()


def _print_piece(piece: str) -> None:
    print(piece, end="", flush=True)

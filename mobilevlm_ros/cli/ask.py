"""`mobilevlm ask`: a question about a picture, or about each picture in a folder."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from mobilevlm_ros.cli.options import Commands, add_command, add_model_options, add_sampling_options, open_engine, sampling_of
from mobilevlm_ros.cli.printing import print_json
from mobilevlm_ros.pictures import picture_files, read_picture
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.tasks import Answer, Settings, ask

EXAMPLES = """  mobilevlm ask kitchen.jpg "What is on the table?"
  mobilevlm ask kitchen.jpg "Is the door open?" --json | jq -r .text
  mobilevlm ask pictures/ "How many people are there?" --temperature 0
"""


def add_ask_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command to the `mobilevlm` parser."""
    parser = add_command(commands, "ask", "answer a question about a picture", EXAMPLES, run)
    parser.add_argument("image", type=Path, help="picture file (JPEG, PNG, ...), or a folder of pictures")
    parser.add_argument("question")
    add_model_options(parser)
    add_sampling_options(parser)


def run(args: argparse.Namespace) -> int:
    """Answer and print; raises VlmError if an answer ended early."""
    settings = Settings(sampling_of(args))
    files = picture_files(args.image)
    frame = read_picture(files[0])  # a mistake in the path shows before the model is loaded
    start = time.perf_counter()
    with open_engine(args) as engine:
        load_ms = (time.perf_counter() - start) * 1e3
        for number, path in enumerate(files):
            frame = frame if number == 0 else read_picture(path)
            if args.json:
                answer = ask(engine, frame, args.question, settings)
                print_json(answer, path, engine.manifest.name, load_ms, text=answer.text, token_ids=list(answer.token_ids))
            else:
                print(f"{path.name}: " if len(files) > 1 else "", end="", flush=True)
                answer = ask(engine, frame, args.question, settings, _print_piece)
                print()
            _raise_if_ended_early(answer)
    return 0


def _print_piece(piece: str) -> None:
    print(piece, end="", flush=True)


def _raise_if_ended_early(answer: Answer) -> None:
    if answer.error is not ErrorCode.NONE:
        raise VlmError(answer.error, answer.error_msg)

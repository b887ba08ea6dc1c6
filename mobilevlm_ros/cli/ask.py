"""`mobilevlm ask`: questions about a picture, or about each picture of a folder, a video or a bag."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilevlm_ros.cli.each import Drawing, Session, over_pictures
from mobilevlm_ros.cli.options import (
    SOURCES,
    Commands,
    add_command,
    add_model_options,
    add_sampling_options,
    add_source_options,
    sampling_of,
)
from mobilevlm_ros.cli.printing import answer_as_json, print_json, print_piece
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError

if TYPE_CHECKING:
    from mobilevlm_ros.pictures.source import Sample
    from mobilevlm_ros.runtime.constraint import Constraint, ConstraintCompiler
    from mobilevlm_ros.tasks import Answer

    Form = Callable[[ConstraintCompiler], Constraint | None]

STDIN = "-"
EXAMPLES = """  mobilevlm ask kitchen.jpg "What is on the table?"
  mobilevlm ask kitchen.jpg "Is the door open?" --json | jq -r .text
  cat kitchen.jpg | mobilevlm ask - "How many cups are there?" --regex "[0-9]+"
  mobilevlm ask pictures/ --questions questions.txt --json > answers.jsonl
  mobilevlm ask drive.mp4 "Is somebody crossing?" --every 2 --annotated answers.mp4
  mobilevlm ask run.mcap "What is in front of the robot?" --start 5 --end 30
  mobilevlm ask shelf.png "What is it?" --json-schema thing.json
"""


class _QuestionsInstead(argparse.Action):
    """Takes a file of questions, so that the question on the command line is no longer asked for."""

    question: argparse.Action

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: Any = None) -> None:
        setattr(namespace, self.dest, values)
        self.question.required = False


def add_ask_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command to the `mobilevlm` parser."""
    parser = add_command(commands, "ask", "answer questions about a picture", EXAMPLES, run)
    parser.add_argument("image", help=SOURCES)
    question = parser.add_argument("question", help="the question; left out with --questions")
    instead = parser.add_argument(
        "--questions",
        metavar="FILE",
        action=_QuestionsInstead,
        help="ask each line of a file ('-': of stdin) about each picture instead; the picture is taken in once",
    )
    assert isinstance(instead, _QuestionsInstead)
    instead.question = question
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json-schema", type=Path, metavar="FILE", help="answers are JSON texts of this schema, whatever happens")
    form.add_argument("--regex", metavar="PATTERN", help="answers match this regular expression as a whole")
    add_model_options(parser)
    add_sampling_options(parser)
    add_source_options(parser)


def run(args: argparse.Namespace) -> int:
    """Answer and print; raises VlmError if an answer ended early."""
    from mobilevlm_ros.tasks import Settings, ask

    settings = Settings(sampling_of(args))
    questions = _questions(args)
    form = _form(args)

    def work(session: Session, sample: Sample) -> Drawing:
        asked = []
        for question in questions:
            before = session.prefix(sample) + (f"{question} " if len(questions) > 1 else "")
            if not args.json:
                print_piece(before)
            on_text = None if args.json else print_piece
            answer = ask(session.engine, sample.frame, question, settings, on_text, form(session.engine.constraints))
            _print(answer, args, session, sample)
            asked.append(f"{question} {answer.text}")
        return Drawing(caption="\n".join(asked))

    return over_pictures(args, work)


def _print(answer: Answer, args: argparse.Namespace, session: Session, sample: Sample) -> None:
    if args.json:
        value = {"value": _value(answer)} if args.json_schema else {}
        print_json(answer, sample, session.engine.manifest.name, session.load_ms, **answer_as_json(answer), **value)
    else:
        print(flush=True)
    if answer.error is not ErrorCode.NONE:
        raise VlmError(answer.error, answer.error_msg)
    if args.json_schema and _value(answer) is None:
        raise VlmError(
            ErrorCode.MODEL_ERROR, f"the answer was cut off after {answer.answer_tokens} tokens, before its JSON was whole"
        )


def _value(answer: Answer) -> object:
    """The JSON text's value; None for one that was cut off."""
    try:
        return json.loads(answer.text)
    except ValueError:
        return None


def _questions(args: argparse.Namespace) -> Sequence[str]:
    if args.questions is None:
        return [args.question]
    if args.question is not None:
        raise VlmError(ErrorCode.BAD_REQUEST, "give a question or --questions, not both")
    if args.questions == STDIN and args.image == STDIN:
        raise VlmError(ErrorCode.BAD_REQUEST, "stdin cannot be both the picture and the questions")
    try:
        text = sys.stdin.read() if args.questions == STDIN else Path(args.questions).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise VlmError(ErrorCode.BAD_REQUEST, f"{args.questions}: {getattr(error, 'strerror', None) or error}") from error
    questions = [line.strip() for line in text.splitlines() if line.strip()]
    if not questions:
        raise VlmError(ErrorCode.BAD_REQUEST, f"{args.questions}: no questions in it")
    return questions


def _form(args: argparse.Namespace) -> Form:
    """Makes the form that each answer must have."""
    if args.regex is not None:
        return lambda constraints: constraints.regex(f" ?(?:{args.regex})")  # the model's words begin with a space
    if args.json_schema is None:
        return lambda constraints: None
    try:
        schema = json.loads(args.json_schema.read_text(encoding="utf-8"))
    except OSError as error:
        raise VlmError(ErrorCode.BAD_REQUEST, f"{args.json_schema}: {error.strerror}") from error
    except ValueError as error:
        raise VlmError(ErrorCode.BAD_REQUEST, f"{args.json_schema}: not JSON: {error}") from error
    return lambda constraints: constraints.json_schema(schema)

"""Reads the command line and runs one of the commands; each stands in a module of its own."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from mobilevlm_ros import __version__
from mobilevlm_ros.cli.ask import add_ask_parser
from mobilevlm_ros.cli.chat import add_chat_parser
from mobilevlm_ros.cli.classify import add_classify_parser
from mobilevlm_ros.cli.describe import add_describe_parser
from mobilevlm_ros.cli.eval import add_eval_parser
from mobilevlm_ros.cli.ground import add_ground_parser
from mobilevlm_ros.export.command import add_convert_parser
from mobilevlm_ros.runtime.errors import VlmError

ADD_PARSERS = (
    add_ask_parser,
    add_chat_parser,
    add_ground_parser,
    add_describe_parser,
    add_classify_parser,
    add_convert_parser,
    add_eval_parser,
)
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0, or 1 after one line on stderr that says what is wrong; bad usage exits with 2."""
    parser = argparse.ArgumentParser(
        prog="mobilevlm",
        description="Ask MobileVLM about pictures, and make the model packages that it runs from.",
        epilog="'mobilevlm COMMAND --help' shows a command's options and examples.",
    )
    parser.add_argument("--version", action="version", version=f"mobilevlm {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add_parser in ADD_PARSERS:
        add_parser(commands)
    args = parser.parse_args(argv)
    try:
        return int(args.run(args))
    except VlmError as error:
        print(f"mobilevlm: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("mobilevlm: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has seen enough; what is still buffered would raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0

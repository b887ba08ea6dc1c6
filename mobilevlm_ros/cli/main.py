"""Reads the command line and runs one of the commands; each stands in a module of its own, imported when it runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mobilevlm_ros import __version__
from mobilevlm_ros.cli.ask import add_ask_parser
from mobilevlm_ros.cli.eval import add_eval_parser
from mobilevlm_ros.export.command import add_convert_parser
from mobilevlm_ros.runtime.errors import VlmError

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0, or 1 after one line on stderr that says what is wrong; bad usage exits with 2."""
    parser = argparse.ArgumentParser(
        prog="mobilevlm", description="Ask MobileVLM about pictures, and make the model packages that it runs from."
    )
    parser.add_argument("--version", action="version", version=f"mobilevlm {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_ask_parser(commands)
    add_convert_parser(commands)
    add_eval_parser(commands)
    args = parser.parse_args(argv)
    try:
        return int(args.run(args))
    except VlmError as error:
        print(f"mobilevlm: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("mobilevlm: interrupted", file=sys.stderr)
        return INTERRUPTED

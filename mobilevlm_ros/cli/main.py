"""Reads the command line and runs one of the commands; each stands in a module of its own."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from mobilevlm_ros import __version__
from mobilevlm_ros.cli.ask import add_ask_parser
from mobilevlm_ros.cli.bench import add_bench_parser
from mobilevlm_ros.cli.build import add_build_parser
from mobilevlm_ros.cli.chat import add_chat_parser
from mobilevlm_ros.cli.classify import add_classify_parser
from mobilevlm_ros.cli.describe import add_describe_parser
from mobilevlm_ros.cli.doctor import add_doctor_parser
from mobilevlm_ros.cli.eval import add_eval_parser
from mobilevlm_ros.cli.fetch import add_fetch_parser
from mobilevlm_ros.cli.ground import add_ground_parser
from mobilevlm_ros.cli.models import add_models_parser
from mobilevlm_ros.export.command import add_convert_parser
from mobilevlm_ros.finetune.command import add_finetune_parser
from mobilevlm_ros.runtime.errors import VlmError

# In the order of a newcomer's needs: get a model, use it, measure and better it, mend the machine.
ADD_PARSERS = (
    add_models_parser,
    add_fetch_parser,
    add_convert_parser,
    add_build_parser,
    add_ask_parser,
    add_ground_parser,
    add_classify_parser,
    add_describe_parser,
    add_chat_parser,
    add_eval_parser,
    add_finetune_parser,
    add_bench_parser,
    add_doctor_parser,
)
INTERRUPTED = 130
EPILOG = """'mobilevlm COMMAND --help' shows a command's options and examples. To begin:
  mobilevlm doctor
  mobilevlm ask kitchen.jpg "What is on the table?"
  cat kitchen.jpg | mobilevlm ask - "How many cups are there?" --json | jq -r .text

exit codes: 0 done, 1 failed or nothing found (one line on stderr says why), 2 wrong usage, 130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0, or 1 after one line on stderr that says what is wrong; bad usage exits with 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Arguments may hold bytes that are no text; an escape is better than a failure, and good JSON too.
        sys.stdout.reconfigure(errors="backslashreplace")
    parser = argparse.ArgumentParser(
        prog="mobilevlm",
        description="Ask MobileVLM about pictures, and make the model packages that it runs from.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
    except ModuleNotFoundError as error:
        if (error.name or "mobilevlm_ros").startswith("mobilevlm_ros"):
            raise  # a defect, not a machine without a library
        print(f"mobilevlm: this needs {error.name}, which is missing; 'mobilevlm doctor' says how to get it", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("mobilevlm: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has seen enough; what is still buffered would raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0

"""Options that several commands share, and what they stand for."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mobilevlm_ros.models import shipped_package
from mobilevlm_ros.runtime.sampling import SamplingParams

if TYPE_CHECKING:
    from mobilevlm_ros.runtime.engine import Engine

Commands = argparse._SubParsersAction  # what ArgumentParser.add_subparsers returns; it has no public name
Run = Callable[[argparse.Namespace], int]


def add_command(
    commands: Commands[argparse.ArgumentParser], name: str, help_line: str, examples: str, run: Run
) -> argparse.ArgumentParser:
    """Add a command that `run` carries out, with examples below its help."""
    parser = commands.add_parser(
        name,
        help=help_line,
        description=f"{help_line[0].upper()}{help_line[1:]}.",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Which model, and how it is run."""
    parser.add_argument("--model", type=Path, metavar="PACKAGE", help="model package folder (default: the nano model)")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="processor threads (default: one per core)")
    parser.add_argument("--json", action="store_true", help="print one JSON object a picture")


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """How an answer's words are chosen."""
    parser.add_argument("--temperature", type=float, default=0.2, metavar="T", help="0 is greedy (default: 0.2)")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P", help="probability mass to sample from (default: 1)")
    parser.add_argument("--seed", type=int, help="makes sampling repeatable")
    parser.add_argument("--max-tokens", type=int, default=512, metavar="N", help="longest answer (default: 512)")


def sampling_of(args: argparse.Namespace) -> SamplingParams:
    """The sampling that the options name; raises VlmError(BAD_REQUEST) for one out of its range."""
    return SamplingParams(args.max_tokens, args.temperature, args.top_p, args.seed)


def open_engine(args: argparse.Namespace, rows: int = 1) -> Engine:
    """Load the model that the options name; raises PackageError."""
    from mobilevlm_ros.runtime.engine import Engine, EngineConfig

    return Engine.open(args.model or shipped_package(), EngineConfig(threads=args.threads, rows=rows))

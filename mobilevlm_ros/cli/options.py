"""Options that several commands share, and what they stand for. The libraries behind them are imported when a command runs."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mobilevlm_ros.models import shipped_package

if TYPE_CHECKING:
    from mobilevlm_ros.pictures.sampling import Sampling
    from mobilevlm_ros.runtime.engine import Engine, EngineConfig
    from mobilevlm_ros.runtime.sampling import SamplingParams

BACKENDS = ("auto", "cpu", "tensorrt")  # runtime.backends.BackendChoice, which is imported only when a command runs
Commands = argparse._SubParsersAction  # what ArgumentParser.add_subparsers returns; it has no public name
Run = Callable[[argparse.Namespace], int]

SOURCES = "picture file, '-' (a picture on stdin), folder of pictures, video, or recorded bag (folder, .mcap, .db3)"


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
    parser.add_argument("--json", action="store_true", help="print one JSON object a result, each on a line")
    add_backend_options(parser)


def add_backend_options(parser: argparse.ArgumentParser) -> None:
    """What runs the model; `running_on` reads them."""
    group = parser.add_argument_group("backend")
    group.add_argument(
        "--backend",
        choices=BACKENDS,
        default=BACKENDS[0],
        help="what runs the model; auto: TensorRT where the machine and the package have it, else the processor (default: auto)",
    )
    group.add_argument("--backend-fallback", action="store_true", help="let the processor run it where TensorRT fails")
    add_engine_cache_option(group)


def add_engine_cache_option(parser: argparse._ActionsContainer) -> None:
    """Where TensorRT's engines are kept."""
    parser.add_argument(
        "--engine-cache",
        default="",
        metavar="FOLDER",
        help="where TensorRT's engines are kept (default: beside the package, or in the user's cache where that is read-only)",
    )


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """How an answer's words are chosen."""
    parser.add_argument("--temperature", type=float, default=0.2, metavar="T", help="0 is greedy (default: 0.2)")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P", help="probability mass to sample from (default: 1)")
    parser.add_argument("--seed", type=int, help="makes sampling repeatable")
    parser.add_argument("--max-tokens", type=int, default=512, metavar="N", help="longest answer (default: 512)")


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Which pictures of a video, a bag or a folder, and where they are drawn."""
    group = parser.add_argument_group("videos, bags and folders")
    dense = group.add_mutually_exclusive_group()
    dense.add_argument("--every", type=float, default=1.0, metavar="SECONDS", help="time between two pictures (default: 1)")
    dense.add_argument("--every-frame", type=int, metavar="N", help="take each N-th picture instead")
    group.add_argument("--start", type=float, default=0.0, metavar="SECONDS", help="begin there (default: 0)")
    group.add_argument("--end", type=float, default=math.inf, metavar="SECONDS", help="end before that time")
    group.add_argument("--limit", type=int, metavar="N", help="at most so many pictures")
    group.add_argument("--topic", help="image topic of a bag that has several")
    parser.add_argument(
        "--annotated",
        type=Path,
        metavar="PATH",
        help="draw the results: into a picture file; for several pictures into a folder; for a video or bag also into an .mp4",
    )


def sampling_of(args: argparse.Namespace) -> SamplingParams:
    """How words are chosen, as the options say; raises VlmError(BAD_REQUEST) for one out of its range."""
    from mobilevlm_ros.runtime.sampling import SamplingParams

    return SamplingParams(args.max_tokens, args.temperature, args.top_p, args.seed)


def pictures_of(args: argparse.Namespace) -> Sampling:
    """Which pictures are looked at, as the options say; raises VlmError(BAD_REQUEST) for one out of its range."""
    from mobilevlm_ros.pictures.sampling import EveryFrame, EverySeconds, Sampling

    every = EverySeconds(args.every) if args.every_frame is None else EveryFrame(args.every_frame)
    return Sampling(every, args.start, args.end, args.limit)


def open_engine(args: argparse.Namespace, rows: int = 1) -> Engine:
    """Load the model that the options name; raises PackageError."""
    from mobilevlm_ros.runtime.engine import Engine, EngineConfig

    config = running_on(args, EngineConfig(threads=args.threads, rows=rows))
    return Engine.open(args.model or shipped_package(), config, report)


def running_on(args: argparse.Namespace, config: EngineConfig) -> EngineConfig:
    """`config` with the backend that the options name."""
    from mobilevlm_ros.runtime.backends import BackendChoice

    backend = BackendChoice(args.backend)
    return replace(config, backend=backend, backend_fallback=args.backend_fallback, engine_cache=args.engine_cache)


def report(line: str) -> None:
    """Tells on stderr what takes long while a model is loaded."""
    print(f"mobilevlm: {line}", file=sys.stderr)

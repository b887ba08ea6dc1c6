"""What `mobilevlm doctor --jetson` takes and runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mobilevlm_ros.cli.options import report

if TYPE_CHECKING:
    from mobilevlm_ros.doctor.check import Group

JETPACKS = ("6", "7")  # doctor.simulated.jetson.Pretended, which is imported only when the command runs


def add_jetson_options(parser: argparse.ArgumentParser) -> None:
    """What to look at on a Jetson."""
    group = parser.add_argument_group("Jetson")
    group.add_argument("--jetson", action="store_true", help="build engines with TensorRT, compare their answers and time them")
    group.add_argument("--quick", action="store_true", help="leave out the full size, which tells how fast the board is")
    group.add_argument("--model", type=Path, metavar="PACKAGE", help="look at this package instead of made-up weights")
    group.add_argument(
        "--work", type=Path, metavar="FOLDER", help="where weights and engines go meanwhile (default: the user's cache)"
    )
    group.add_argument(
        "--simulate",
        nargs="?",
        const=JETPACKS[-1],
        choices=JETPACKS,
        metavar="JETPACK",
        help="on any machine: pretend a Jetson of JetPack 6 or 7 (default: 7), whose libraries compute on the processor",
    )


def check_options(args: argparse.Namespace) -> None:
    """Raises VlmError(BAD_REQUEST) for options that do not go together."""
    from mobilevlm_ros.runtime.errors import ErrorCode, VlmError

    if args.jetson and args.graph:
        raise VlmError(ErrorCode.BAD_REQUEST, "--jetson and --graph look at different things: name one of them")
    own = {"--quick": args.quick, "--model": args.model, "--work": args.work, "--simulate": args.simulate}
    given = [option for option, value in own.items() if value]
    if given and not args.jetson:
        raise VlmError(ErrorCode.BAD_REQUEST, f"{given[0]} is for --jetson, which is not there")


def jetson(args: argparse.Namespace) -> Iterator[Group]:
    """The checks of a Jetson, or of a pretended one, whose every line says so; raises VlmError where nothing can be written."""
    from tqdm import tqdm

    from mobilevlm_ros.runtime.errors import ErrorCode, VlmError

    work = args.work or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mobilevlm_ros"
    with tqdm(bar_format="{desc}", file=sys.stderr, disable=None, leave=False) as line:
        try:
            work.mkdir(parents=True, exist_ok=True)
            for group in _examined(args, work, line.set_description_str if sys.stderr.isatty() else report):
                line.clear()
                yield group
        except OSError as error:
            raise VlmError(
                ErrorCode.BAD_REQUEST, f"{work}: {error.strerror or error}; name another folder with --work"
            ) from error


def _examined(args: argparse.Namespace, work: Path, told: Callable[[str], None]) -> Iterator[Group]:
    from mobilevlm_ros.doctor.jetson import Wish, examine_jetson
    from mobilevlm_ros.doctor.jetson_site import Site
    from mobilevlm_ros.doctor.simulated.jetson import Pretended, pretended_jetson

    wish = Wish(args.model, not args.quick)
    if args.simulate is None:
        yield from examine_jetson(Site(), wish, work, told)
        return
    with pretended_jetson(Pretended(args.simulate)) as site:
        for group in examine_jetson(site, wish, work, told):
            checks = tuple(replace(check, detail=f"simulated: {check.detail}") for check in group.checks)
            yield replace(group, checks=checks)

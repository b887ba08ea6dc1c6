"""`mobilevlm build`: TensorRT's engines for a model package, made ahead of the first start."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mobilevlm_ros.cli.options import Commands, add_command, add_engine_cache_option, report

if TYPE_CHECKING:
    from mobilevlm_ros.runtime.tensorrt.builder import Engines

EXAMPLES = """  mobilevlm build mobilevlm-v2-1.7b-int4
  mobilevlm build mobilevlm-v2-1.7b-int4 --rows 1 --context-length 1024 --json
  mobilevlm build /opt/models/mobilevlm --build-only --engine-cache /opt/engines
"""
_EXPLAINED = """An engine fits one device, one TensorRT and the sizes below, which must be those that the model is run with (the
node's parameters 'rows' and 'context_length'); with others it is built anew at the first start. The default sizes are the node's.
Building takes minutes and is done once; what is there already is left as it is. Without --build-only the engines are loaded too,
with the memory that running takes, so that what does not fit shows now."""


def add_build_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command to the `mobilevlm` parser."""
    parser = add_command(commands, "build", "make TensorRT's engines for a model package on this machine", EXAMPLES, run)
    parser.description = f"{parser.description}\n{_EXPLAINED}"
    parser.add_argument("package", type=Path, metavar="PACKAGE", help="model package folder, converted with --backend all")
    parser.add_argument("--rows", type=int, default=4, metavar="N", help="requests that decode at once (default: 4)")
    parser.add_argument(
        "--context-length", type=int, default=0, metavar="N", help="prompt and answer together, in tokens (default: 2048)"
    )
    parser.add_argument("--build-only", action="store_true", help="do not load what was built; for making images")
    parser.add_argument("--again", action="store_true", help="build anew what is there already, or could not be built before")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_engine_cache_option(parser)


def run(args: argparse.Namespace) -> int:
    """Build, load, and tell where the engines are."""
    from tqdm import tqdm

    with tqdm(bar_format="{desc}", file=sys.stderr, disable=None, leave=False) as line:
        made, device_bytes = _build(args, line.set_description_str if sys.stderr.isatty() else report)
    if args.json:
        files = [{"role": one.role.value, "path": str(one.path), "built_s": round(one.built_s, 1)} for one in made.files]
        print(json.dumps({"engines": files, "notice": made.notice, "device_bytes": device_bytes}))
        return 0
    for one in made.files:
        print(f"{one.path}  {f'built in {one.built_s:.0f} s' if one.built_s else 'was there'}")
    if made.notice:
        print(f"note: {made.notice}")
    return 0


def _build(args: argparse.Namespace, told: Callable[[str], None]) -> tuple[Engines, int]:
    """The engines, and the bytes that running takes beside their weights, 0 where they were not loaded; raises VlmError."""
    from mobilevlm_ros.runtime.engine import EngineConfig
    from mobilevlm_ros.runtime.package import ModelPackage
    from mobilevlm_ros.runtime.tensorrt.backend import TensorRtBackend
    from mobilevlm_ros.runtime.tensorrt.builder import EngineBuilder, EngineNeeds
    from mobilevlm_ros.runtime.tensorrt.library import open_libraries

    libraries = open_libraries()
    package = ModelPackage.open(args.package)
    config = EngineConfig(rows=args.rows, context_length=args.context_length, engine_cache=args.engine_cache)
    options = config.backend_options(package.manifest.decoder.max_positions)
    needs = EngineNeeds(options.rows, options.context_length, options.engine_cache)
    builder = EngineBuilder(libraries, package, needs, told)
    if args.again:
        builder.forget()
    made = builder.engines()
    if args.build_only:
        return made, 0
    backend = TensorRtBackend(libraries, package, needs, told)
    try:
        backend.new_cache(needs.rows, needs.context_length)
        return made, backend.device_bytes
    finally:
        backend.close()

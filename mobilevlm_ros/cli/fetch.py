"""`mobilevlm fetch`: a released checkpoint, or any other of a model hub, onto this machine."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mobilevlm_ros.cli.options import Commands, add_command

EXAMPLES = """  mobilevlm fetch v2-1.7b
  mobilevlm fetch mtgv/MobileVLM-3B --to checkpoints/mobilevlm-3b
  mobilevlm fetch someone/their-lora-adapter --revision v1.0
  HF_TOKEN=... mobilevlm fetch someone/private-model

Broken off, the same command goes on where it stopped. 'mobilevlm convert' fetches by itself.
"""


def add_fetch_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command to the `mobilevlm` parser."""
    parser = add_command(commands, "fetch", "download a checkpoint or an adapter from the model hub", EXAMPLES, run)
    parser.add_argument("name", metavar="NAME", help="a name from 'mobilevlm models', or a hub id (owner/name)")
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit (default: the catalogue's, else main)")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="where to put the files (default: the Hugging Face cache)")
    parser.add_argument("--offline", action="store_true", help="ask no hub, only say where the files lie on this machine")
    parser.add_argument("--json", action="store_true", help="print folder, revision and licence as a JSON object")


def run(args: argparse.Namespace) -> int:
    """Fetch and print the folder; raises HubError."""
    from mobilevlm_ros.hub.client import fetch
    from mobilevlm_ros.hub.resolve import find_repository, licence_of, on_this_machine

    repository = find_repository(args.name)
    revision = args.revision or repository.revision
    if args.offline:
        snapshot = on_this_machine(repository.hub_id, revision)
    else:
        snapshot = fetch(repository.hub_id, revision, None if args.to is None else args.to.expanduser())
    if args.json:
        facts = {"hub_id": snapshot.hub_id, "revision": snapshot.revision, "licence": licence_of(snapshot)}
        print(json.dumps({**facts, "folder": str(snapshot.folder)}, ensure_ascii=False))
    else:
        print(snapshot.folder)
    return 0

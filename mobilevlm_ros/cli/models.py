"""`mobilevlm models`: the checkpoints that are known by name, and what of them is on this machine."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mobilevlm_ros.cli.options import Commands, add_command
from mobilevlm_ros.hub.catalogue import Entry, Measured, catalogue, find
from mobilevlm_ros.hub.client import arrived_bytes
from mobilevlm_ros.hub.errors import HubError
from mobilevlm_ros.hub.resolve import on_this_machine
from mobilevlm_ros.models import shipped_package
from mobilevlm_ros.runtime.errors import PackageError
from mobilevlm_ros.runtime.manifest import MANIFEST_NAME, Manifest

EXAMPLES = """  mobilevlm models
  mobilevlm models v2-3b
  mobilevlm models --packages packages/
  mobilevlm models --json | jq -r 'select(.checkpoint) | .name'
"""
_HEADINGS = ("NAME", "HUB ID", "DOWNLOAD", "FP16", "INT4", "LICENCE", "ON THIS MACHINE")
_TO_THE_RIGHT = ("DOWNLOAD", "FP16", "INT4")


@dataclass(frozen=True)
class _Here:
    """What of a model is on this machine: the checkpoint's folder, bytes of an unfinished download, and model packages."""

    checkpoint: Path | None
    partial_bytes: int
    packages: tuple[Path, ...]

    def in_words(self) -> str:
        """One line; a dash if there is nothing."""
        parts = [f"package {path}" for path in self.packages]
        if self.checkpoint is not None:
            parts.append(f"checkpoint {self.checkpoint}")
        elif self.partial_bytes:
            parts.append(f"{_gigabytes(self.partial_bytes)} of the checkpoint")
        return ", ".join(parts) or "-"


def add_models_parser(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command to the `mobilevlm` parser."""
    parser = add_command(commands, "models", "list the models that are known by name", EXAMPLES, run)
    parser.add_argument("name", nargs="?", metavar="NAME", help="tell all that is known of this one")
    parser.add_argument("--packages", type=Path, metavar="FOLDER", help="look for model packages in this folder, too")
    parser.add_argument("--json", action="store_true", help="print one JSON object a model, with sizes and measurements")


def run(args: argparse.Namespace) -> int:
    """Print the table, or one model's facts; raises VlmError for an unknown name and if `--packages` names no folder."""
    packages = [] if args.packages is None else _packages_in(args.packages.expanduser())
    entries = catalogue() if args.name is None else (_known(args.name),)
    found = [(entry, _here(entry, packages)) for entry in entries]
    if args.json:
        for entry, here in found:
            print(json.dumps(_as_json(entry, here), ensure_ascii=False))
    elif args.name is not None:
        for heading, text in _facts(*found[0]):
            print(f"{heading:<15} {text}")
    else:
        _print_table([_row(entry, here) for entry, here in found])
        print("\nDOWNLOAD: checkpoint; FP16, INT4: model package made from it ('mobilevlm convert NAME PACKAGE --precision ...')")
    return 0


def _known(name: str) -> Entry:
    entry = find(name)
    if entry is None:
        raise HubError(f"{name}: not a known model; known are {', '.join(known.name for known in catalogue())}")
    return entry


def _packages_in(folder: Path) -> list[tuple[Path, Manifest]]:
    """The model packages right below a folder."""
    if not folder.is_dir():
        raise PackageError(f"{folder}: no such folder")
    packages = []
    for path in sorted(folder.glob(f"*/{MANIFEST_NAME}")):
        try:
            packages.append((path.parent, Manifest.from_json(path.read_text(encoding="utf-8"))))
        except (PackageError, OSError, UnicodeDecodeError):
            continue  # some other program's manifest
    return packages


def _here(entry: Entry, packages: Sequence[tuple[Path, Manifest]]) -> _Here:
    if entry.hub_id is None:
        shipped = shipped_package(entry.name)
        return _Here(None, 0, (shipped,) if shipped.is_dir() else ())
    names = {entry.hub_id, entry.title}
    made = tuple(path for path, manifest in packages if manifest.source.checkpoint.split(" + ")[0] in names)
    try:
        return _Here(on_this_machine(entry.hub_id, entry.revision).folder, 0, made)
    except HubError:
        return _Here(None, arrived_bytes(entry.hub_id), made)


def _as_json(entry: Entry, here: _Here) -> dict[str, object]:
    config = entry.config
    facts = asdict(entry)
    del facts["config"]
    return {
        **facts,
        "download_bytes": None if entry.hub_id is None else entry.download_bytes,
        "projector": config.projector.value,
        "context_length": config.max_position_embeddings,
        "vision_tower": config.mm_vision_tower,
        "hidden_size": config.hidden_size,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "checkpoint": None if here.checkpoint is None else str(here.checkpoint),
        "partial_bytes": here.partial_bytes,
        "packages": [str(path) for path in here.packages],
    }


def _row(entry: Entry, here: _Here) -> tuple[str, ...]:
    return (
        entry.name,
        entry.hub_id or "(ships with this package)",
        "-" if entry.hub_id is None else _gigabytes(entry.download_bytes),
        _gigabytes(entry.package_bytes["fp16"]),
        _gigabytes(entry.package_bytes["int4"]),
        entry.licence,
        here.in_words(),
    )


def _facts(entry: Entry, here: _Here) -> list[tuple[str, str]]:
    config, parameters = entry.config, entry.parameters
    origin = "ships with this package" if entry.hub_id is None else f"{entry.hub_id}, revision {entry.revision}"
    sizes = f"{config.num_hidden_layers} layers of {config.num_attention_heads} heads, width {config.hidden_size}"
    millions = [f"{count / 1e6:,.0f}" for count in (parameters.language, parameters.projector, parameters.tower)]
    facts = [
        ("model", f"{entry.title} ({entry.name})"),
        ("from", origin),
        ("licence", entry.licence),
        ("language model", f"{entry.language_model}: {sizes}, context {config.max_position_embeddings} tokens"),
        ("vision tower", f"{config.mm_vision_tower}, projector {config.projector.value}, {config.image_tokens} tokens a picture"),
        ("parameters", "{} million language, {} projector, {} tower".format(*millions)),
        ("package", ", ".join(f"{precision} {_gigabytes(size)}" for precision, size in entry.package_bytes.items())),
    ]
    if entry.hub_id is not None:
        facts.insert(3, ("download", _gigabytes(entry.download_bytes)))
    facts += [("converting", _measured(measured)) for measured in entry.conversion]
    facts += [("running", _measured(measured)) for measured in entry.run]
    if entry.not_measured:
        facts.append(("not measured", entry.not_measured))
    return [*facts, ("on this machine", here.in_words())]


def _measured(measured: Measured) -> str:
    peak, anonymous = _gigabytes(measured.peak_bytes), _gigabytes(measured.anonymous_bytes)
    return f"{measured.how}: {peak} of memory at most ({anonymous} not from files), {measured.seconds:.0f} s, {measured.machine}"


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(cell) for cell in column) for column in zip(_HEADINGS, *rows)]
    for row in (_HEADINGS, *rows):
        cells = [
            cell.rjust(width) if heading in _TO_THE_RIGHT else cell.ljust(width)
            for heading, cell, width in zip(_HEADINGS, row, widths)
        ]
        print("  ".join(cells).rstrip())


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"

"""The checkpoints that this package knows by name, with what is known of them before anything is downloaded.

The facts stand in `catalogue.json` beside this file; `python -m bench.catalogue` fills in what follows from the architecture and
`python -m bench.conversion` what was measured. Knows nothing of the network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mobilevlm_ros.checkpoint.config import MobileVlmConfig, VisionConfig

CATALOGUE_FILE = Path(__file__).with_name("catalogue.json")
_BF16_BYTES = 2


@dataclass(frozen=True)
class Parameters:
    """How many numbers a checkpoint holds, in its three parts."""

    language: int
    projector: int
    tower: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.language + self.projector + self.tower


@dataclass(frozen=True)
class Measured:
    """What a conversion or a run took, in bytes and seconds, on the machine named.

    `peak_bytes` is the largest resident set, file pages among it, `anonymous_bytes` the most without them: what the machine
    cannot take back. `how` says what was run.
    """

    how: str
    peak_bytes: int
    anonymous_bytes: int
    seconds: float
    machine: str


@dataclass(frozen=True)
class Entry:
    """A known checkpoint. `hub_id` is None where it ships with this package instead.

    `package_bytes` is a model package's size by precision (`fp16`, ...), the few megabytes of graph and tokenizer left out.
    Where `conversion` or `run` is empty, `not_measured` says why.
    """

    name: str
    title: str
    hub_id: str | None
    revision: str
    licence: str
    language_model: str
    config: MobileVlmConfig
    parameters: Parameters
    package_bytes: Mapping[str, int]
    conversion: tuple[Measured, ...]
    run: tuple[Measured, ...]
    not_measured: str

    @property
    def download_bytes(self) -> int:
        """Size of the released weights: bfloat16 numbers, the vision tower's among them (the files add some kilobytes)."""
        return _BF16_BYTES * self.parameters.total


@cache
def catalogue() -> tuple[Entry, ...]:
    """All known checkpoints, in the order of the file."""
    return tuple(_entry(raw) for raw in json.loads(CATALOGUE_FILE.read_text(encoding="utf-8"))["checkpoints"])


def find(name: str) -> Entry | None:
    """The entry that a user means by a short name, a title or a hub id, in any case of letters; None if there is none."""
    wanted = name.lower()
    for entry in catalogue():
        if wanted in {known.lower() for known in (entry.name, entry.title, entry.hub_id) if known}:
            return entry
    return None


def _entry(raw: Mapping[str, Any]) -> Entry:
    vision = VisionConfig(**raw["vision"]) if "vision" in raw else VisionConfig.clip_vit_l_336()
    return Entry(
        name=raw["name"],
        title=raw["title"],
        hub_id=raw["hub_id"],
        revision=raw["revision"],
        licence=raw["licence"],
        language_model=raw["language_model"],
        config=MobileVlmConfig.from_json(raw["config"], vision, f"{CATALOGUE_FILE}: {raw['name']}"),
        parameters=Parameters(**raw["parameters"]),
        package_bytes=raw["package_bytes"],
        conversion=tuple(Measured(**measured) for measured in raw["conversion"]),
        run=tuple(Measured(**measured) for measured in raw["run"]),
        not_measured=raw["not_measured"],
    )

"""What is to be built: a graph, the sizes that it must serve, and the key under which the engine is kept.

Values only; opens no file and knows no library.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from mobilevlm_ros.runtime.package import VISION_TRT_NAME, ModelPackage

KEY_VERSION = 1
"""Counts up whenever engines are built differently from the same inputs."""

PREFILL_CHUNK = 256
"""Most tokens of one prefill run; a prompt's head, a picture and a question are each shorter."""
PREFILL_USUAL = 160
"""What the prefill profile is tuned for: a picture's 144 tokens, rounded up."""
PREFILL_LOGITS = 16
"""Most positions whose logits one prefill run gives."""
ROWS_STEPS = (4, 8, 16, 32)
"""Rows that engines are built for, so that programs which want fewer share one; it is tuned for a single row."""
POSITIONS_STEP = 16
"""The cache's length is a multiple of this, so that every row begins at an aligned address."""
_GIB = 1 << 30


class Role(str, Enum):
    """What an engine does, and in which of the decoder's dialects."""

    VISION = "vision"
    FUSED = "trt"
    PORTABLE = "trt-portable"

    @property
    def graph(self) -> str:
        """The graph's file in a package."""
        return VISION_TRT_NAME if self is Role.VISION else f"decoder.{self.value}.onnx"


@dataclass(frozen=True)
class AxisRange:
    """The sizes that an axis of the graph's inputs, such as "S", may have: least, the one to tune for, most."""

    axis: str
    least: int
    usual: int
    most: int


Profile = tuple[AxisRange, ...]

VISION_PROFILES: tuple[Profile, ...] = ((AxisRange("N", 1, 1, 1),),)


def decoder_profiles(rows: int, positions: int) -> tuple[Profile, ...]:
    """Profile 0 for prefill, one row at a time; profile 1 for decode, one token for each of up to `rows` rows, or some more."""
    rows = next((step for step in ROWS_STEPS if step >= rows), rows)
    chunk = min(PREFILL_CHUNK, positions)
    prefill = (AxisRange("B", 1, 1, 1), AxisRange("S", 1, min(PREFILL_USUAL, chunk), chunk), AxisRange("K", 1, 1, PREFILL_LOGITS))
    decode = (AxisRange("B", 1, 1, rows), AxisRange("S", 1, 1, 1), AxisRange("K", 1, 1, 1))
    return prefill, decode


def positions_for(context_length: int) -> int:
    """The cache's length for so many tokens."""
    return -(-context_length // POSITIONS_STEP) * POSITIONS_STEP


def workspace_for(memory: int) -> int:
    """Bytes that a kernel may take for itself while it runs, on a device with so many bytes of memory."""
    if memory <= 9 * _GIB:
        return _GIB // 2
    return _GIB if memory <= 17 * _GIB else 4 * _GIB


@dataclass(frozen=True)
class Order:
    """An engine to be built.

    `positions` is the cache's length, 0 for a graph without one; `workspace` is in bytes. `weights_sha256` covers the graph and
    every file with its weights.
    """

    role: Role
    graph: Path
    weights_sha256: str
    weights_bytes: int
    profiles: tuple[Profile, ...]
    positions: int
    workspace: int

    def to_json(self) -> str:
        """As text for a command line."""
        values = dataclasses.asdict(self) | {"graph": str(self.graph)}
        return json.dumps(values, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Order:
        """What `to_json` gave; raises ValueError, KeyError or TypeError for anything else."""
        raw: dict[str, Any] = json.loads(text)
        profiles = tuple(tuple(AxisRange(**axis) for axis in profile) for profile in raw["profiles"])
        return Order(**raw | {"role": Role(raw["role"]), "graph": Path(raw["graph"]), "profiles": profiles})


@dataclass(frozen=True)
class Machine:
    """What an engine is made for and runs on: TensorRT's version and the device. `l4t` is empty where it is no Jetson."""

    tensorrt: str
    device: str
    compute_capability: str
    l4t: str


def key(order: Order, machine: Machine) -> str:
    """The engine's name in a cache: two orders share it only if the same engine would be built."""
    facts = dataclasses.asdict(order) | dataclasses.asdict(machine) | {"key_version": KEY_VERSION}
    del facts["graph"]  # where it lies does not matter; its content is in the hash
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return f"{order.role.value}-{digest[:20]}"


def make_order(package: ModelPackage, role: Role, rows: int, context_length: int, memory: int) -> Order:
    """What to build for a package.

    Args:
        rows: requests that decode at once.
        context_length: longest prompt and answer together, in tokens.
        memory: the device's, in bytes.

    Raises:
        PackageError: the package has no such graph.
    """
    positions = 0 if role is Role.VISION else positions_for(context_length)
    profiles = VISION_PROFILES if role is Role.VISION else decoder_profiles(rows, positions)
    files = package.vision_trt if role is Role.VISION else package.decoder(role.value)
    digest, size = _weights(package, role)
    return Order(role, files.graph, digest, size, profiles, positions, workspace_for(memory))


def _weights(package: ModelPackage, role: Role) -> tuple[str, int]:
    """A digest over the hashes of the graph and of every file that may hold its weights, and the bytes these take at least."""
    stem = role.graph.split(".")[0]
    digest, size = hashlib.sha256(), 0
    owners = [package] if package.base is None else [package, package.base]
    for owner in owners:
        for name, entry in sorted(owner.manifest.files.items()):
            if name == role.graph or (name.startswith(f"{stem}.") and not name.endswith(".onnx")):
                digest.update(f"{name} {entry.sha256}\n".encode())
                size = max(size, entry.bytes)  # a file may be there for another backend
    return digest.hexdigest(), size

"""Fills in what follows from the architecture in the catalogue of checkpoints: parameter counts and package sizes.

    python -m bench.catalogue

Rewrites `mobilevlm_ros/hub/catalogue.json`; a test fails where the file is no longer what this would write. Reads no weights.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mobilevlm_ros.checkpoint.config import MobileVlmConfig
from mobilevlm_ros.checkpoint.model import EMBEDDING_NAME, HEAD_NAME, PROJECTOR_PREFIX, VISION_PREFIX, expected_shapes
from mobilevlm_ros.checkpoint.reader import Tensors
from mobilevlm_ros.export.convert import build_graphs, table_dtype
from mobilevlm_ros.export.linear_weights import BLOCK, BlockWeight, ChannelWeight, LinearWeight
from mobilevlm_ros.hub.catalogue import CATALOGUE_FILE, Measured, Parameters, catalogue
from mobilevlm_ros.runtime.manifest import Precision


class Shapes(Tensors):
    """A checkpoint of which only the shapes are known; its values are on no device."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self.where, self.files = "shapes", ()
        self._shapes = shapes

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def __getitem__(self, name: str) -> Tensor:
        return torch.empty(self._shapes[name], device="meta")

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def parameters(config: MobileVlmConfig) -> Parameters:
    """The numbers in a checkpoint with this config, the tower's unused last layer among them."""
    counts = {name: math.prod(shape) for name, shape in expected_shapes(config).items()}
    tower = sum(count for name, count in counts.items() if name.startswith(VISION_PREFIX))
    projector = sum(count for name, count in counts.items() if name.startswith(PROJECTOR_PREFIX))
    return Parameters(sum(counts.values()) - projector - tower, projector, tower)


def package_bytes(config: MobileVlmConfig, precision: Precision) -> int:
    """Bytes of the weights in a model package.

    For int8 and int4 as if every linear map could be stored in the fewest bits; each that a conversion finds too inexact there
    makes the package a little larger.
    """
    shapes = Shapes(expected_shapes(config))
    graphs = build_graphs(shapes, config, precision, smallest_forms(config, shapes, precision))
    table = math.prod(shapes.shape(EMBEDDING_NAME)) * table_dtype(precision).itemsize
    return table + sum(weight.size for built in graphs for weight in built.builder.weights())


def smallest_forms(config: MobileVlmConfig, shapes: Shapes, precision: Precision) -> dict[str, LinearWeight]:
    """Each linear map in the fewest bits that a precision has for it, in arrays that take no memory; none for fp32 and fp16."""
    if precision not in (Precision.INT8, Precision.INT4):
        return {}
    layers = tuple(f"{VISION_PREFIX}encoder.layers.{number}." for number in range(config.vision_layers_used))
    forms: dict[str, LinearWeight] = {}
    for name in shapes:
        shape = shapes.shape(name)
        if len(shape) != 2:
            continue
        if name.startswith(layers):
            forms[name] = ChannelWeight(_nothing(shape[::-1], np.int8), _nothing(shape[:1], np.float32))
        elif name.startswith("model.layers.") or name == HEAD_NAME:
            bits = 8 if precision is Precision.INT8 or name == HEAD_NAME else 4
            blocks = -(-shape[1] // BLOCK)
            packed = _nothing((shape[0], blocks, BLOCK * bits // 8), np.uint8)
            forms[name] = BlockWeight(bits, shape[1], packed, _nothing((shape[0], blocks), np.float32))
    return forms


def _nothing(shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    """An array that takes no memory."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def computed() -> dict[str, Any]:
    """What the catalogue's file should hold."""
    data: dict[str, Any] = json.loads(CATALOGUE_FILE.read_text(encoding="utf-8"))
    for raw, entry in zip(data["checkpoints"], catalogue()):
        raw["parameters"] = asdict(parameters(entry.config))
        raw["package_bytes"] = {precision.value: package_bytes(entry.config, precision) for precision in Precision}
    return data


def record(name: str, kind: str, measured: Measured) -> None:
    """Writes a measurement (`kind` is conversion or run) into the catalogue, in place of one of the same `how`."""
    data: dict[str, Any] = json.loads(CATALOGUE_FILE.read_text(encoding="utf-8"))
    (raw,) = (raw for raw in data["checkpoints"] if raw["name"] == name)
    raw[kind] = [*(known for known in raw[kind] if known["how"] != measured.how), asdict(measured)]
    write(data)


def write(data: dict[str, Any]) -> None:
    """Replaces the catalogue's file."""
    CATALOGUE_FILE.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(computed())

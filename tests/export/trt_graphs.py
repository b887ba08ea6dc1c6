"""Writes the graphs for TensorRT of a random model into a folder, and holds them against PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from mobilevlm_ros.checkpoint.config import MobileVlmConfig
from mobilevlm_ros.checkpoint.model import EMBEDDING_NAME, normalise
from mobilevlm_ros.checkpoint.reader import Tensors, load_model
from mobilevlm_ros.export.convert import build_graphs
from mobilevlm_ros.export.linear_weights import BLOCK, BlockWeight, to_blocks
from mobilevlm_ros.export.onnx_builder import stored
from mobilevlm_ros.export.trt_graphs import Target
from mobilevlm_ros.export.trt_reference import ReferenceDecoder, ReferenceGraph, RunnableGraph, can_run
from mobilevlm_ros.runtime.manifest import Precision
from tests.export.tensors import Given
from tests.make_checkpoint import random_tensors
from tests.parity import relative

DECODERS = ("trt", "trt-portable")
Change = Callable[[dict[str, Tensor]], None]


@dataclass(frozen=True, eq=False)
class Model:
    """A random model: its weights as the graphs should stand for them, and which of its maps are stored in fewer bits."""

    config: MobileVlmConfig
    tensors: Mapping[str, Tensor]
    linears: Mapping[str, BlockWeight]

    def logits(self, ids: list[int]) -> np.ndarray:
        """PyTorch's, float32 [len(ids), vocab]."""
        with torch.no_grad():
            return np.asarray(load_model(self.tensors, self.config)(torch.tensor([ids]))[0].numpy())

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """PyTorch's visual tokens."""
        with torch.no_grad():
            planes = normalise(torch.from_numpy(pixels), self.config.vision)
            return np.asarray(load_model(self.tensors, self.config).encode_images(planes).numpy())

    def embed(self, ids: list[int]) -> np.ndarray:
        return np.asarray(self.tensors[EMBEDDING_NAME][ids].numpy())


def random_model(config: MobileVlmConfig, change: Change | None = None) -> Model:
    tensors = random_tensors(config, seed=7)
    if change is not None:
        change(tensors)
    return Model(config, tensors, {})


def int4_model(config: MobileVlmConfig) -> Model:
    """With the decoder's maps in 4 bits and the vocabulary's in 8, as a conversion stores them."""
    tensors, linears = random_tensors(config, seed=7), {}
    for name, tensor in tensors.items():
        if tensor.dim() == 2 and ("proj.weight" in name and "model.layers." in name or name == "lm_head.weight"):
            linears[name] = to_blocks(tensor.numpy(), 8 if name == "lm_head.weight" else 4)
            tensors[name] = torch.from_numpy(linears[name].values())
    assert linears and config.hidden_size % BLOCK == 0
    return Model(config, tensors, linears)


def write_graphs(folder: Path, model: Model, precision: Precision, target: Target = Target.ALL) -> Path:
    """All graphs of a package and their weights, without the rest of it."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = model.tensors if isinstance(model.tensors, Tensors) else Given(model.tensors)
    for built in build_graphs(tensors, model.config, precision, model.linears, target):
        with (folder / built.data_name).open("wb") as data:
            for weight in built.builder.weights():
                data.seek(weight.offset)
                data.write(stored(weight).tobytes())
        (folder / built.name).write_bytes(built.builder.model(built.data_name, built.opsets).SerializeToString())
    return folder


class RoundedGraph:
    """A graph in the onnx package's own evaluator: slow, but it rounds every float16 value, as ONNX Runtime does not."""

    def __init__(self, path: Path) -> None:
        model = onnx.load(str(path))
        self.inputs: Mapping[str, Any] = {value.name: value.type.tensor_type for value in model.graph.input}
        self._evaluator = ReferenceEvaluator(model)

    def run(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        found = self._evaluator.run(None, dict(feeds))
        return {name: np.asarray(value) for name, value in zip(self._evaluator.output_names, found)}


def any_graph(path: Path) -> RunnableGraph:
    """In ONNX Runtime, or where that is too old for it in the onnx package's evaluator."""
    return ReferenceGraph(path) if can_run(path) else RoundedGraph(path)


def decoder_difference(folder: Path, model: Model, dialect: str, graph: Callable[[Path], RunnableGraph] = any_graph) -> float:
    """Of a prefill in two parts, the first one padded, and single steps beside another row, from PyTorch's logits."""
    ids = [int(token) for token in np.random.default_rng(0).integers(3, model.config.vocab_size, 24)]
    decoder = ReferenceDecoder(graph(folder / f"decoder.{dialect}.onnx"), rows=2, capacity=32)
    parts = [
        decoder.prefill(0, model.embed(ids[:9]), range(9), padding=3),
        decoder.prefill(0, model.embed(ids[9:20]), range(11)),
    ]
    decoder.prefill(1, model.embed(ids[:4]), [0])
    steps = [decoder.decode(model.embed([token, token]))[:1] for token in ids[20:]]
    return relative(np.concatenate([*parts, *steps]), model.logits(ids))


def vision_difference(folder: Path, model: Model, graph: Callable[[Path], RunnableGraph] = any_graph) -> float:
    """Of two pictures' visual tokens from PyTorch's."""
    size = model.config.vision.image_size
    pixels = np.random.default_rng(1).integers(0, 256, (2, size, size, 3), np.uint8)
    found = graph(folder / "vision.trt.onnx").run({"pixels": pixels})["features"]
    return relative(found, model.features(pixels))

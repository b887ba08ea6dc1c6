"""Makes an adapter's graph from its base's: a branch of low rank beside a product, another weight in the place of one.

Works on the stored ONNX graph of the base package, so that all other weights keep their place in the base's data file, whatever
its precision. A product with weight W becomes x W + (x A) B; A and B, and weights that the adapter gives whole, are never stored
in fewer bits than float16. Knows how `onnx_builder` names weights and multiplies with them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from mobilevlm_ros.checkpoint.lora import AdaptedTensors
from mobilevlm_ros.checkpoint.model import VISION_PREFIX
from mobilevlm_ros.export.errors import ExportError
from mobilevlm_ros.export.onnx_builder import JOIN, Weight
from mobilevlm_ros.runtime.package import own_weights_name
from mobilevlm_ros.runtime.tensor_file import TensorEntry, tensor_header

Read = Callable[[], np.ndarray]

# Operators that multiply their first input with the linear weight that begins the second one's name.
_PRODUCTS = ("MatMul", "MatMulNBits", "DynamicQuantizeMatMul")
_SUMMED = frozenset(f"{VISION_PREFIX}embeddings.{name}" for name in ("position_embedding.weight", "class_embedding"))
"""Tensors that the graph holds added up, so that one of them cannot be replaced."""


@dataclass(frozen=True, eq=False)
class AdaptedGraph:
    """A graph of an adapter package.

    Attributes:
        model: its weights lie in the base's data file and in the adapter's own.
        header: the beginning of the adapter's own file, see `runtime.tensor_file`.
        weights: what follows the header, in the file's order.
        changed: names of the tensors whose changes this graph holds.
    """

    model: onnx.ModelProto
    header: bytes
    weights: tuple[Weight, ...]
    changed: frozenset[str]


def adapt_graph(path: Path, adapted: AdaptedTensors, dtype: np.dtype[Any]) -> AdaptedGraph:
    """The graph `path` of a base package with an adapter's changes; the adapter's matrices are stored as `dtype`.

    Raises ExportError for a change that a graph beside a base cannot hold.
    """
    if summed := sorted(adapted.replaced & _SUMMED):
        raise ExportError(f"the adapter replaces {summed[0]}, which only a merged package can hold")
    model = onnx.load(str(path), load_external_data=False)
    work = _Rewriting(model.graph, adapted, dtype)
    nodes = [new for node in list(model.graph.node) for new in work.rewritten(node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    weights = sorted(work.own.values(), key=lambda weight: -weight.dtype.itemsize)  # so that each lies at a multiple of its size
    header = tensor_header({weight.name: TensorEntry(weight.dtype, weight.shape) for weight in weights})
    placed = tuple(_placed(weights, len(header)))
    _keep_used(model.graph, {weight.name: _external(weight, own_weights_name(path.name)) for weight in placed})
    return AdaptedGraph(model, header, placed, frozenset(work.changed))


@dataclass(frozen=True)
class _Joined:
    """Several linear maps of one input, computed as one product: the input, and the weights' released names in order."""

    value: str
    names: tuple[str, ...]


class _Rewriting:
    """Nodes in, nodes out; collects the weights that the adapter has for itself."""

    def __init__(self, graph: onnx.GraphProto, adapted: AdaptedTensors, dtype: np.dtype[Any]) -> None:
        self.own: dict[str, Weight] = {}
        self.changed: set[str] = set()
        self._adapted = adapted
        self._dtype = dtype
        self._cast: set[str] = set()
        self._joined: dict[str, _Joined] = {}
        linears = {name for name in map(_linear_weight, graph.node) if name is not None}
        for initializer in graph.initializer:
            if initializer.name in adapted.replaced:
                self._replace(initializer, linears)

    def rewritten(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """The nodes that take a node's place."""
        name = _linear_weight(node)
        if node.op_type == "Split" and node.input[0] in self._joined:
            yield from self._parts(node, self._joined[node.input[0]])
        elif name is None or name in self.own:
            yield node
        elif JOIN in name:
            self._joined[node.output[0]] = _Joined(node.input[0], tuple(name.split(JOIN)))
            yield node
        elif name in self._adapted.replaced:
            bias = node.input[4] if node.op_type == "DynamicQuantizeMatMul" and len(node.input) > 4 else ""
            yield from self._whole(node.input[0], name, node.output[0], bias)
        elif name in self._adapted.low_rank:
            result, node.output[0] = node.output[0], f"{node.output[0]}/base"
            yield node
            yield from self._branch(node.input[0], name, result)
        else:
            yield node

    def _parts(self, split: onnx.NodeProto, joined: _Joined) -> Iterator[onnx.NodeProto]:
        """A joined product's parts, each with what the adapter does to it; a replaced one is computed in vain."""
        results = list(split.output)
        for place, name in enumerate(joined.names):
            if name in self._adapted.replaced or name in self._adapted.low_rank:
                split.output[place] = f"{results[place]}/base"
        yield split
        for result, name in zip(results, joined.names):
            if name in self._adapted.replaced:
                yield from self._whole(joined.value, name, result, "")
            elif name in self._adapted.low_rank:
                yield from self._branch(joined.value, name, result)

    def _replace(self, initializer: onnx.TensorProto, linears: set[str]) -> None:
        """Takes the adapter's values for a weight that the base stores as they are, or transposed."""
        name, shape = initializer.name, tuple(initializer.dims)
        read = self._matrix(name) if name in linears else lambda: self._read(name)
        self._declare(name, helper.tensor_dtype_to_np_dtype(initializer.data_type), shape, read)
        self.changed.add(name)

    def _whole(self, value: str, name: str, result: str, bias: str) -> Iterator[onnx.NodeProto]:
        """A plain product with the adapter's weight, for one with integers."""
        rows, columns = self._adapted.shape(name)[:2]
        weight = yield from self._matrix_value(name, (columns, rows), self._matrix(name))
        product = f"{result}/product" if bias else result
        yield helper.make_node("MatMul", [value, weight], [product], name=f"{result}/whole")
        if bias:
            yield helper.make_node("Add", [product, bias], [result], name=f"{result}/bias")
        self.changed.add(name)

    def _branch(self, value: str, name: str, result: str) -> Iterator[onnx.NodeProto]:
        """`result` from the base's product, which is called `result`/base, and the matrices of low rank."""
        delta = self._adapted.low_rank[name]
        rank, columns = delta.down.shape
        down = yield from self._matrix_value(f"{name}/down", (columns, rank), lambda: delta.down.float().numpy().T)
        up = yield from self._matrix_value(
            f"{name}/up", (rank, len(delta.up)), lambda: (delta.up.float() * delta.scale).numpy().T
        )
        yield helper.make_node("MatMul", [value, down], [f"{result}/down"], name=f"{result}/down")
        yield helper.make_node("MatMul", [f"{result}/down", up], [f"{result}/up"], name=f"{result}/up")
        yield helper.make_node("Add", [f"{result}/base", f"{result}/up"], [result], name=f"{result}/sum")
        self.changed.add(name)

    def _matrix_value(self, name: str, shape: tuple[int, int], read: Read) -> Generator[onnx.NodeProto, None, str]:
        """Declares a matrix, yields the node that makes it float32 where that is needed, and returns the value's name."""
        self._declare(name, self._dtype, shape, read)
        if self._dtype == np.float32:
            return name
        if name not in self._cast:
            self._cast.add(name)
            yield helper.make_node("Cast", [name], [f"{name}/float32"], name=f"{name}/cast", to=TensorProto.FLOAT)
        return f"{name}/float32"

    def _declare(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], read: Read) -> None:
        self.own[name] = Weight(name, dtype, shape, 0, read)

    def _matrix(self, name: str) -> Read:
        rows, columns = self._adapted.shape(name)[:2]
        return lambda: self._read(name).reshape(rows, columns).T

    def _read(self, name: str) -> np.ndarray:
        values: np.ndarray = self._adapted[name].float().numpy()
        return values


def _linear_weight(node: onnx.NodeProto) -> str | None:
    """The released name of the linear weight that a node multiplies with, if it does; of a joined one, the names with JOIN."""
    return node.input[1].split("/", 1)[0] if node.op_type in _PRODUCTS else None


def _placed(weights: list[Weight], start: int) -> Iterator[Weight]:
    """The weights one behind the other from byte `start` on."""
    for weight in weights:
        yield Weight(weight.name, weight.dtype, weight.shape, start, weight.read)
        start += weight.size


def _keep_used(graph: onnx.GraphProto, own: dict[str, onnx.TensorProto]) -> None:
    """Leaves the base's weights that some node still uses, and adds the adapter's."""
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used and tensor.name not in own]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *own.values()])


def _external(weight: Weight, data_file: str) -> onnx.TensorProto:
    proto = TensorProto(name=weight.name, data_type=helper.np_dtype_to_tensor_dtype(weight.dtype), dims=weight.shape)
    proto.data_location = TensorProto.EXTERNAL
    for key, value in (("location", data_file), ("offset", str(weight.offset)), ("length", str(weight.size))):
        proto.external_data.add(key=key, value=value)
    return proto

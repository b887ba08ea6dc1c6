"""Builds ONNX graphs by hand, node by node, without holding a weight in memory.

A graph's weights are declared with their place in one external data file and are read from the checkpoint only when that file is
written, one after another. Knows ONNX and how a precision stores a weight; knows nothing of what a graph computes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mobilevlm_ros.checkpoint.reader import Tensors
from mobilevlm_ros.export.errors import ExportError
from mobilevlm_ros.export.linear_weights import BLOCK, BlockWeight, ChannelWeight, LinearWeight, joined
from mobilevlm_ros.runtime.manifest import Precision

IR_VERSION = 8
"""Readable by every ONNX Runtime since 1.10; newer graphs gain nothing from a higher one."""
OPSET = 17
MICROSOFT = "com.microsoft"
ALIGNMENT = 64
"""Bytes; a cache line and the widest vector register, so that a runtime can use mapped weights where they lie."""

Shape = Sequence[int | str]
JOIN = "+"
"""Between the released names of linear weights that are stored as one matrix, in its name."""
_INT8_COMPUTE = 4
"""MatMulNBits' accuracy level at which a product's inputs are brought to 8 bits, block by block."""
_TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
}


@dataclass(frozen=True)
class Weight:
    """A weight of a graph: what it is called, how it is stored, where in the data file, and how to read it."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    read: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        """Bytes in the data file."""
        return self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))


class GraphBuilder:
    """A graph under construction. Values are named by strings, as in ONNX; every value is float32 unless said otherwise."""

    ir_version = IR_VERSION

    def __init__(
        self, name: str, tensors: Tensors, precision: Precision, linears: Mapping[str, LinearWeight] | None = None
    ) -> None:
        """`tensors` is the checkpoint that `weight` and `matrix` read.

        With `precision` fp32, matrices are stored in float32, else in float16, but for the linear weights that `linears` gives in
        fewer bits by their released names.
        """
        self.tensors = tensors
        self._name = name
        self._precision = precision
        self._linears = linears or {}
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._weights: dict[str, Weight] = {}
        self._end = 0
        self._counter = 0

    def input(self, name: str, dtype: str, shape: Shape) -> str:
        """Declares an input; text in `shape` names a dynamic axis."""
        self._inputs.append(helper.make_tensor_value_info(name, _TYPES[dtype], list(shape)))
        return name

    def output(self, name: str, value: str, shape: Shape, dtype: str = "float32") -> None:
        """Declares the output `name`, which is `value`."""
        if value != name:
            self._nodes.append(helper.make_node("Identity", [value], [name], name=f"output/{name}"))
        self._outputs.append(helper.make_tensor_value_info(name, _TYPES[dtype], list(shape)))

    def node(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Adds a node with one output and returns that."""
        return self.node_with_outputs(operator, inputs, [self._new_name(operator)], domain, **attributes)[0]

    def node_with_outputs(
        self, operator: str, inputs: Sequence[str], outputs: Sequence[str], domain: str = "", **attributes: Any
    ) -> list[str]:
        """Adds a node with the given output names ("" for one not wanted) and returns them."""
        name = self._new_name(f"node/{operator}")
        self._nodes.append(helper.make_node(operator, list(inputs), list(outputs), name=name, domain=domain, **attributes))
        return list(outputs)

    def constant(self, values: Any, dtype: str = "float32") -> str:
        """A small constant kept in the graph itself; equal constants are one."""
        array = np.asarray(values, dtype)
        name = f"constant/{dtype}/{list(array.shape)}/{hashlib.sha256(array.tobytes()).hexdigest()[:16]}"
        self._constants.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def weight(self, name: str) -> str:
        """The checkpoint's tensor `name`, as it is."""
        return self.derived(name, self.tensors.shape(name), lambda: self.read(name))

    def matrix(self, name: str) -> str:
        """The checkpoint's linear weight [out, in], transposed to [in, out] for MatMul; further axes of length 1 are dropped."""
        rows, columns = self.tensors.shape(name)[:2]
        return self.derived(name, (columns, rows), lambda: self.read(name).reshape(rows, columns).T)

    def linear(self, value: str, weight: str, bias: str | None = None) -> str:
        """`value` [..., in] times the checkpoint's linear `weight` [out, in], plus `bias` [out].

        The one place where a precision that changes the product itself, and not only the storage, has its effect.
        """
        stored = self._linears.get(weight)
        if isinstance(stored, ChannelWeight):
            return self._channel_product(value, weight, stored, bias)
        if isinstance(stored, BlockWeight):
            product = self._block_product(value, weight, stored)
        else:
            product = self.node("MatMul", value, self.matrix(weight))
        return product if bias is None else self.node("Add", product, self.weight(bias))

    def linears(self, value: str, weights: Sequence[str]) -> list[str]:
        """`value` times each of several linear weights. Those that are stored in blocks alike are multiplied as one matrix."""
        parts = [self._linears.get(weight) for weight in weights]
        blocks = [part for part in parts if isinstance(part, BlockWeight)]
        if len(blocks) < len(parts) or len({(block.bits, block.columns) for block in blocks}) > 1:
            return [self.linear(value, weight) for weight in weights]
        product = self._block_product(value, JOIN.join(weights), joined(blocks))
        rows = self.constant([block.rows for block in blocks], "int64")
        return self.node_with_outputs("Split", [product, rows], [self._new_name("part") for _ in blocks], axis=-1)

    def _block_product(self, value: str, name: str, stored: BlockWeight) -> str:
        packed = self._declare(f"{name}/packed", np.dtype(np.uint8), stored.packed.shape, lambda: stored.packed)
        scales = self._declare(f"{name}/scales", np.dtype(np.float32), stored.scales.shape, lambda: stored.scales)
        sizes = {"K": stored.columns, "N": stored.rows, "bits": stored.bits, "block_size": BLOCK}
        return self.node("MatMulNBits", value, packed, scales, domain=MICROSOFT, accuracy_level=_INT8_COMPUTE, **sizes)

    def _channel_product(self, value: str, name: str, stored: ChannelWeight, bias: str | None) -> str:
        integers = self._declare(f"{name}/integers", np.dtype(np.int8), stored.integers.shape, lambda: stored.integers)
        scales = self._declare(f"{name}/scales", np.dtype(np.float32), stored.scales.shape, lambda: stored.scales)
        inputs = [value, integers, scales] + ([] if bias is None else ["", self.weight(bias)])
        return self.node("DynamicQuantizeMatMul", *inputs, domain=MICROSOFT)

    def derived(self, name: str, shape: tuple[int, ...], read: Callable[[], np.ndarray], exact: bool = False) -> str:
        """A weight computed from the checkpoint by `read`, which returns float32 of `shape`.

        Vectors, and whatever is `exact`, stay float32 in every precision: they are small, and rounding them costs most.
        """
        half = self._precision is not Precision.FP32 and len(shape) > 1 and not exact
        known = name in self._weights
        self._declare(name, np.dtype(np.float16 if half else np.float32), tuple(shape), read)
        if half and not known:
            self.node_with_outputs("Cast", [name], [f"{name}/float32"], to=TensorProto.FLOAT)
        return f"{name}/float32" if half else name

    def _declare(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], read: Callable[[], np.ndarray]) -> str:
        if name not in self._weights:
            offset = -(-self._end // ALIGNMENT) * ALIGNMENT
            self._weights[name] = Weight(name, dtype, shape, offset, read)
            self._end = offset + self._weights[name].size
        return name

    def read(self, name: str) -> np.ndarray:
        """The checkpoint's tensor `name` as float32."""
        return self.tensors[name].float().numpy()

    def weights(self) -> Iterator[Weight]:
        """The declared weights in the order of the data file."""
        yield from self._weights.values()

    def model(self, data_file: str, opsets: Mapping[str, int]) -> onnx.ModelProto:
        """The finished graph, whose weights lie in `data_file` beside it."""
        initializers = [*self._constants.values(), *self._stored_weights(data_file)]
        graph = helper.make_graph(self._nodes, self._name, self._inputs, self._outputs, initializers)
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
            ir_version=self.ir_version,
            producer_name="mobilevlm_ros",
        )

    def _stored_weights(self, data_file: str) -> Iterator[onnx.TensorProto]:
        """The weights as initializers that lie in `data_file`."""
        for weight in self._weights.values():
            yield external(weight, data_file)

    def _new_name(self, stem: str) -> str:
        self._counter += 1
        return f"{stem}_{self._counter}"


@dataclass(frozen=True)
class BuiltGraph:
    """One of a package's graphs: its file's name, the graph, and the operator sets that it uses."""

    name: str
    builder: GraphBuilder
    opsets: Mapping[str, int]

    @property
    def data_name(self) -> str:
        """The name of the file with its weights."""
        return f"{self.name}.data"


def stored(weight: Weight) -> np.ndarray:
    """Reads a weight and brings it into its stored form, contiguous.

    Raises ExportError if the values do not have the declared shape, are not finite, or overflow float16.
    """
    values = weight.read()
    if values.shape != weight.shape:
        raise ExportError(f"{weight.name} has shape {list(values.shape)}, expected {list(weight.shape)}")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(values, dtype=weight.dtype)
    if not np.isfinite(array).all():
        raise ExportError(f"tensor {weight.name} holds values that {weight.dtype.name} cannot express")
    return array


def external(weight: Weight, data_file: str) -> onnx.TensorProto:
    """A weight as an initializer whose values lie in `data_file`."""
    proto = TensorProto(name=weight.name, data_type=helper.np_dtype_to_tensor_dtype(weight.dtype), dims=weight.shape)
    proto.data_location = TensorProto.EXTERNAL
    for key, value in (("location", data_file), ("offset", str(weight.offset)), ("length", str(weight.size))):
        proto.external_data.add(key=key, value=value)
    return proto

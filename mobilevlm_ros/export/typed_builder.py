"""Builds graphs for TensorRT's strongly typed networks: every product in float16, with explicit casts to and from float32.

The rule, by operator:

- products (MatMul, Conv, Attention) take and give float16;
- normalisations and means take and give float32: they sum squares, which leave float16's range first;
- everything else has the widest type among its activations; constants and vectors of weights follow it. So the residual stream,
  which begins at the float32 input or at a normalisation, stays float32, however large its outlier channels grow; what happens
  between two products stays float16.

The official code runs the released checkpoints in float16 altogether, so that their products fit into its range. With precision
fp32 all of it is float32. Knows types and how weights are stored; knows nothing of what a graph computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from mobilevlm_ros.checkpoint.reader import Tensors
from mobilevlm_ros.export.linear_weights import BLOCK, BlockWeight, LinearWeight, joined
from mobilevlm_ros.export.onnx_builder import JOIN, GraphBuilder, Shape, Weight, external
from mobilevlm_ros.runtime.manifest import Precision

_PRODUCTS = frozenset({"MatMul", "Conv", "Attention"})
_WIDE = frozenset({"LayerNormalization", "RMSNormalization", "ReduceMean"})
_COMPARISONS = frozenset({"LessOrEqual", "Less"})
_ELEMENTS = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}
_NAMES = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.INT64: "int64"}


class TypedGraphBuilder(GraphBuilder):
    """A graph under construction whose values are float32 or `half` by the module's rule.

    Weights that another graph's data file holds already in the same form are taken from there.
    """

    ir_version = 10  # the first with 4 bits

    def __init__(
        self,
        name: str,
        tensors: Tensors,
        precision: Precision,
        linears: Mapping[str, LinearWeight] | None = None,
        written: Mapping[str, GraphBuilder] | None = None,
    ) -> None:
        """As `GraphBuilder`; `written` are graphs by the names of their data files, which this one's weights may lie in."""
        super().__init__(name, tensors, precision, linears)
        self.half = "float32" if precision is Precision.FP32 else "float16"
        self._types: dict[str, str] = {}
        self._following: set[str] = set()
        self._casts: dict[tuple[str, str], str] = {}
        self._int4_shapes: dict[str, tuple[int, int]] = {}
        self._elsewhere = {_form(weight): (file, weight) for file, graph in (written or {}).items() for weight in graph.weights()}
        self._taken: dict[str, tuple[str, Weight]] = {}

    def input(self, name: str, dtype: str, shape: Shape) -> str:
        self._types[name] = dtype
        return super().input(name, dtype, shape)

    def output(self, name: str, value: str, shape: Shape, dtype: str = "float32") -> None:
        super().output(name, self._as(value, dtype), shape, dtype)

    def node_with_outputs(
        self, operator: str, inputs: Sequence[str], outputs: Sequence[str], domain: str = "", **attributes: Any
    ) -> list[str]:
        wanted = self._common_type(operator, inputs)
        inputs = [self._as(value, wanted) if self._is_float(value) else value for value in inputs]
        for name in outputs:
            self._types[name] = self._result_type(operator, inputs, wanted, attributes)
        return super().node_with_outputs(operator, inputs, outputs, domain, **attributes)

    def constant(self, values: Any, dtype: str = "float32") -> str:
        name = super().constant(values, dtype)
        self._types[name] = dtype
        self._following.add(name)
        return name

    def linear(self, value: str, weight: str, bias: str | None = None) -> str:
        known = self._linears.get(weight)
        if _has_four_bits(known):
            matrix = self._int4_matrix(weight, [known])
        elif known is not None:
            # TensorRT multiplies with no blocks of 8 bits: their values stand in float16.
            rows, columns = self.tensors.shape(weight)[:2]
            matrix = self.derived(f"{weight}/rounded", (columns, rows), lambda: known.values().T)
        else:
            matrix = self.matrix(weight)
        product = self.node("MatMul", value, matrix)
        return product if bias is None else self.node("Add", product, self.weight(bias))

    def linears(self, value: str, weights: Sequence[str]) -> list[str]:
        blocks = [part for part in map(self._linears.get, weights) if _has_four_bits(part)]
        if len(blocks) < len(weights) or len({part.columns for part in blocks}) > 1:
            return [self.linear(value, weight) for weight in weights]
        product = self.node("MatMul", value, self._int4_matrix(JOIN.join(weights), blocks))
        rows = self.constant([part.rows for part in blocks], "int64")
        return self.node_with_outputs("Split", [product, rows], [self._new_name("part") for _ in blocks], axis=-1)

    def derived(self, name: str, shape: tuple[int, ...], read: Callable[[], np.ndarray], exact: bool = False) -> str:
        dtype = "float32" if exact or len(shape) < 2 else self.half
        self._types[name] = dtype
        if len(shape) < 2 and not exact:
            self._following.add(name)
        return self._declare(name, np.dtype(dtype), tuple(shape), read)

    def _int4_matrix(self, name: str, parts: Sequence[BlockWeight]) -> str:
        """[in, out] in half, the parts' outputs side by side: integers of 4 bits, a scale for BLOCK inputs of an output."""
        integers, scales = f"{name}/int4", f"{name}/int4_scales"
        columns, rows = parts[0].columns, sum(part.rows for part in parts)
        self._int4_shapes[integers] = (columns, rows)
        self._types[scales] = self.half
        self._declare(integers, np.dtype(np.uint8), (columns * rows // 2,), lambda: packed_int4(joined(parts)))
        self._declare(
            scales, np.dtype(self.half), (columns // BLOCK, rows), lambda: np.concatenate([part.scales for part in parts]).T
        )
        return self.node("DequantizeLinear", integers, scales, axis=0, block_size=BLOCK)

    def _declare(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], read: Callable[[], np.ndarray]) -> str:
        found = self._elsewhere.get((name, dtype, shape))
        if found is None:
            return super()._declare(name, dtype, shape, read)
        self._taken[name] = found
        return name

    def _stored_weights(self, data_file: str) -> Iterator[onnx.TensorProto]:
        placed = [(data_file, weight) for weight in self.weights()]
        for file, weight in [*placed, *self._taken.values()]:
            proto = external(weight, file)
            if weight.name in self._int4_shapes:
                proto.data_type = TensorProto.INT4
                proto.dims[:] = self._int4_shapes[weight.name]
            yield proto

    def _is_float(self, value: str) -> bool:
        return self._types.get(value) in _ELEMENTS

    def _common_type(self, operator: str, inputs: Sequence[str]) -> str:
        """The floating-point type that a node's inputs are brought to."""
        if operator in _PRODUCTS:
            return self.half
        deciding = {self._types[value] for value in inputs if self._is_float(value) and value not in self._following}
        return self.half if operator not in _WIDE and deciding == {self.half} else "float32"

    def _result_type(self, operator: str, inputs: Sequence[str], wanted: str, attributes: Mapping[str, Any]) -> str:
        if operator == "Cast":
            return _NAMES[attributes["to"]]
        if operator in _COMPARISONS:
            return "bool"
        if operator == "Shape":
            return "int64"
        if any(self._is_float(value) for value in inputs):
            return wanted
        return self._types.get(inputs[0], "int64")

    def _as(self, value: str, dtype: str) -> str:
        """A floating-point value in another type; each is cast once."""
        if self._types[value] == dtype:
            return value
        if value in self._constants:
            return self.constant(numpy_helper.to_array(self._constants[value]), dtype)
        if (value, dtype) not in self._casts:
            cast = f"{value}/{dtype}"
            super().node_with_outputs("Cast", [value], [cast], to=_ELEMENTS[dtype])
            self._types[cast] = dtype
            self._casts[value, dtype] = cast
        return self._casts[value, dtype]


def packed_int4(stored: BlockWeight) -> np.ndarray:
    """The integers of 4 bits as ONNX stores an INT4 tensor [in, out], out even: two to a byte, the earlier in the lower half."""
    flat = stored.integers().reshape(stored.rows, -1)[:, : stored.columns].T.reshape(-1).view(np.uint8) & 15
    return flat[0::2] | (flat[1::2] << 4)


def _has_four_bits(weight: LinearWeight | None) -> TypeGuard[BlockWeight]:
    """Whether TensorRT takes the blocks as they are: whole ones, of 4 bits, and rows that begin with a byte."""
    return isinstance(weight, BlockWeight) and weight.bits == 4 and weight.columns % BLOCK == 0 and weight.rows % 2 == 0


def _form(weight: Weight) -> tuple[str, np.dtype[Any], tuple[int, ...]]:
    return weight.name, weight.dtype, weight.shape

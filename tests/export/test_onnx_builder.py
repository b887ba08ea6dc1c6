"""Graphs built node by node, their weights read only when written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mobilevlm_ros.checkpoint.reader import Tensors
from mobilevlm_ros.export.errors import ExportError
from mobilevlm_ros.export.linear_weights import to_blocks
from mobilevlm_ros.export.onnx_builder import ALIGNMENT, MICROSOFT, OPSET, GraphBuilder, Weight, stored
from mobilevlm_ros.export.writer import PackageWriter
from mobilevlm_ros.runtime.manifest import Precision
from tests.export.graph_runner import open_graph


class Given(Tensors):
    """Tensors from a dictionary, counting how often each is read."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.where = "test"
        self.files = ()
        self.reads: list[str] = []
        self._tensors = tensors

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def __getitem__(self, name: str) -> Tensor:
        self.reads.append(name)
        return self._tensors[name]

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def builder(precision: Precision = Precision.FP32, **tensors: Tensor) -> GraphBuilder:
    return GraphBuilder("test", Given(tensors), precision)


def weight(read: Callable[[], np.ndarray], dtype: type = np.float32, shape: tuple[int, ...] = (2,)) -> Weight:
    return Weight("w", np.dtype(dtype), shape, 0, read)


def ignore(name: str, size: int) -> None:
    pass


@pytest.mark.parametrize(("precision", "tolerance"), [(Precision.FP32, 1e-6), (Precision.FP16, 2e-3)])
def test_a_linear_layer_computes_what_torch_computes(tmp_path: Path, precision: Precision, tolerance: float) -> None:
    layer = torch.nn.Linear(8, 5)
    graph = builder(precision, w=layer.weight.detach(), b=layer.bias.detach())
    graph.output("y", graph.linear(graph.input("x", "float32", ["N", 8]), "w", "b"), ["N", 5])
    with PackageWriter(tmp_path / "p") as writer:
        writer.graph("g.onnx", graph, {"": OPSET}, ignore)
        session = open_graph(writer.path / "g.onnx")
        x = torch.rand(3, 8)
        (y,) = session.run(None, {"x": x.numpy()})
    np.testing.assert_allclose(y, layer(x).detach().numpy(), atol=tolerance)


@pytest.mark.parametrize(("bits", "products"), [((4, 4, 4), 1), ((8, 8, 8), 1), ((4, 8, 4), 3)])
def test_linear_maps_stored_in_blocks_alike_are_one_product(tmp_path: Path, bits: tuple[int, ...], products: int) -> None:
    matrices = {name: torch.randn(rows, 256) for name, rows in (("a", 5), ("b", 3), ("c", 7))}
    blocks = {name: to_blocks(matrix.numpy(), wanted) for (name, matrix), wanted in zip(matrices.items(), bits)}
    graph = GraphBuilder("test", Given(matrices), Precision.INT4, blocks)
    parts = graph.linears(graph.input("x", "float32", ["N", 256]), list(blocks))
    for name, part in zip(blocks, parts):
        graph.output(f"y_{name}", part, ["N", blocks[name].rows])
    opsets = {"": OPSET, MICROSOFT: 1}
    assert sum(node.op_type == "MatMulNBits" for node in graph.model("g", opsets).graph.node) == products
    with PackageWriter(tmp_path / "p") as writer:
        writer.graph("g.onnx", graph, opsets, ignore)
        session = open_graph(writer.path / "g.onnx")
        x = np.random.default_rng(0).standard_normal((3, 256), np.float32)
        found = session.run(None, {"x": x})
    for block, result in zip(blocks.values(), found):
        # The product's input is rounded to 8 bits.
        np.testing.assert_allclose(result, x @ block.values().T, atol=0.02 * np.abs(x).max() * 16)


def test_declaring_reads_nothing_and_the_graph_holds_no_weight() -> None:
    graph = builder(big=torch.rand(500, 500))
    graph.output("y", graph.linear(graph.input("x", "float32", ["N", 500]), "big"), ["N", 500])
    assert graph.model("g.data", {"": OPSET}).ByteSize() < 1000
    assert graph.tensors.reads == []  # type: ignore[attr-defined]


def test_a_weight_used_twice_is_stored_once() -> None:
    graph = builder(w=torch.rand(4, 4))
    assert graph.matrix("w") == graph.matrix("w")
    assert len(list(graph.weights())) == 1


@given(shapes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=8), half=st.booleans())
def test_weights_lie_aligned_and_apart(shapes: list[tuple[int, int]], half: bool) -> None:
    graph = builder(Precision.FP16 if half else Precision.FP32, **{f"w{i}": torch.zeros(s) for i, s in enumerate(shapes)})
    for index in range(len(shapes)):
        graph.matrix(f"w{index}")
    end = 0
    for entry in graph.weights():
        assert entry.offset % ALIGNMENT == 0
        assert end <= entry.offset < end + ALIGNMENT
        end = entry.offset + entry.size


def test_fp16_keeps_vectors_and_what_must_be_exact_in_float32() -> None:
    graph = builder(Precision.FP16, vector=torch.rand(4), matrix=torch.rand(4, 4))
    graph.weight("vector")
    graph.matrix("matrix")
    graph.derived("table", (2, 2), lambda: np.zeros((2, 2), np.float32), exact=True)
    assert [entry.dtype.name for entry in graph.weights()] == ["float32", "float16", "float32"]


def test_equal_constants_are_one_and_others_are_not() -> None:
    graph = builder()
    assert graph.constant([1, 2], "int64") == graph.constant([1, 2], "int64")
    names = {graph.constant([1], "int64"), graph.constant(1, "int64"), graph.constant(1.0), graph.constant([2], "int64")}
    assert len(names) == 4


@pytest.mark.parametrize(("value", "dtype"), [(np.nan, np.float32), (np.inf, np.float32), (70000.0, np.float16)])
def test_values_that_cannot_be_stored_are_refused_by_name(value: float, dtype: type) -> None:
    with pytest.raises(ExportError, match="tensor w holds values"):
        stored(weight(lambda: np.array([1.0, value], np.float32), dtype))


def test_a_weight_of_another_shape_than_declared_is_refused() -> None:
    with pytest.raises(ExportError, match=r"\[3\], expected \[2\]"):
        stored(weight(lambda: np.zeros(3, np.float32)))

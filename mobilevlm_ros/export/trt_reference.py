"""Runs the graphs for TensorRT in ONNX Runtime on the CPU, as the reference of their numbers, and measures their range.

Optimisations are off, so that what runs is what the file says, with one exception: where ONNX Runtime has no float16 arithmetic
it computes in float32 and leaves roundings between two such operators out. So what float16 cannot hold would go unnoticed, and
the largest magnitude of every float16 value is measured. Knows the interface that `trt_cache` describes and nothing of TensorRT.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
from onnx import TensorProto, helper

LARGEST_HALF = float(np.finfo(np.float16).max)

_RANGE = "range/"
_MOVING = frozenset({"Concat", "GatherND", "Reshape", "Slice", "Split", "TensorScatter", "Transpose", "Unsqueeze", "Where"})
"""Operators that compute no new values; Where puts the least one there is in the place of what is masked."""
_DTYPES: dict[int, np.dtype[Any]] = {TensorProto.FLOAT: np.dtype(np.float32), TensorProto.FLOAT16: np.dtype(np.float16)}


class RunnableGraph(Protocol):
    """A graph that can be run."""

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Types of the inputs (onnx.TypeProto.Tensor), by name."""

    def run(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Every output, by name."""


class ReferenceGraph:
    """Implements `RunnableGraph`.

    `largest` is the largest magnitude that a float16 value has had in any run so far; NaN and what float16 cannot hold count as
    infinite.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        self.largest = 0.0
        model = onnx.load(str(path), load_external_data=False)
        self.inputs: Mapping[str, Any] = {value.name: value.type.tensor_type for value in model.graph.input}
        _measure_ranges(model)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self._outputs = [entry.name for entry in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        found = dict(zip(self._outputs, self._session.run(self._outputs, dict(feeds))))
        for name in [name for name in found if name.startswith(_RANGE)]:
            magnitude = float(found.pop(name))
            # Written so that a NaN counts.
            self.largest = max(self.largest, magnitude if magnitude <= LARGEST_HALF else np.inf)
        return found


class ReferenceDecoder:
    """A decoder graph of either TensorRT dialect, and caches for `rows` sequences of up to `capacity` positions.

    Attributes:
        past: positions filled in each row.
        cache: half [rows, kv_heads, capacity, head_dim], by the names of the graph's inputs.
    """

    def __init__(self, graph: RunnableGraph, rows: int, capacity: int) -> None:
        self._graph = graph
        self.past = [0] * rows
        self.cache: dict[str, np.ndarray] = {}
        for name, kind in graph.inputs.items():
            if name.startswith("past_"):
                _, heads, _, width = (axis.dim_value for axis in kind.shape.dim)
                self.cache[name] = np.zeros((rows, heads, capacity, width), _DTYPES[kind.elem_type])

    def prefill(self, row: int, embeddings: np.ndarray, logits_at: Sequence[int], padding: int = 0) -> np.ndarray:
        """Appends embeddings [S, hidden] to a row, with as many tokens of padding behind; logits [len(logits_at), vocab]."""
        padded = np.pad(embeddings, ((0, padding), (0, 0)), constant_values=1)
        return self._run([row], padded[None], [list(logits_at)], len(embeddings))[0]

    def decode(self, embeddings: np.ndarray) -> np.ndarray:
        """Appends one embedding to each of the first rows: [rows, hidden] to logits [rows, vocab]."""
        rows = list(range(len(embeddings)))
        return self._run(rows, embeddings[:, None], [[0]] * len(rows), 1)[:, 0]

    def _run(self, rows: list[int], embeddings: np.ndarray, logits_at: list[list[int]], valid: int) -> np.ndarray:
        part = slice(rows[0], rows[-1] + 1)
        starts = np.array([self.past[row] for row in rows], np.int64)
        found = self._graph.run(
            {
                "inputs_embeds": np.ascontiguousarray(embeddings, np.float32),
                "position_ids": starts[:, None] + np.arange(embeddings.shape[1], dtype=np.int64),
                "logits_at": np.array(logits_at, np.int64).reshape(len(rows), -1),
                **{name: values[part] for name, values in self.cache.items()},
            }
        )
        for name, values in self.cache.items():
            kind = name.removeprefix("past_")
            if f"present_{kind}" in found:
                values[part] = found[f"present_{kind}"]
                continue
            for row, start, new in zip(rows, starts, found[f"new_{kind}"]):
                values[row, :, start : start + valid] = new[:, :valid]
        for row in rows:
            self.past[row] += valid
        return np.asarray(found["logits"])


def can_run(graph: Path) -> bool:
    """Whether this ONNX Runtime knows the operators of the graph; versions before 1.24 lack those of opset 24."""
    import onnxruntime

    wanted = max(entry.version for entry in onnx.load(str(graph), load_external_data=False).opset_import)
    major, minor = onnxruntime.__version__.split(".")[:2]
    return wanted <= 21 or (int(major), int(minor)) >= (1, 24)


def _measure_ranges(model: onnx.ModelProto) -> None:
    """Adds an output `range/...` with the largest magnitude of each float16 value that a run computes from its inputs."""
    constant = {tensor.name for tensor in model.graph.initializer}
    values = [name for node in _computed(model.graph, constant) if node.op_type not in _MOVING for name in node.output]
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in [*inferred.value_info, *inferred.output]}
    for name in values:
        if types[name] == TensorProto.FLOAT16:
            model.graph.node.append(helper.make_node("Abs", [name], [f"abs/{name}"]))
            model.graph.node.append(helper.make_node("ReduceMax", [f"abs/{name}"], [f"max/{name}"], keepdims=0))
            model.graph.node.append(helper.make_node("Cast", [f"max/{name}"], [f"{_RANGE}{name}"], to=TensorProto.FLOAT))
            model.graph.output.append(helper.make_tensor_value_info(f"{_RANGE}{name}", TensorProto.FLOAT, []))


def _computed(graph: onnx.GraphProto, constant: set[str]) -> Iterator[onnx.NodeProto]:
    """The nodes that do more than bring weights into another form."""
    for node in graph.node:
        if set(node.input) <= constant:
            constant.update(node.output)
        else:
            yield node

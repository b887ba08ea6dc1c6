"""The portable graphs use only operators and types that the ONNX parser of TensorRT 10.1 takes, by its own list.

10.3 takes what 10.1 takes. This proves that the parser knows the operators, not that TensorRT builds the graphs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mobilevlm_ros.checkpoint.config import ProjectorKind
from mobilevlm_ros.export.trt_graphs import Target
from mobilevlm_ros.runtime.manifest import Precision
from tests.export.trt_graphs import int4_model, random_model, write_graphs
from tests.make_checkpoint import tiny_config

RECORD = Path(__file__).resolve().parents[1] / "data" / "tensorrt" / "operators-10.1.txt"
TYPES = {
    TensorProto.FLOAT: "FP32",
    TensorProto.FLOAT16: "FP16",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.INT4: "INT4",
    TensorProto.UINT8: "UINT8",
    TensorProto.BOOL: "BOOL",
}
AXES = {"ReduceMean": 1, "Slice": 3, "Squeeze": 1, "Unsqueeze": 1}
"""Operators whose axes must be constants, and which input those are."""
NEWEST_OPSET = 21
MODELS = {
    "fp16": (tiny_config(), Precision.FP16),
    "fp16 with fewer key-value heads": (tiny_config(heads=4, kv_heads=2), Precision.FP16),
    "ldp": (tiny_config(ProjectorKind.LDP, layers=1), Precision.FP16),
    "v2, windows that overlap": (tiny_config(layers=1, image_size=224), Precision.FP16),
    "int4": (tiny_config(hidden=128, heads=4, mlp=256), Precision.INT4),
    "fp32": (tiny_config(), Precision.FP32),
}


def operators() -> dict[str, frozenset[str]]:
    """Element types by operator."""
    lines = RECORD.read_text(encoding="utf-8").splitlines()[1:]
    return {line.split()[0]: frozenset(line.split()[1:]) for line in lines}


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    found = {value.name: value.type.tensor_type.elem_type for value in [*graph.value_info, *graph.input, *graph.output]}
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}


def complaints(model: onnx.ModelProto) -> list[str]:
    """What of a graph the list does not allow."""
    known, types = operators(), element_types(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    found = [f"operator set {entry.version}" for entry in model.opset_import if entry.version > NEWEST_OPSET or entry.domain]
    for node in model.graph.node:
        if node.op_type not in known:
            found.append(f"{node.op_type} is not on the list")
            continue
        # The list tells the types of what is computed: the first input, and for a choice the second.
        used = TYPES[types[node.input[1 if node.op_type == "Where" else 0]]]
        if used not in known[node.op_type]:
            found.append(f"{node.op_type} of {used}")
        if node.op_type in AXES and node.input[AXES[node.op_type] :] and node.input[AXES[node.op_type]] not in constants:
            found.append(f"{node.name}: axes are computed")
    return found


@pytest.mark.parametrize("name", MODELS)
def test_operators_and_types_are_on_the_list(tmp_path: Path, name: str) -> None:
    config, precision = MODELS[name]
    model = int4_model(config) if precision is Precision.INT4 else random_model(config)
    write_graphs(tmp_path, model, precision, Target.TRT_PORTABLE)
    for graph in ("decoder.trt-portable.onnx", "vision.trt.onnx"):
        assert complaints(onnx.load(tmp_path / graph)) == []


def test_the_fused_decoder_is_not_for_that_version(tmp_path: Path) -> None:
    write_graphs(tmp_path, random_model(tiny_config()), Precision.FP16, Target.TRT)
    found = complaints(onnx.load(tmp_path / "decoder.trt.onnx"))
    assert {"operator set 24", "RMSNormalization is not on the list", "TensorScatter is not on the list"} <= set(found)


def test_bytes_that_are_not_cast_first_are_found() -> None:
    picture = helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 4, 4, 3])
    turned = helper.make_tensor_value_info("y", TensorProto.UINT8, [1, 3, 4, 4])
    node = helper.make_node("Transpose", ["x"], ["y"], perm=[0, 3, 1, 2])
    model = helper.make_model(helper.make_graph([node], "g", [picture], [turned]), opset_imports=[helper.make_opsetid("", 17)])
    assert complaints(model) == ["Transpose of UINT8"]


def test_integers_of_4_bits_are_blocked_along_one_axis_and_rows_begin_with_a_byte(tmp_path: Path) -> None:
    write_graphs(tmp_path, int4_model(tiny_config(hidden=128, heads=4, mlp=256)), Precision.INT4, Target.TRT_PORTABLE)
    model = onnx.load(tmp_path / "decoder.trt-portable.onnx")
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert len(nodes) == 2 * 4  # q, k and v as one; o; gate and up as one; down
    for node in nodes:
        integers, scales = (shapes[name] for name in node.input)
        assert len(node.input) == 2 and integers[-1] % 2 == 0
        assert (np.array(integers) / scales).tolist() == [128, 1]

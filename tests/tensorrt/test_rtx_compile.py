"""TensorRT-RTX parses and compiles every graph, without a GPU: "compiled by TensorRT-RTX, not run on TensorRT".

Its parser is of TensorRT 11's time, so that nothing here says that an older TensorRT takes a graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from mobilevlm_ros.checkpoint.config import ProjectorKind
from mobilevlm_ros.export.trt_graphs import Target
from mobilevlm_ros.runtime.manifest import Precision
from tests.export.trt_graphs import int4_model, random_model, write_graphs
from tests.make_checkpoint import tiny_config
from tests.tensorrt.rtx import REASON, compile_model, compiled

pytest.importorskip("tensorrt_rtx_bindings", reason=REASON)

DECODERS = ("decoder.trt.onnx", "decoder.trt-portable.onnx")
# With fewer than three heads TensorRT-RTX has no fused attention; all released models have 16 or more.
HEADS = {"heads of 128": 128, "heads of 80": 80}
Nodes = list[Any]


@pytest.mark.parametrize("head_dim", HEADS.values(), ids=HEADS)
def test_float16_decoders_compile(tmp_path: Path, head_dim: int) -> None:
    model = random_model(tiny_config(hidden=4 * head_dim, heads=4, head_dim=head_dim))
    write_graphs(tmp_path, model, Precision.FP16)
    for name in DECODERS:
        assert compiled(tmp_path / name) > 0


def test_decoders_with_fewer_key_value_heads_compile(tmp_path: Path) -> None:
    write_graphs(tmp_path, random_model(tiny_config(heads=4, kv_heads=2)), Precision.FP16)
    for name in DECODERS:
        assert compiled(tmp_path / name) > 0


def test_decoders_in_four_bits_compile_and_stay_in_four_bits(tmp_path: Path) -> None:
    config = tiny_config(hidden=512, heads=4, layers=2, mlp=1024)
    write_graphs(tmp_path / "half", random_model(config), Precision.FP16)
    write_graphs(tmp_path / "int4", int4_model(config), Precision.INT4)
    for name in DECODERS:
        saved = compiled(tmp_path / "half" / name) - compiled(tmp_path / "int4" / name)
        # Each layer's 4 + 2 maps of 512 x 512 and 512 x 1024 take 2 bytes a weight, or half a byte and the scales.
        weights = 2 * (4 * 512 * 512 + 3 * 512 * 1024)
        assert saved > 1.2 * weights


@pytest.mark.parametrize("projector", ProjectorKind)
def test_vision_compiles_with_both_projectors(tmp_path: Path, projector: ProjectorKind) -> None:
    write_graphs(tmp_path, random_model(tiny_config(projector, image_size=336)), Precision.FP16, Target.TRT)
    assert compiled(tmp_path / "vision.trt.onnx") > 0


def test_graphs_in_float32_compile(tmp_path: Path) -> None:
    write_graphs(tmp_path, random_model(tiny_config()), Precision.FP32)
    for name in ("decoder.trt-portable.onnx", "vision.trt.onnx"):
        assert compiled(tmp_path / name) > 0


def test_a_cache_of_no_fixed_length_is_refused(tmp_path: Path) -> None:
    write_graphs(tmp_path, random_model(tiny_config()), Precision.FP16, Target.TRT)
    with pytest.raises(ValueError, match="static sequence length"):
        compile_model((tmp_path / "decoder.trt.onnx").read_bytes(), tmp_path / "decoder.trt.onnx")


def graph_of(nodes: Nodes, outputs: Mapping[str, int], weights: Mapping[str, Any], opset: int = 24) -> bytes:
    """A serialized model over the inputs `x` float16 [1, 4, 16, 16] and `wide` float32 of the same shape."""
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT16, [1, 4, 16, 16]),
        helper.make_tensor_value_info("wide", TensorProto.FLOAT, [1, 4, 16, 16]),
    ]
    tensors = [
        values if isinstance(values, TensorProto) else numpy_helper.from_array(np.asarray(values), name)
        for name, values in weights.items()
    ]
    given = [helper.make_tensor_value_info(name, dtype, None) for name, dtype in outputs.items()]
    graph = helper.make_graph(nodes, "refused", inputs, given, tensors)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


def four_bits(name: str, kind: int, shape: list[int]) -> TensorProto:
    return TensorProto(name=name, data_type=kind, dims=shape, raw_data=bytes([0x21]) * (int(np.prod(shape)) // 2))


SCALES = np.full((1, 32), 0.1, np.float16)
REFUSED = {
    "4 bits with zero points": (
        "zero point is not supported",
        [
            helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=0, block_size=16),
            helper.make_node("MatMul", ["x", "d"], ["y"]),
        ],
        {"w": four_bits("w", TensorProto.INT4, [16, 32]), "s": SCALES, "z": four_bits("z", TensorProto.INT4, [1, 32])},
    ),
    "unsigned 4 bits": (
        "Failed to import initializer: w",
        [
            helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=0, block_size=16),
            helper.make_node("MatMul", ["x", "d"], ["y"]),
        ],
        {"w": four_bits("w", TensorProto.UINT4, [16, 32]), "s": SCALES},
    ),
    "ONNX Runtime's MatMulNBits": (
        "MatMulNBits plugin",
        [
            helper.make_node("Reshape", ["x", "shape"], ["rows"]),
            helper.make_node(
                "MatMulNBits", ["rows", "w", "s"], ["y"], domain="com.microsoft", K=128, N=32, bits=4, block_size=128
            ),
        ],
        {"w": np.zeros((32, 1, 64), np.uint8), "s": np.ones((32, 1), np.float16), "shape": np.array([1, 8, 128])},
    ),
    "a product of float16 and float32": ("must have same input types", [helper.make_node("MatMul", ["x", "wide"], ["y"])], {}),
    "attention that makes its own cache": (
        "only supports Attention nodes with one output",
        [helper.make_node("Attention", ["x", "x", "x", "", "x", "x"], ["y", "present_key", "present_value"])],
        {},
    ),
    "a cache that goes round": (
        "Only linear mode is supported",
        [helper.make_node("TensorScatter", ["x", "x", "at"], ["y"], axis=-2, mode="circular")],
        {"at": np.zeros(1, np.int64)},
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_graphs_avoid_is_refused_indeed(name: str) -> None:
    reason, nodes, weights = REFUSED[name]
    with pytest.raises(ValueError, match=reason):
        compile_model(graph_of(nodes, {"y": TensorProto.FLOAT16}, weights))


def test_four_bits_without_zero_points_pass_where_those_with_them_do_not() -> None:
    _, nodes, weights = REFUSED["4 bits with zero points"]
    plain = [helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=0, block_size=16), nodes[1]]
    assert compile_model(graph_of(plain, {"y": TensorProto.FLOAT16}, {key: weights[key] for key in ("w", "s")})) > 0

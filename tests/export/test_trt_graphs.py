"""The graphs for TensorRT against PyTorch: this proves their numbers, not that TensorRT takes them.

Float32 graphs run in ONNX Runtime, float16 ones in an evaluator that rounds every value.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import Tensor

from mobilevlm_ros.checkpoint.config import ProjectorKind
from mobilevlm_ros.checkpoint.model import VISION_PREFIX
from mobilevlm_ros.checkpoint.reader import load_model
from mobilevlm_ros.cli.main import main
from mobilevlm_ros.export.adapter import AdapterOptions, convert_adapter
from mobilevlm_ros.export.convert import ConvertOptions, convert
from mobilevlm_ros.export.errors import ExportError
from mobilevlm_ros.export.trt_graphs import Target
from mobilevlm_ros.export.trt_reference import LARGEST_HALF, ReferenceDecoder, ReferenceGraph, can_run
from mobilevlm_ros.runtime.errors import PackageError
from mobilevlm_ros.runtime.manifest import Precision
from mobilevlm_ros.runtime.package import ModelPackage
from tests.export.trt_graphs import (
    DECODERS,
    RoundedGraph,
    any_graph,
    decoder_difference,
    int4_model,
    random_model,
    vision_difference,
    write_graphs,
)
from tests.make_adapter import write_lora
from tests.make_checkpoint import tiny_config, write_checkpoint

EXACT = 1e-5
HALF = 3e-3
"""Float16 has steps of 1e-3; errors of two layers add up to a little more."""
CONFIGS = {
    "heads of 80 as in the 3B": tiny_config(hidden=320, heads=4, head_dim=80),
    "heads of 128 as in the 1.7B": tiny_config(hidden=256, heads=2, head_dim=128),
    "fewer key-value heads": tiny_config(heads=4, kv_heads=2),
    "heads that do not make up the width": tiny_config(hidden=64, heads=2, head_dim=48),
    "tied embeddings": tiny_config(layers=1, tied=True),
}
VISION = {
    "ldp": tiny_config(ProjectorKind.LDP, hidden=80, heads=5),
    "v2, two patches to a token": tiny_config(image_size=336),
    "v2, windows that overlap": tiny_config(image_size=224),
}


@pytest.mark.parametrize("dialect", DECODERS)
@pytest.mark.parametrize("name", CONFIGS)
def test_a_prefill_in_parts_and_single_steps_give_the_logits_of_pytorch(tmp_path: Path, name: str, dialect: str) -> None:
    model = random_model(CONFIGS[name])
    assert decoder_difference(write_graphs(tmp_path / "exact", model, Precision.FP32), model, dialect) < EXACT
    assert decoder_difference(write_graphs(tmp_path / "half", model, Precision.FP16), model, dialect, RoundedGraph) < HALF


@pytest.mark.parametrize("dialect", DECODERS)
def test_four_bits_give_the_logits_of_the_rounded_weights(tmp_path: Path, dialect: str) -> None:
    model = int4_model(tiny_config(hidden=256, heads=2, mlp=384))
    assert decoder_difference(write_graphs(tmp_path, model, Precision.INT4), model, dialect, RoundedGraph) < HALF


@pytest.mark.parametrize("name", VISION)
def test_visual_tokens_are_those_of_pytorch(tmp_path: Path, name: str) -> None:
    model = random_model(VISION[name])
    assert vision_difference(write_graphs(tmp_path / "exact", model, Precision.FP32, Target.TRT), model) < EXACT
    assert vision_difference(write_graphs(tmp_path / "half", model, Precision.FP16, Target.TRT), model, RoundedGraph) < HALF


def grow_residuals(tensors: dict[str, Tensor]) -> None:
    """Everything that is added to the decoder's residual stream 300 times as large, and one channel beyond float16's range.

    Normalisation takes the factor out again, so that products stay as they were: massive activations, as Llamas have them.
    """
    for name, tensor in tensors.items():
        if name.endswith(("embed_tokens.weight", "o_proj.weight", "down_proj.weight")) and "vision" not in name:
            tensor *= 300
    for number in range(3):
        tensors[f"model.layers.{number}.self_attn.o_proj.weight"][3] *= 30
    tensors["model.embed_tokens.weight"][:, 3] = 64000


@pytest.mark.parametrize("dialect", DECODERS)
def test_a_residual_stream_beyond_the_range_of_float16_is_kept(tmp_path: Path, dialect: str) -> None:
    model = random_model(tiny_config(layers=3), grow_residuals)
    with torch.no_grad():
        states = load_model(model.tensors, model.config).language.model(torch.arange(3, 27)[None], output_hidden_states=True)
    assert max(float(hidden.abs().max()) for hidden in states.hidden_states[:-1]) > LARGEST_HALF
    assert decoder_difference(write_graphs(tmp_path, model, Precision.FP16), model, dialect, RoundedGraph) < HALF


def grow_tower(tensors: dict[str, Tensor]) -> None:
    """A channel of the tower's stream near the end of float16's range, whose square is far beyond it."""
    tensors[f"{VISION_PREFIX}pre_layrnorm.bias"][5] = 30000
    for name, tensor in tensors.items():
        if name.startswith(VISION_PREFIX) and ("fc2" in name or "out_proj" in name or "pre_layrnorm.weight" in name):
            tensor *= 300


def test_a_towers_outlying_channel_is_kept(tmp_path: Path) -> None:
    model = random_model(tiny_config(image_size=168), grow_tower)
    assert vision_difference(write_graphs(tmp_path, model, Precision.FP16, Target.TRT), model, RoundedGraph) < HALF


def test_padding_and_what_an_earlier_answer_left_in_the_cache_do_not_matter(tmp_path: Path) -> None:
    model = random_model(tiny_config())
    write_graphs(tmp_path, model, Precision.FP16)
    ids = list(range(10, 20))
    for dialect in DECODERS:
        clean, used = (ReferenceDecoder(any_graph(tmp_path / f"decoder.{dialect}.onnx"), 1, 32) for _ in range(2))
        used.prefill(0, model.embed(list(range(30, 60))), [0])
        used.past[0] = 0
        expected = clean.prefill(0, model.embed(ids), [9, 2])
        np.testing.assert_allclose(used.prefill(0, model.embed(ids), [9, 2], padding=5), expected, atol=1e-3)


@pytest.mark.parametrize("dialect", DECODERS)
def test_the_largest_value_in_float16_is_measured_though_it_is_beyond_its_range(tmp_path: Path, dialect: str) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors["model.layers.1.mlp.up_proj.weight"] *= factor

    reached = []
    for factor in (1.0, 1000.0, 1e5):
        model = random_model(tiny_config(), change)
        path = write_graphs(tmp_path / str(factor), model, Precision.FP16) / f"decoder.{dialect}.onnx"
        if not can_run(path):
            pytest.skip("this ONNX Runtime is too old for the graph")
        graph = ReferenceGraph(path)
        ReferenceDecoder(graph, 1, 32).prefill(0, model.embed([5, 6, 7]), [2])
        reached.append(graph.largest)
    assert 1 < reached[0] < 20
    assert 500 * reached[0] < reached[1] < 3000 * reached[0]
    assert reached[2] == np.inf


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT4])
def test_every_type_is_said_and_every_product_is_float16(tmp_path: Path, precision: Precision) -> None:
    make = int4_model if precision is Precision.INT4 else random_model
    write_graphs(tmp_path, make(tiny_config(hidden=128, heads=4, mlp=128)), precision)
    for name in ("decoder.trt.onnx", "decoder.trt-portable.onnx", "vision.trt.onnx"):
        graph = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / name), check_type=True, strict_mode=True).graph
        types = {value.name: value.type.tensor_type.elem_type for value in [*graph.value_info, *graph.input, *graph.output]}
        types |= {weight.name: weight.data_type for weight in graph.initializer}
        for node in graph.node:
            inputs = {types[value] for value in node.input} & {TensorProto.FLOAT, TensorProto.FLOAT16}
            assert len(inputs) < 2, f"{name}: {node.name} mixes float16 and float32"
            if node.op_type in ("MatMul", "Conv", "Attention"):
                assert inputs == {TensorProto.FLOAT16}
            if "Normalization" in node.op_type:
                assert inputs == {TensorProto.FLOAT}


def test_the_caches_are_half_and_everything_else_outside_is_float32(tmp_path: Path) -> None:
    write_graphs(tmp_path, random_model(tiny_config(kv_heads=2)), Precision.FP16)
    graph = onnx.load(tmp_path / "decoder.trt.onnx", load_external_data=False).graph
    found = {
        value.name: (
            TensorProto.DataType.Name(value.type.tensor_type.elem_type),
            *(axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim),
        )
        for value in [*graph.input, *graph.output]
        if not value.name.endswith("_1")
    }
    cache = ("FLOAT16", "B", 2, "M", 16)
    assert found == {
        "inputs_embeds": ("FLOAT", "B", "S", 64),
        "position_ids": ("INT64", "B", "S"),
        "logits_at": ("INT64", "B", "K"),
        "logits": ("FLOAT", "B", "K", 600),
        **dict.fromkeys(("past_key_0", "past_value_0", "present_key_0", "present_value_0"), cache),
    }


def test_the_portable_decoder_gives_back_the_chunk_alone(tmp_path: Path) -> None:
    write_graphs(tmp_path, random_model(tiny_config(layers=1)), Precision.FP16)
    graph = onnx.load(tmp_path / "decoder.trt-portable.onnx", load_external_data=False).graph
    assert [value.name for value in graph.output] == ["new_key_0", "new_value_0", "logits"]
    assert [axis.dim_param for axis in graph.output[0].type.tensor_type.shape.dim] == ["B", "", "S", ""]


def test_a_conversion_for_tensorrt_writes_its_graphs_beside_the_cpus_and_shares_their_weights(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "c", tiny_config())
    convert(checkpoint, tmp_path / "p", ConvertOptions(precision=Precision.FP16, target=Target.ALL))
    package = ModelPackage.open(tmp_path / "p")
    graphs = {"vision.onnx", "decoder.cpu.onnx", "vision.trt.onnx", "decoder.trt.onnx", "decoder.trt-portable.onnx"}
    assert {name for name in package.manifest.files if name.endswith(".onnx")} == graphs
    assert package.decoder("trt-portable").graph.is_file() and package.vision_trt.graph.is_file()
    # Only the rotary tables differ; the other weights lie in the CPU's files.
    assert package.manifest.files["decoder.trt.onnx.data"].bytes == 2 * 2 * 512 * 8
    assert "decoder.trt-portable.onnx.data" not in package.manifest.files
    assert "vision.trt.onnx.data" not in package.manifest.files


def test_a_conversion_for_the_cpu_alone_has_no_other_graphs(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "c", tiny_config())
    convert(checkpoint, tmp_path / "p", ConvertOptions(verify=False))
    package = ModelPackage.open(tmp_path / "p")
    for ask in (lambda: package.decoder("trt"), lambda: package.vision_trt):
        with pytest.raises(PackageError, match="convert the checkpoint for this backend"):
            ask()


def test_eight_bits_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="--precision fp16 or int4"):
        convert(tmp_path / "none", tmp_path / "p", ConvertOptions(precision=Precision.INT8, target=Target.TRT))


def test_a_checkpoint_whose_products_leave_float16_is_refused_in_one_line(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "c", tiny_config())
    weights = torch.load(checkpoint / "pytorch_model.bin", weights_only=True)
    for part in ("gate", "up"):
        weights[f"model.layers.0.mlp.{part}_proj.weight"] *= 1000
    torch.save(weights, checkpoint / "pytorch_model.bin")
    with pytest.raises(ExportError, match="^decoder.trt-portable.onnx: float16 does not suffice for this checkpoint") as caught:
        convert(checkpoint, tmp_path / "p", ConvertOptions(precision=Precision.FP16, target=Target.TRT_PORTABLE))
    assert "\n" not in str(caught.value) and not (tmp_path / "p").exists()


def test_an_adapters_package_has_no_part_in_its_bases_graphs_for_tensorrt(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "c", tiny_config())
    base = convert(checkpoint, tmp_path / "p", ConvertOptions(precision=Precision.FP16, target=Target.ALL, verify=False)).package
    adapter = write_lora(tmp_path / "lora", checkpoint)
    package = ModelPackage.open(convert_adapter(checkpoint, adapter, base, tmp_path / "a", AdapterOptions(verify=False)).package)
    with pytest.raises(PackageError, match="decoder.trt.onnx"):
        package.decoder("trt")
    assert package.vision_trt.graph == base / "vision.trt.onnx"


def test_the_command_says_how_well_each_graph_agrees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = write_checkpoint(tmp_path / "c", tiny_config())
    words = ["convert", str(checkpoint), str(tmp_path / "p"), "--offline", "--precision", "fp16", "--backend"]
    assert main([*words, "trt-portable", "--json"]) == 0
    beside = json.loads(capsys.readouterr().out)["beside"]
    assert [graph["graph"] for graph in beside] == ["vision.trt.onnx", "decoder.trt-portable.onnx"]
    assert all(graph["difference"] < HALF for graph in beside)
    assert main([*words, "trt", "--force"]) == 0
    said = capsys.readouterr().out
    assert "vision.trt.onnx: agrees with the CPU's graph to" in said and "decoder.trt.onnx: " in said

"""Every name of TensorRT's Python module that this project uses is one that the real bindings have, from 10.3 to 11.4.

This proves names, not what they do. The record is made from the real wheels; see `bindings`.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tensorrt.api_use import all_uses, uses
from tests.tensorrt.bindings import RECORD, VERSIONS, make_stubs, names_of, record, recorded


def test_names_that_are_used_are_there_in_every_version() -> None:
    versions = recorded()
    used = [use for use in all_uses() if not use.asked]
    missing = [
        f"{use.where}: {use.name} is not in {version}"
        for use in used
        for version, names in versions.items()
        if use.name not in names
    ]
    assert missing == []


def test_names_that_are_asked_for_first_are_there_in_some_version() -> None:
    known = frozenset[str]().union(*recorded().values())
    assert [f"{use.where}: {use.name}" for use in all_uses() if use.asked and use.name not in known] == []


def test_building_and_running_are_among_what_was_found() -> None:
    found = {use.name for use in all_uses()}
    assert found >= {
        "Builder.build_serialized_network",
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "OnnxParser.parse",
        "IOptimizationProfile.set_shape",
        "Runtime.deserialize_cuda_engine",
        "ICudaEngine.device_memory_size_v2",
        "IExecutionContext.execute_async_v3",
        "IExecutionContext.set_tensor_address",
    }


def test_a_name_that_newer_versions_lack_would_be_found() -> None:
    source = """
def build(trt, network):
    builder = trt.Builder(None)
    config = builder.create_builder_config()
    config.set_flag(trt.BuilderFlag.FP16)
    if hasattr(config, "int8_calibrator"):
        config.int8_calibrator = None
"""
    found = {(use.name, use.asked) for use in uses(source, "build.py")}
    assert ("BuilderFlag.FP16", False) in found and ("IBuilderConfig.int8_calibrator", True) in found
    versions = list(recorded().values())
    assert "BuilderFlag.FP16" in versions[0] and "BuilderFlag.FP16" not in versions[-1]


@pytest.mark.parametrize(
    ("name", "marks"),
    [
        ("BuilderFlag.FP16", "xxxx."),
        ("Builder.platform_has_fast_fp16", "xxxx."),
        ("ICudaEngine.device_memory_size", "xxxx."),
        ("IExecutionContext.execute_async_v3", "xxxxx"),
        ("IRuntimeConfig", "..xxx"),
        ("INetworkDefinition.add_kv_cache_update", "...xx"),
        ("ICudaEngine.get_aliased_input_tensor", "...xx"),
    ],
)
def test_the_record_tells_versions_apart(name: str, marks: str) -> None:
    assert "".join("x" if name in names else "." for names in recorded().values()) == marks


def test_attention_may_be_decomposed_wherever_it_can_be_told_from_other_layers() -> None:
    for names in recorded().values():
        asked = {"IAttentionInputLayer", "LayerType.ATTENTION_INPUT"} <= names
        assert asked == ({"IAttentionInputLayer.attention", "IAttention.decomposable"} <= names)


def test_the_record_holds_the_versions_that_jetpacks_have() -> None:
    assert list(recorded()) == list(VERSIONS)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="making stub libraries needs gcc")
def test_stub_libraries_have_what_the_bindings_import(tmp_path: Path) -> None:
    make_stubs(tmp_path, 10)
    assert ctypes.CDLL(str(tmp_path / "libnvinfer.so.10")).createInferBuilder_INTERNAL() == 0
    assert len(list(tmp_path.glob("*.so.10"))) == 3


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="making stub libraries needs gcc")
def test_the_record_is_what_the_real_bindings_say() -> None:
    try:
        found = {version: names_of(version) for version in VERSIONS}
    except subprocess.CalledProcessError as error:
        pytest.skip(f"the wheels cannot be had or loaded here: {error}")
    assert record(found) == RECORD.read_text(encoding="utf-8")

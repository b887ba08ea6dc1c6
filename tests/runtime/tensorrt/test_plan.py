"""What is to be built, and that an engine is found again only where the very same one would be built."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.runtime.errors import BackendError
from mobilevlm_ros.runtime.package import ModelPackage
from mobilevlm_ros.runtime.tensorrt.build import input_shapes
from mobilevlm_ros.runtime.tensorrt.plan import (
    PREFILL_CHUNK,
    AxisRange,
    Machine,
    Order,
    Role,
    decoder_profiles,
    key,
    make_order,
    positions_for,
    workspace_for,
)

ORDER = Order(Role.FUSED, Path("/models/decoder.trt.onnx"), "abc", 1000, decoder_profiles(4, 512), 512, 1 << 29)
MACHINE = Machine("10.16.0", "Orin", "8.7", "36.4.3")
OTHER: dict[str, Any] = {
    "role": Role.PORTABLE,
    "weights_sha256": "def",
    "weights_bytes": 1001,
    "profiles": decoder_profiles(8, 512),
    "positions": 528,
    "workspace": 1 << 30,
    "tensorrt": "10.16.1",
    "device": "Thor",
    "compute_capability": "8.6",
    "l4t": "36.5.0",
}


@pytest.mark.parametrize("name", [field.name for field in (*fields(Order), *fields(Machine)) if field.name != "graph"])
def test_every_fact_is_in_the_key(name: str) -> None:
    order, machine = ORDER, MACHINE
    if hasattr(order, name):
        order = replace(order, **{name: OTHER[name]})
    else:
        machine = replace(machine, **{name: OTHER[name]})
    assert key(order, machine) != key(ORDER, MACHINE)


def test_where_the_package_lies_is_not_in_the_key() -> None:
    assert key(replace(ORDER, graph=Path("/elsewhere/decoder.trt.onnx")), MACHINE) == key(ORDER, MACHINE)


def test_an_order_comes_back_from_its_text() -> None:
    assert Order.from_json(ORDER.to_json()) == ORDER


@given(rows=st.integers(1, 32), context=st.integers(1, 4096))
def test_the_profiles_hold_every_request_and_rows_begin_aligned(rows: int, context: int) -> None:
    positions = positions_for(context)
    assert context <= positions < context + 16
    for head_dim in (8, 64, 80, 128):
        assert positions * head_dim * 2 % 256 == 0
    prefill, decode = ({axis.axis: axis for axis in profile} for profile in decoder_profiles(rows, positions))
    assert all(axis.least <= axis.usual <= axis.most for axis in (*prefill.values(), *decode.values()))
    assert (prefill["B"].most, decode["S"].most) == (1, 1)
    assert prefill["S"].most == min(PREFILL_CHUNK, positions)
    assert decode["B"].most >= rows


def test_programs_that_want_few_rows_share_an_engine() -> None:
    assert decoder_profiles(1, 512) == decoder_profiles(4, 512) != decoder_profiles(5, 512)


@pytest.mark.parametrize(("gib", "mib"), [(7.4, 512), (15.3, 1024), (29.9, 4096), (61.4, 4096)])
def test_a_smaller_board_gives_less_workspace(gib: float, mib: int) -> None:
    assert workspace_for(int(gib * 2**30)) == mib << 20


def test_a_changed_weight_file_changes_the_key_and_another_graph_does_not(package: ModelPackage) -> None:
    def digest(name: str) -> str:
        files = package.manifest.files
        changed = replace(files[name], sha256="0" * 64)
        manifest = replace(package.manifest, files={**files, name: changed})
        return make_order(replace(package, manifest=manifest), Role.FUSED, 4, 512, 8 << 30).weights_sha256

    before = make_order(package, Role.FUSED, 4, 512, 8 << 30).weights_sha256
    assert before not in (digest("decoder.trt.onnx"), digest("decoder.trt.onnx.data"), digest("decoder.cpu.onnx.data"))
    assert before == digest("decoder.trt-portable.onnx") == digest("vision.onnx.data") == digest("tokenizer.model")


def test_open_axes_take_their_sizes_from_the_profile() -> None:
    prefill = decoder_profiles(4, 512)[0]
    assert input_shapes("inputs_embeds", (-1, -1, 192), prefill) == [(1, 1, 192), (1, 160, 192), (1, 256, 192)]
    assert input_shapes("past_key_3", (-1, 3, 512, 64), prefill) == [(1, 3, 512, 64)] * 3
    assert input_shapes("pixels", (-1, 336, 336, 3), (AxisRange("N", 1, 1, 1),)) == [(1, 336, 336, 3)] * 3


@pytest.mark.parametrize(("name", "shape"), [("mask", (-1, 4)), ("past_key_0", (1, 3, -1, 64)), ("logits_at", (-1, -1, -1))])
def test_an_input_that_is_not_known_is_an_error_with_its_name(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(BackendError, match=f"input {name}"):
        input_shapes(name, shape, decoder_profiles(4, 512)[0])

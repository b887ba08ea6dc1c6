"""Matrices in 4 and 8 bits: what they stand for, and that ONNX Runtime multiplies with just that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.export.linear_weights import (
    BLOCK,
    CHANNEL_LEVELS,
    LinearWeight,
    block_scales,
    to_blocks,
    to_channels,
)
from mobilevlm_ros.export.onnx_builder import MICROSOFT, OPSET, GraphBuilder, stored
from mobilevlm_ros.runtime.manifest import Precision
from tests.export.tensors import NoTensors

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 300))


def matrix(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.05, (rows, columns)).astype(np.float32)


@given(SIZES, st.sampled_from([4, 8]), st.integers(0, 99))
def test_no_weight_moves_by_more_than_half_a_step_of_its_block(size: tuple[int, int], bits: int, seed: int) -> None:
    weights = matrix(*size, seed)
    rounded = to_blocks(weights, bits)
    steps = np.repeat(block_scales(weights, bits), BLOCK, axis=1)[:, : size[1]]
    assert rounded.values().shape == weights.shape
    assert (np.abs(rounded.values() - weights) <= steps / 2 * (1 + 1e-5)).all()


@given(SIZES, st.sampled_from([4, 8]), st.integers(0, 99))
def test_what_is_rounded_already_stays_as_it_is(size: tuple[int, int], bits: int, seed: int) -> None:
    once = to_blocks(matrix(*size, seed), bits)
    again = to_blocks(once.values(), bits, once.scales)
    np.testing.assert_array_equal(again.packed, once.packed)
    np.testing.assert_array_equal(again.values(), once.values())


def test_four_bits_pack_the_earlier_weight_into_the_lower_half() -> None:
    weights = np.zeros((1, BLOCK), np.float32)
    weights[0, :4] = [7, -7, 3, 0]
    rounded = to_blocks(weights, 4)
    assert rounded.scales.tolist() == [[1.0]]
    assert rounded.packed[0, 0, :3].tolist() == [15 | 1 << 4, 11 | 8 << 4, 8 | 8 << 4]
    assert rounded.size == BLOCK // 2 + 4


def test_zeros_and_a_short_last_block_are_expressed_exactly() -> None:
    weights = np.zeros((2, BLOCK + 3), np.float32)
    weights[1, -1] = -0.5
    for bits in (4, 8):
        np.testing.assert_allclose(to_blocks(weights, bits).values(), weights, rtol=1e-6)


@given(SIZES, st.integers(0, 99))
def test_channels_stay_where_pairs_of_products_fit_16_bits(size: tuple[int, int], seed: int) -> None:
    weights = matrix(*size, seed)
    rounded = to_channels(weights)
    assert np.abs(rounded.integers).max() <= CHANNEL_LEVELS
    assert np.iinfo(np.int16).max >= 2 * 255 * CHANNEL_LEVELS
    assert (np.abs(rounded.values() - weights) <= rounded.scales[:, None] / 2 * (1 + 1e-5)).all()


def product(folder: Path, weight: LinearWeight, inputs: np.ndarray) -> np.ndarray:
    """`inputs` times the weight, by ONNX Runtime and the graph that the exporter writes."""
    graph = GraphBuilder("product", NoTensors(), Precision.FP16, {"w": weight})
    value = graph.input("x", "float32", ["N", inputs.shape[1]])
    graph.output("y", graph.linear(value, "w"), ["N", weight.values().shape[0]])
    with (folder / "g.data").open("wb") as file:
        for entry in graph.weights():
            file.seek(entry.offset)
            file.write(stored(entry).tobytes())
    (folder / "g.onnx").write_bytes(graph.model("g.data", {"": OPSET, MICROSOFT: 1}).SerializeToString())
    session = ort.InferenceSession(str(folder / "g.onnx"), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["y"], {"x": inputs})[0])


@pytest.mark.parametrize("columns", [64, 128, 200, 384])
@pytest.mark.parametrize("form", ["int4 blocks", "int8 blocks", "int8 channels"])
@pytest.mark.parametrize("rows", [1, 7])
def test_onnx_runtime_multiplies_with_the_rounded_weights(tmp_path: Path, form: str, columns: int, rows: int) -> None:
    weights = matrix(48, columns)
    weight: LinearWeight = to_channels(weights) if form == "int8 channels" else to_blocks(weights, int(form[3]))
    inputs = np.random.default_rng(1).normal(size=(rows, columns)).astype(np.float32)
    expected = inputs @ weight.values().T
    # Inputs are rounded to 8 bits when they are multiplied: about one part in a hundred.
    np.testing.assert_allclose(product(tmp_path, weight, inputs), expected, atol=0.02 * np.abs(expected).max())

"""A symbolic axis of a stored graph gets its length: held against what the onnx package reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.runtime.errors import PackageError
from mobilevlm_ros.runtime.onnx_axis import fix_axis

onnx = pytest.importorskip("onnx", reason="needs onnx to read what was written")

AXES = st.one_of(st.integers(0, 2**40), st.sampled_from(["M", "S", "MM", ""]))
SHAPES = st.lists(AXES, max_size=5)


def serialized(inputs: list[list[int | str]], outputs: list[list[int | str]]) -> bytes:
    """A graph with these shapes, and with a node, a weight and texts that hold the axis' name too."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    given_, made = (
        [helper.make_tensor_value_info(f"{name}{number}", kind, shape) for number, shape in enumerate(shapes)]
        for name, shapes in (("M", inputs), ("y", outputs))
    )
    weight = helper.make_tensor("M", kind, [2], [1.0, 2.0])
    graph = helper.make_graph([helper.make_node("Add", ["M", "M"], ["y"], name="M", axis=3)], "M", given_, made, [weight])
    return bytes(helper.make_model(graph, producer_name="M", doc_string="M").SerializeToString())


@given(st.lists(SHAPES, max_size=4), st.lists(SHAPES, max_size=3), st.integers(1, 2**31))
def test_every_axis_of_that_name_and_nothing_else_changes(
    inputs: list[list[int | str]], outputs: list[list[int | str]], size: int
) -> None:
    model = serialized(inputs, outputs)
    if not any("M" in shape for shape in [*inputs, *outputs]):
        with pytest.raises(PackageError, match="no input or output of the graph has the axis M"):
            fix_axis(model, "M", size)
        return
    fixed, expected = ([[size if axis == "M" else axis for axis in shape] for shape in shapes] for shapes in (inputs, outputs))
    assert onnx.load_from_string(fix_axis(model, "M", size)) == onnx.load_from_string(serialized(fixed, expected))


@given(st.binary(max_size=60))
def test_anything_else_than_a_graph_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(PackageError) as caught:
        fix_axis(data, "M", 4)
    assert "\n" not in str(caught.value)


@given(st.integers(1, 200))
def test_a_graph_that_is_cut_short_is_refused(count: int) -> None:
    model = serialized([["M", 3]], [["M"]])
    with pytest.raises(PackageError):
        fix_axis(model[: max(1, len(model) - 40 - count)], "M", 4)


@pytest.mark.parametrize("size", [0, -1])
def test_a_length_below_one_is_refused(size: int) -> None:
    with pytest.raises(PackageError, match="wanted 1 or more"):
        fix_axis(serialized([["M"]], []), "M", size)

"""Everything that our graphs are made of runs on the newest ONNX Runtime that Python 3.10 can have, by its recorded kernels.

A check of names, versions, types, inputs and attributes alone: it needs no such runtime. Humble's robots have Python 3.10.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx
import pytest
from onnx import NodeProto, TensorProto, helper

from mobilevlm_ros.checkpoint.config import MobileVlmConfig, ProjectorKind, VisionConfig
from mobilevlm_ros.export.onnx_builder import IR_VERSION
from mobilevlm_ros.runtime.manifest import Precision
from tests.export.kernels import Kernels
from tests.make_checkpoint import tiny_config

_NEWEST_IR_OF_1_23 = 11
_FEATURES = (ProjectorKind.LDP, ProjectorKind.LDP_V2)
CONFIGS = {
    **{projector.value: tiny_config(projector) for projector in _FEATURES},
    "heads too small for fused rotation": tiny_config(heads=8, head_dim=8),
    "heads that are filled up": tiny_config(hidden=60, heads=3, head_dim=20),
    "fewer key-value heads": tiny_config(heads=4, kv_heads=2),
    "tied embeddings": tiny_config(tied=True),
    "a tower with the exact GELU": tiny_config(vision=VisionConfig(32, 72, 3, 4, 168, 14, hidden_act="gelu")),
}


def graphs(config: MobileVlmConfig, precision: Precision) -> Iterator[onnx.ModelProto]:
    """All of a package's graphs, their weights without values."""
    from bench.catalogue import Shapes, smallest_forms
    from mobilevlm_ros.checkpoint.model import expected_shapes
    from mobilevlm_ros.export.convert import build_graphs
    from mobilevlm_ros.export.prefill_builder import Prefill

    shapes = Shapes(expected_shapes(config))
    prefill = Prefill.INT8 if precision is Precision.INT4 else Prefill.SAME
    for built in build_graphs(shapes, config, precision, smallest_forms(config, shapes, precision), prefill=prefill):
        yield built.builder.model(f"{built.name}.data", built.opsets)


def missing(model: onnx.ModelProto, kernels: Kernels) -> list[str]:
    """What of a graph the recorded runtime could not run, a line each."""
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    types = {entry.name: _plain(entry.type.tensor_type.elem_type) for entry in model.graph.input}
    types.update((tensor.name, _plain(tensor.data_type)) for tensor in model.graph.initializer)
    return [line for node in model.graph.node for line in _check(node, opsets, types, kernels)]


def _check(node: NodeProto, opsets: Mapping[str, int], types: dict[str, str], kernels: Kernels) -> list[str]:
    """Checks a node and notes the types of what it gives."""
    name = f"{node.domain}.{node.op_type}"
    own = kernels.signatures.get(name)
    if own is None:
        schema = onnx.defs.get_schema(node.op_type, opsets[node.domain], node.domain)
        since, inputs = schema.since_version, [entry.type_str for entry in schema.inputs]
        outputs, attributes = [entry.type_str for entry in schema.outputs], list(schema.attributes)
        inputs += inputs[-1:] * (len(node.input) - len(inputs))  # the last of a variadic operator stands for many
        outputs += outputs[-1:] * (len(node.output) - len(outputs))
        fixed = {one.type_param_str: one.allowed_type_strs for one in schema.type_constraints}
    else:
        since, inputs, outputs, attributes, fixed = 1, list(own.inputs), list(own.outputs), list(own.attributes), {}
    found = [f"{name} has {len(node.input)} inputs, not up to {len(inputs)}"] if len(node.input) > len(inputs) else []
    found += [f"{name} has no attribute {entry.name}" for entry in node.attribute if entry.name not in attributes]
    bound = {kind: types[value] for kind, value in zip(inputs, node.input) if value in types}
    bound.update((kind, allowed[0][7:-1]) for kind, allowed in fixed.items() if len(allowed) == 1)
    for entry in node.attribute:
        if node.op_type == "Cast" and entry.name == "to":
            bound["T2"], outputs = _plain(entry.i), ["T2"]
    types.update((value, bound.get(kind, kind)) for kind, value in zip(outputs, node.output) if value)
    reason = kernels.lacks(name, since, bound)
    if reason is not None and own is None and schema.has_function:  # a runtime puts the function's nodes in its place
        inside = dict(zip(schema.function_body.input, (types[value] for value in node.input)))
        within = {entry.domain: entry.version for entry in schema.function_body.opset_import}
        return [*found, *(line for part in schema.function_body.node for line in _check(part, within, inside, kernels))]
    return [*found, *([] if reason is None else [reason])]


def _plain(kind: int) -> str:
    """ONNX Runtime's name of an element type."""
    return TensorProto.DataType.Name(kind).lower()


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    return Kernels()


@pytest.mark.parametrize("precision", Precision, ids=lambda precision: precision.value)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_operator_of_every_graph_has_a_kernel(kernels: Kernels, config: MobileVlmConfig, precision: Precision) -> None:
    checked = list(graphs(config, precision))
    assert len(checked) >= 2
    assert all(model.graph.node for model in checked)
    assert [line for model in checked for line in missing(model, kernels)] == []


def test_the_released_shapes_have_kernels_too(kernels: Kernels) -> None:
    from mobilevlm_ros.hub.catalogue import catalogue

    for entry in catalogue():
        assert [line for model in graphs(entry.config, Precision.INT4) for line in missing(model, kernels)] == []


def test_the_model_that_ships_has_kernels(kernels: Kernels) -> None:
    from mobilevlm_ros.models import shipped_package

    found = [path for path in sorted(shipped_package().glob("*.onnx")) if ".trt" not in path.name]
    assert len(found) == 2
    for path in found:
        assert missing(onnx.load(path, load_external_data=False), kernels) == []


def test_the_file_format_is_not_too_new() -> None:
    assert IR_VERSION <= _NEWEST_IR_OF_1_23


class TestTheCheckItself:
    def one_node(self, node: NodeProto, types: Sequence[int], opset: int = 17) -> onnx.ModelProto:
        inputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in zip(node.input, types)]
        graph = helper.make_graph([node], "one", inputs, [])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)])

    def test_it_finds_an_operator_that_came_later(self, kernels: Kernels) -> None:
        node = helper.make_node("TensorScatter", ["a", "b"], ["c"])
        assert missing(self.one_node(node, [1, 1], opset=24), kernels) == [".TensorScatter is not there"]

    def test_it_finds_an_attribute_that_came_later(self, kernels: Kernels) -> None:
        node = helper.make_node("MatMulNBits", ["a", "b", "s"], ["c"], domain="com.microsoft", K=1, N=1, bits=4, newer=1)
        assert missing(self.one_node(node, [1, 2, 1]), kernels) == ["com.microsoft.MatMulNBits has no attribute newer"]

    def test_it_finds_a_type_without_a_kernel(self, kernels: Kernels) -> None:
        (line,) = missing(self.one_node(helper.make_node("Softmax", ["a"], ["b"]), [TensorProto.FLOAT16]), kernels)
        assert "Softmax of version 13 is not there for {'T': 'float16'}" in line

    def test_it_finds_inputs_that_came_later(self, kernels: Kernels) -> None:
        node = helper.make_node("DynamicQuantizeMatMul", list("abcdef"), ["y"], domain="com.microsoft")
        assert missing(self.one_node(node, [1, 3, 1, 2, 1, 1]), kernels) == [
            "com.microsoft.DynamicQuantizeMatMul has 6 inputs, not up to 5"
        ]

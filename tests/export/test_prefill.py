"""A decoder of its own for prompts: as exact as one in 8 bits is, whatever single positions hold, and written where asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from mobilevlm_ros.cli.main import main
from mobilevlm_ros.export.adapter import AdapterOptions, convert_adapter
from mobilevlm_ros.export.convert import ConvertOptions, ConvertReport, convert, read_phrasings
from mobilevlm_ros.export.linear_weights import to_channels
from mobilevlm_ros.export.onnx_builder import MICROSOFT, OPSET, GraphBuilder, stored
from mobilevlm_ros.export.prefill_builder import Prefill, PrefillBuilder
from mobilevlm_ros.export.quantization import Rounding
from mobilevlm_ros.models import shipped_folder
from mobilevlm_ros.runtime.manifest import Precision
from mobilevlm_ros.runtime.ort_backend import DIALECT
from mobilevlm_ros.runtime.package import PREFILL_DIALECT, ModelPackage
from tests.conftest import PARITY
from tests.export.tensors import Given
from tests.make_checkpoint import tiny_config, write_checkpoint

NANO = shipped_folder("nano")
GRAPH = "decoder.cpu-prefill.onnx"
NAME = "model.layers.0.mlp.down_proj.weight"


def nano(target: Path, prefill: Prefill) -> ConvertReport:
    phrasings = read_phrasings(NANO / "phrasings.json")
    options = ConvertOptions(
        Precision.INT4, prefill=prefill, rounding=Rounding.NEAREST, phrasings=phrasings, examples=12, force=True
    )
    return convert(NANO / "checkpoint", target, options)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[Prefill, ConvertReport]:
    folder = tmp_path_factory.mktemp("prefill")
    return {prefill: nano(folder / prefill.value, prefill) for prefill in Prefill}


def test_it_is_two_files_more_and_changes_no_other(packages: dict[Prefill, ConvertReport]) -> None:
    same, int8 = (ModelPackage.open(packages[prefill].package) for prefill in (Prefill.SAME, Prefill.INT8))
    assert set(int8.manifest.files) - set(same.manifest.files) == {GRAPH, f"{GRAPH}.data"}
    graphs = [name for name in same.manifest.files if name.endswith((".onnx", ".data"))]
    assert {name: int8.manifest.files[name] for name in graphs} == {name: same.manifest.files[name] for name in graphs}
    assert (same.has_decoder(PREFILL_DIALECT), int8.has_decoder(PREFILL_DIALECT)) == (False, True)


def test_prompts_lose_less_than_the_four_bits_lost(packages: dict[Prefill, ConvertReport]) -> None:
    found = packages[Prefill.INT8].fidelity
    assert found is not None and found.prefill is not None
    assert found.prefill.divergence_mean < 0.003 < found.divergence_mean
    assert found.prefill.greedy_agreement > 0.97
    assert any("prompts read in 8 bits" in line for line in found.lines())


def test_the_report_of_the_rest_is_the_same_with_and_without(packages: dict[Prefill, ConvertReport]) -> None:
    same, int8 = (packages[prefill].fidelity for prefill in (Prefill.SAME, Prefill.INT8))
    assert same is not None and int8 is not None
    assert same.prefill is None
    assert (int8.divergence_mean, int8.linears) == (same.divergence_mean, same.linears)


def product(folder: Path, builder: GraphBuilder, values: np.ndarray) -> np.ndarray:
    """What a graph of one linear map makes of values [1, S, in]."""
    builder.input("x", "float32", [1, "S", values.shape[2]])
    (result,) = builder.linears("x", [NAME])
    builder.output("y", result, [1, "S", "N"])
    with (folder / "data").open("wb") as stream:
        for weight in builder.weights():
            stream.write(bytes(weight.offset - stream.tell()) + stored(weight).tobytes())
    onnx.save(builder.model("data", {"": OPSET, MICROSOFT: 1}), folder / "graph.onnx")
    session = ort.InferenceSession(str(folder / "graph.onnx"), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["y"], {"x": values})[0])


@pytest.fixture(scope="module")
def matrix() -> torch.Tensor:
    return torch.randn(48, 256, generator=torch.manual_seed(1)) / 16


@pytest.fixture
def values() -> np.ndarray:
    """Ten positions of unit size, but for one that is a thousand times as large and one of zeros."""
    values = np.random.default_rng(2).standard_normal((1, 10, 256)).astype(np.float32)
    values[0, 4] *= 1000
    values[0, 7] = 0
    return values


def errors(found: np.ndarray, values: np.ndarray, matrix: torch.Tensor) -> np.ndarray:
    """By position, the change as a share of the result; zero where the result is."""
    expected = values[0] @ matrix.numpy().T
    sizes = np.linalg.norm(expected, axis=1)
    return np.asarray(np.linalg.norm(found[0] - expected, axis=1) / np.where(sizes > 0, sizes, 1))


def test_a_position_with_outlying_values_does_not_coarsen_the_others(
    tmp_path: Path, matrix: torch.Tensor, values: np.ndarray
) -> None:
    found = product(tmp_path, PrefillBuilder("g", Given({NAME: matrix}), Precision.INT4), values)
    assert errors(found, values, matrix).max() < 0.02
    assert (found[0, 7] == 0).all()


def test_one_scale_for_all_positions_would_coarsen_them(tmp_path: Path, matrix: torch.Tensor, values: np.ndarray) -> None:
    plain = GraphBuilder("g", Given({NAME: matrix}), Precision.INT4, {NAME: to_channels(matrix.numpy())})
    assert np.median(errors(product(tmp_path, plain, values), values, matrix)) > 0.5


def test_an_adapter_that_changes_the_decoder_reads_prompts_with_its_own_and_is_held_to_the_same_limit(tmp_path: Path) -> None:
    allowed = []
    for prefill in Prefill:
        base, target = tmp_path / f"base-{prefill.value}", tmp_path / f"adapter-{prefill.value}"
        options = ConvertOptions(Precision.INT4, prefill=prefill, rounding=Rounding.NEAREST, examples=4)
        convert(PARITY / "ldpnet", base, options)
        report = convert_adapter(PARITY / "ldpnet", PARITY / "ldpnet_lora", base, target, AdapterOptions())
        assert report.agreement is not None
        allowed.append(report.agreement.tolerance)
        adapter = ModelPackage.open(target)
        assert adapter.base is not None and adapter.base.has_decoder(PREFILL_DIALECT) is (prefill is Prefill.INT8)
        assert adapter.has_decoder(DIALECT) and not adapter.has_decoder(PREFILL_DIALECT)
    assert allowed[0] == allowed[1]


def test_a_map_whose_outputs_the_product_in_8_bits_would_spoil_stays_as_it_is(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", tiny_config(mlp=60))  # 28 behind the last 32
    options = ConvertOptions(Precision.INT4, prefill=Prefill.INT8, rounding=Rounding.NEAREST, examples=4)
    package = convert(checkpoint, tmp_path / "package", options).package
    graph = onnx.load(package / GRAPH, load_external_data=False).graph
    operators = {node.input[1].rpartition("/")[0]: node.op_type for node in graph.node if len(node.input) > 1}
    layer = "model.layers.0.mlp."
    assert operators[f"{layer}gate_proj.weight"] == operators[f"{layer}up_proj.weight"] == "MatMulNBits"
    assert operators[f"{layer}down_proj.weight"] == "DynamicQuantizeMatMul"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--precision", "fp16"), "--precision int4 only"),
        (("--lora", "adapter", "--onto", "base"), "leave out its options"),
    ],
)
def test_where_it_makes_no_sense_it_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], words: str
) -> None:
    arguments = ["convert", str(NANO / "checkpoint"), str(tmp_path / "p"), "--prefill", "int8", *options]
    assert main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert not (tmp_path / "p").exists()

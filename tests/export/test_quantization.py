"""Packages in 8 and 4 bits: faithful on the nano model, measured honestly, and careful with maps that do not take it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mobilevlm_ros.checkpoint.config import MobileVlmConfig
from mobilevlm_ros.checkpoint.model import VISION_PREFIX
from mobilevlm_ros.checkpoint.reader import CheckpointTensors
from mobilevlm_ros.cli.main import main
from mobilevlm_ros.export.convert import ConvertOptions, ConvertReport, convert, read_phrasings
from mobilevlm_ros.export.fidelity import REPORT_NAME, compare, cosine, relative_error
from mobilevlm_ros.export.quantization import Rounding
from mobilevlm_ros.models import shipped_folder
from mobilevlm_ros.runtime.manifest import Precision
from mobilevlm_ros.runtime.package import ModelPackage

NANO = shipped_folder("nano")
EXAMPLES = 12


def nano(target: Path, precision: Precision, **options: object) -> ConvertReport:
    phrasings = read_phrasings(NANO / "phrasings.json")
    return convert(NANO / "checkpoint", target, ConvertOptions(precision, phrasings=phrasings, examples=EXAMPLES, **options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def int4(tmp_path_factory: pytest.TempPathFactory) -> ConvertReport:
    return nano(tmp_path_factory.mktemp("int4") / "package", Precision.INT4)


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> ConvertReport:
    return nano(tmp_path_factory.mktemp("int8") / "package", Precision.INT8)


def test_int8_changes_next_to_nothing(int8: ConvertReport) -> None:
    found = int8.fidelity
    assert found is not None and found.positions > 200
    assert found.greedy_agreement > 0.97 and found.divergence_mean < 0.002
    assert found.features_cosine > 0.9995 and found.features_error < 0.02
    assert {linear.form for linear in found.linears} == {"int8 channels", "int8 blocks"}


def test_int4_with_error_compensation_keeps_the_words(int4: ConvertReport) -> None:
    found = int4.fidelity
    assert found is not None
    assert found.greedy_agreement > 0.94 and found.divergence_mean < 0.03
    forms = {linear.name: linear.form for linear in found.linears}
    assert forms["lm_head.weight"] == "int8 blocks"
    assert forms["model.layers.0.mlp.down_proj.weight"] == "int4 blocks"


def test_compensated_rounding_is_better_than_rounding_to_the_nearest(int4: ConvertReport, tmp_path: Path) -> None:
    nearest = nano(tmp_path / "p", Precision.INT4, rounding=Rounding.NEAREST).fidelity
    assert nearest is not None and int4.fidelity is not None
    assert int4.fidelity.divergence_mean < nearest.divergence_mean
    assert nearest.rounding is Rounding.NEAREST


def test_the_package_is_smaller_says_its_precision_and_carries_its_report(int4: ConvertReport, int8: ConvertReport) -> None:
    small, middle = (ModelPackage.open(report.package) for report in (int4, int8))
    assert (small.manifest.decoder_precision, small.manifest.vision_precision) == (Precision.INT4, Precision.INT8)
    assert (middle.manifest.decoder_precision, middle.manifest.vision_precision) == (Precision.INT8, Precision.INT8)
    sizes = [package.manifest.files["decoder.cpu.onnx.data"].bytes for package in (small, middle)]
    assert sizes[0] < 0.75 * sizes[1]
    report = json.loads((small.path / REPORT_NAME).read_text())
    assert REPORT_NAME in small.manifest.files and report["rounding"] == "gptq"
    assert len(report["linears"]) == 36 + 5 * 7 + 1
    assert report["measured"] == EXAMPLES // 4


def test_converting_again_gives_the_same_bytes(int4: ConvertReport, tmp_path: Path) -> None:
    again = nano(tmp_path / "p", Precision.INT4)
    for file in sorted(int4.package.iterdir()):
        assert (again.package / file.name).read_bytes() == file.read_bytes(), file.name


def nano_tensor(name: str) -> torch.Tensor:
    config = MobileVlmConfig.read(NANO / "checkpoint")
    return CheckpointTensors.open(NANO / "checkpoint", config)[name].clone()


def changed_nano(folder: Path, changes: dict[str, torch.Tensor]) -> Path:
    """The nano checkpoint with some weights changed."""
    config = MobileVlmConfig.read(NANO / "checkpoint")
    tensors = dict(CheckpointTensors.open(NANO / "checkpoint", config)) | changes
    for path in (NANO / "checkpoint").rglob("*"):
        if path.is_file() and path.suffix != ".bin":
            target = folder / path.relative_to(NANO / "checkpoint")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    torch.save({key: tensor.clone() for key, tensor in tensors.items()}, folder / "pytorch_model.bin")
    return folder


def test_a_map_that_four_bits_would_distort_keeps_eight(tmp_path: Path) -> None:
    prefix = "model.layers.2.self_attn."
    outputs = torch.randn(192, 192, generator=torch.manual_seed(0)) * 1e-3
    outputs[:, [0, 150]] = 1.0  # one large weight in each block, on an input that says nothing
    values = nano_tensor(f"{prefix}v_proj.weight")
    values[[0, 150]] = 0
    folder = changed_nano(tmp_path / "c", {f"{prefix}o_proj.weight": outputs.half(), f"{prefix}v_proj.weight": values})
    report = convert(folder, tmp_path / "p", ConvertOptions(Precision.INT4, rounding=Rounding.NEAREST, examples=4))
    assert report.fidelity is not None
    linears = {linear.name: linear for linear in report.fidelity.linears}
    assert linears[f"{prefix}o_proj.weight"].form == "int8 blocks"
    assert linears["model.layers.1.self_attn.o_proj.weight"].form == "int4 blocks"
    assert linears["model.layers.1.self_attn.o_proj.weight"].error < 0.25


def test_a_tower_map_with_outlying_inputs_gets_block_scales(tmp_path: Path) -> None:
    prefix = f"{VISION_PREFIX}encoder.layers.1."
    shift, inner = nano_tensor(f"{prefix}layer_norm2.bias"), nano_tensor(f"{prefix}mlp.fc1.weight")
    shift[3] = 600.0  # as CLIP's own outlying channels: all other inputs fall into a few of the picture's steps
    inner[:, 3] = 0
    folder = changed_nano(tmp_path / "c", {f"{prefix}layer_norm2.bias": shift, f"{prefix}mlp.fc1.weight": inner})
    report = convert(folder, tmp_path / "p", ConvertOptions(Precision.INT8, examples=4))
    assert report.fidelity is not None
    forms = {linear.name: linear.form for linear in report.fidelity.linears}
    assert forms[f"{prefix}mlp.fc1.weight"] == "int8 blocks"
    assert forms[f"{prefix}self_attn.q_proj.weight"] == "int8 channels"


def test_divergence_and_agreement_are_those_of_the_textbook() -> None:
    reference = np.log(np.array([[0.5, 0.25, 0.25], [0.7, 0.2, 0.1]]))
    found = np.log(np.array([[0.25, 0.5, 0.25], [0.7, 0.2, 0.1]]))
    divergences, agreements = compare(found, reference + 3.0)
    np.testing.assert_allclose(divergences, [0.25 * np.log(2), 0.0], atol=1e-12)
    assert agreements.tolist() == [False, True]


def test_relative_error_and_cosine_by_hand() -> None:
    expected = np.array([3.0, 4.0])
    assert relative_error(np.array([3.0, 3.5]), expected) == pytest.approx(0.1)
    assert cosine(np.array([-4.0, 3.0]), expected) == pytest.approx(0.0)
    assert cosine(2 * expected, expected) == pytest.approx(1.0)


def test_the_command_reports_what_was_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["convert", NANO / "checkpoint", tmp_path / "p", "--precision", "int4", "--examples", "4"]
    arguments += ["--keep", "model.layers.0.*"]
    assert main([str(word) for word in arguments]) == 0
    out = capsys.readouterr().out
    assert "int8 channels (36 maps), int8 blocks (7 maps), int4 blocks (29 maps)" in out
    assert "same likeliest one at" in out and "nats on average" in out


def test_a_calibration_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["convert", NANO / "checkpoint", tmp_path / "p", "--precision", "int8", "--calibration", tmp_path / "none"]
    assert main([str(word) for word in arguments]) == 1
    assert capsys.readouterr().err.splitlines() == [f"mobilevlm: {tmp_path / 'none'}: no such folder"]
    assert not (tmp_path / "p").exists()

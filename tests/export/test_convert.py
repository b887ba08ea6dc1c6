"""The whole conversion and its command: checkpoints never seen, repeatable, checked, atomic, with errors of one line."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mobilevlm_ros.checkpoint import reader
from mobilevlm_ros.checkpoint.config import ProjectorKind
from mobilevlm_ros.cli.main import main
from mobilevlm_ros.export import convert as module
from mobilevlm_ros.export.convert import ConvertOptions, convert, read_phrasings
from mobilevlm_ros.export.errors import ExportError
from mobilevlm_ros.models import shipped_folder
from mobilevlm_ros.runtime.manifest import Phrasings, Precision
from mobilevlm_ros.runtime.package import ModelPackage, file_sha256
from tests.make_checkpoint import Files, Layout, tiny_config, write_checkpoint, write_tower
from tests.parity import PARITY

V2 = PARITY / "ldpnetv2"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def error_line(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What the failing command says on stderr, which is one line."""
    assert main(["convert", *map(str, arguments)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    ("kind", "layout", "dtype"),
    [
        (ProjectorKind.LDP, Layout.BIN, torch.bfloat16),
        (ProjectorKind.LDP_V2, Layout.SHARDED_BIN, torch.bfloat16),
        (ProjectorKind.LDP, Layout.SHARDED_SAFETENSORS, torch.float16),
        (ProjectorKind.LDP_V2, Layout.SAFETENSORS, torch.float32),
    ],
)
def test_a_checkpoint_never_seen_converts_and_agrees(
    tmp_path: Path, kind: ProjectorKind, layout: Layout, dtype: torch.dtype
) -> None:
    config = tiny_config(kind, hidden=96, layers=3, heads=3, kv_heads=1, head_dim=24, vocab=700, image_size=336)
    write_checkpoint(tmp_path / "c", config, seed=11, files=Files(layout, dtype))
    report = convert(tmp_path / "c", tmp_path / "p", ConvertOptions())
    assert report.agreement is not None
    assert max(report.agreement.features, report.agreement.logits) < 1e-5
    assert report.unused == ()
    ModelPackage.open(tmp_path / "p")


def test_a_tower_given_beside_the_checkpoint_is_used(tmp_path: Path) -> None:
    config = tiny_config()
    write_checkpoint(tmp_path / "whole", config, seed=1)
    write_checkpoint(tmp_path / "half", config, seed=1, files=Files(tower=False))
    write_tower(tmp_path / "tower", config, seed=1)
    convert(tmp_path / "whole", tmp_path / "a", ConvertOptions(verify=False))
    convert(tmp_path / "half", tmp_path / "b", ConvertOptions(verify=False, vision_tower=tmp_path / "tower"))
    assert (tmp_path / "a" / "vision.onnx.data").read_bytes() == (tmp_path / "b" / "vision.onnx.data").read_bytes()


def test_converting_again_in_another_process_gives_the_same_bytes(tmp_path: Path) -> None:
    convert(V2, tmp_path / "a", ConvertOptions(Precision.FP16, verify=False))
    code = "from mobilevlm_ros.cli.main import main; import sys; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "convert", str(V2), str(tmp_path / "b"), "--no-verify", "--precision", "fp16"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_the_manifest_says_what_the_model_is_and_where_it_came_from(tmp_path: Path) -> None:
    options = ConvertOptions(name="toy", licence="Apache-2.0", revision="r1", phrasings=Phrasings(ground="Find {expression}."))
    convert(V2, tmp_path / "p", options)
    manifest = ModelPackage.open(tmp_path / "p").manifest
    assert (manifest.name, manifest.licence) == ("toy", "Apache-2.0")
    assert (manifest.source.checkpoint, manifest.source.revision) == ("ldpnetv2", "r1")
    assert manifest.source.weights_sha256 == file_sha256(V2 / "pytorch_model.bin")
    assert manifest.phrasings.ground == "Find {expression}."
    assert (manifest.vision.image_size, manifest.vision.tokens, manifest.vision.projector) == (336, 144, "ldpnetv2")
    assert (manifest.decoder.hidden_size, manifest.decoder.layers, manifest.decoder.vocab_size) == (64, 2, 600)
    assert set(manifest.files) == {path.name for path in (tmp_path / "p").iterdir()} - {"manifest.json"}


def test_fp16_halves_the_matrices(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "c", tiny_config(hidden=256))
    sizes = {}
    for precision in (Precision.FP32, Precision.FP16):
        convert(tmp_path / "c", tmp_path / precision.value, ConvertOptions(precision=precision, verify=False))
        sizes[precision] = (tmp_path / precision.value / "decoder.cpu.onnx.data").stat().st_size
    assert 0.5 < sizes[Precision.FP16] / sizes[Precision.FP32] < 0.55


def test_an_adapter_is_named_in_the_source_and_changes_the_digest(tmp_path: Path) -> None:
    report = convert(PARITY / "ldpnet", tmp_path / "p", ConvertOptions(adapter=PARITY / "ldpnet_lora", verify=False))
    assert len(report.ignored) == 9  # queries, keys and values of three tower layers
    source = ModelPackage.open(tmp_path / "p").manifest.source
    assert source.checkpoint == "ldpnet + ldpnet_lora"
    assert source.weights_sha256 != file_sha256(PARITY / "ldpnet" / "pytorch_model.bin")


def test_a_package_that_disagrees_with_pytorch_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = module.build_decoder

    def wrong(graph: Any, config: Any, dialect: Any) -> None:
        graph.linear = lambda value, weight, bias=None: graph.node("Neg", type(graph).linear(graph, value, weight, bias))
        honest(graph, config, dialect)

    monkeypatch.setattr(module, "build_decoder", wrong)
    with pytest.raises(ExportError, match="logits of the converted model differ"):
        convert(V2, tmp_path / "p", ConvertOptions())
    assert list(tmp_path.iterdir()) == []


def test_no_more_than_two_tensors_of_the_checkpoint_are_held_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
    most = 0
    read = reader.CheckpointTensors.__getitem__

    def watched(self: reader.CheckpointTensors, name: str) -> Tensor:
        nonlocal most
        tensor = read(self, name).clone()
        alive.add(tensor)
        most = max(most, len(alive))
        return tensor

    monkeypatch.setattr(reader.CheckpointTensors, "__getitem__", watched)
    convert(V2, tmp_path / "p", ConvertOptions(verify=False))
    assert 1 <= most <= 2


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
def test_progress_adds_up_to_the_total_of_each_step(tmp_path: Path, precision: Precision) -> None:
    told: dict[str, list[tuple[str, int]]] = {}
    totals: dict[str, int] = {}

    def start(what: str, total: int) -> Any:
        totals[what] = total
        told[what] = []
        return lambda name, size: told[what].append((name, size))

    convert(V2, tmp_path / "p", ConvertOptions(precision, examples=2), start)
    assert {what: sum(size for _, size in parts) for what, parts in told.items()} == totals
    assert {"embeddings.npy", "model.mm_projector.peg.peg.0.bias"} <= {name for name, _ in told["writing"]}
    assert ("quantising" in told) == (precision is Precision.INT8)


def test_the_shipped_nano_package_is_what_the_documented_command_writes(tmp_path: Path) -> None:
    nano = shipped_folder("nano")
    known = ["--name", "mobilevlm-nano", "--licence", "Apache-2.0", "--revision", "v1"]
    known += ["--phrasings", str(nano / "phrasings.json"), "--score-calibration", "1.18", "0.2"]
    assert (
        main(["convert", str(nano / "checkpoint"), str(tmp_path / "p"), "--precision", "fp16", "--backend", "all", *known]) == 0
    )
    assert contents(tmp_path / "p") == contents(nano / "package")


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_takes_no_more_is_one_line_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with file_size_limit(300_000):
        line = error_line(capsys, V2, tmp_path / "p")
    assert "File too large" in line
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(V2), str(tmp_path / "my model"), "--name", "toy"]) == 0
    out = capsys.readouterr().out
    assert "agrees with PyTorch" in out
    assert f"wrote {tmp_path / 'my model'}" in out
    assert ModelPackage.open(tmp_path / "my model").manifest.name == "toy"


def test_phrasings_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "phrasings.json").write_text(json.dumps({"ground": "Where is {expression}?"}))
    arguments = ["convert", str(V2), str(tmp_path / "p"), "--phrasings", str(tmp_path / "phrasings.json"), "--no-verify"]
    assert main(arguments) == 0
    assert ModelPackage.open(tmp_path / "p").manifest.phrasings == Phrasings(ground="Where is {expression}?")


@pytest.mark.parametrize(
    "text",
    ["[]", '{"ground": 3}', '{"find": "x"}', "{", "", '{"ground": "Find {thing}."}', '{"ground": "Find it."}', '{"ground": "{"}'],
)
def test_phrasings_that_are_none_are_refused_with_the_files_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "phrasings.json"
    path.write_text(text)
    with pytest.raises(ExportError, match=r"phrasings\.json"):
        read_phrasings(path)


def test_a_source_that_is_no_checkpoint_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "config.json: no such file" in error_line(capsys, tmp_path, tmp_path / "p")
    assert "config.json: no such file" in error_line(capsys, tmp_path / "nowhere", tmp_path / "p")


def test_a_missing_tokenizer_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (write_checkpoint(tmp_path / "c", tiny_config()) / "tokenizer.model").unlink()
    assert "tokenizer.model: no such file" in error_line(capsys, tmp_path / "c", tmp_path / "p")


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert "Not a directory" in error_line(capsys, V2, tmp_path / "file" / "p")


def test_without_torch_the_command_names_the_extra_to_install(tmp_path: Path) -> None:
    code = """
import sys
sys.modules.update(torch=None, transformers=None, onnx=None)
from mobilevlm_ros.cli.main import main
sys.exit(main(["convert", "a", "b"]))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("mobilevlm: convert needs torch, transformers, onnx: run tools/setup")


def test_a_difference_that_is_not_a_number_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mobilevlm_ros.export.verify.difference", lambda found, expected: float("nan"))
    with pytest.raises(ExportError, match="differ"):
        convert(V2, tmp_path / "p", ConvertOptions())

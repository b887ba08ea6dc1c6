"""Adapter packages: a base package and an adapter beside it give what the merged package gives, for a small part of its size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from mobilevlm_ros.checkpoint.config import ProjectorKind
from mobilevlm_ros.checkpoint.model import EMBEDDING_NAME, HEAD_NAME, VISION_PREFIX
from mobilevlm_ros.cli.main import main
from mobilevlm_ros.export import adapter as module
from mobilevlm_ros.export.adapter import AdapterOptions, AdapterReport, convert_adapter
from mobilevlm_ros.export.convert import ConvertOptions, convert
from mobilevlm_ros.export.errors import ExportError
from mobilevlm_ros.export.quantization import Rounding
from mobilevlm_ros.export.verify import difference
from mobilevlm_ros.runtime.manifest import Phrasings, Precision
from mobilevlm_ros.runtime.ort_backend import OrtBackend
from mobilevlm_ros.runtime.package import ModelPackage, file_sha256
from tests.make_adapter import all_linears, decoder_linears, write_lora
from tests.make_checkpoint import Files, tiny_config, write_checkpoint
from tests.parity import CASES, IMAGE_TOKEN, PARITY, QUESTION, letterboxed, prompt_ids, relative

LDP, LDP_V2 = ProjectorKind.LDP, ProjectorKind.LDP_V2
UNCHECKED = AdapterOptions(verify=False)


@dataclass(frozen=True)
class Said:
    """What a package makes of the recorded picture and question."""

    features: np.ndarray
    logits: np.ndarray
    tokens: list[int]


def said(package: Path, count: int = 16) -> Said:
    backend = OrtBackend(ModelPackage.open(package), threads=1)
    ids = prompt_ids(QUESTION)
    place = ids.index(IMAGE_TOKEN)
    features = backend.encode(letterboxed(336))
    prompt = np.concatenate([backend.embed(ids[:place]), features[0], backend.embed(ids[place + 1 :])])
    cache = backend.new_cache(1, len(prompt) + count)
    logits = backend.prefill(cache, 0, prompt, [len(prompt) - 1])[0].copy()
    tokens = [int(logits.argmax())]
    while len(tokens) < count:
        tokens.append(int(backend.decode(cache, tokens[-1:])[0].argmax()))
    backend.close()
    return Said(features, logits, tokens)


def size(package: Path) -> int:
    return sum(path.stat().st_size for path in package.iterdir())


def checkpoint(folder: Path, kind: ProjectorKind = LDP_V2, dtype: torch.dtype = torch.float32, **sizes: Any) -> Path:
    return write_checkpoint(folder / "base", tiny_config(kind, image_size=336, **sizes), seed=5, files=Files(dtype=dtype))


def both(folder: Path, source: Path, adapter: Path, precision: Precision = Precision.FP32) -> tuple[Path, AdapterReport]:
    """The merged package, and the report on the adapter's package beside a base."""
    options = ConvertOptions(precision=precision, verify=False)
    merged = convert(source, folder / "merged", ConvertOptions(precision=precision, adapter=adapter, verify=False)).package
    base = convert(source, folder / "package", options).package
    return merged, convert_adapter(source, adapter, base, folder / "adapter", AdapterOptions())


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16], ids=lambda precision: precision.value)
def test_the_official_adapter_gives_the_official_codes_features_and_tokens(tmp_path: Path, precision: Precision) -> None:
    case = CASES[2]
    assert case.adapter is not None
    merged, report = both(tmp_path, case.checkpoint, case.adapter, precision)
    golden, found = case.golden, said(report.package, len(case.golden["tokens"]))
    assert relative(found.features, golden["features"]) < 1e-5  # whole tensors are rounded as the official code rounds them
    assert relative(found.logits, golden["last_logits"]) < 2e-3  # what it rounds of the merged matrices is not rounded here
    assert found.tokens == golden["tokens"].tolist()
    assert found.tokens == said(merged, len(found.tokens)).tokens
    assert said(tmp_path / "package", len(found.tokens)).tokens != found.tokens
    assert len(report.ignored) == 9  # queries, keys and values of three tower layers
    assert all(name.startswith(VISION_PREFIX) for name in report.ignored)


@pytest.mark.parametrize("names", [decoder_linears, all_linears], ids=["decoder", "decoder and tower"])
@pytest.mark.parametrize("kind", [LDP, LDP_V2], ids=lambda kind: kind.value)
def test_an_adapter_package_gives_what_the_merged_package_gives(tmp_path: Path, kind: ProjectorKind, names: Any) -> None:
    source = checkpoint(tmp_path, kind, hidden=96, layers=3, heads=3, kv_heads=1, head_dim=24, vocab=700)
    merged, report = both(tmp_path, source, write_lora(tmp_path / "lora", source, names, strength=0.5))
    ours, theirs, base = said(report.package), said(merged), said(tmp_path / "package")
    assert difference(ours.features, theirs.features) < 1e-5
    assert difference(ours.logits, theirs.logits) < 1e-5
    assert ours.tokens == theirs.tokens
    assert difference(base.logits, theirs.logits) > 0.05
    assert report.agreement is not None
    assert max(report.agreement.features, report.agreement.logits) < 1e-5


@pytest.mark.parametrize("rank", [4, 16])
def test_rank_stabilised_adapters_have_their_own_scale(tmp_path: Path, rank: int) -> None:
    source = checkpoint(tmp_path)
    lora = write_lora(tmp_path / "lora", source, rank=rank, strength=0.2, use_rslora=True)
    plain = write_lora(tmp_path / "plain", source, rank=rank, strength=0.2 * math.sqrt(rank))
    merged, report = both(tmp_path, source, lora)
    ours = said(report.package)
    assert difference(ours.logits, said(merged).logits) < 1e-5
    other = convert_adapter(source, plain, tmp_path / "package", tmp_path / "plain-adapter", UNCHECKED)
    assert difference(ours.logits, said(other.package).logits) < 1e-5


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT4], ids=lambda precision: precision.value)
def test_a_base_in_fewer_bits_keeps_its_adapter_in_half_precision(tmp_path: Path, precision: Precision) -> None:
    source = checkpoint(tmp_path, hidden=128, layers=2)
    lora = write_lora(tmp_path / "lora", source, all_linears, strength=1.0)
    base = convert(
        source, tmp_path / "package", ConvertOptions(precision=precision, rounding=Rounding.NEAREST, examples=4)
    ).package
    report = convert_adapter(source, lora, base, tmp_path / "adapter", AdapterOptions())
    merged = convert(source, tmp_path / "merged", ConvertOptions(adapter=lora, verify=False)).package
    ours, exact, rounded = said(report.package), said(merged), said(base)
    assert difference(ours.logits, exact.logits) < 0.5 * difference(rounded.logits, exact.logits)
    graph = onnx.load(str(report.package / "decoder.cpu.onnx"), load_external_data=False).graph
    own = [tensor for tensor in graph.initializer if tensor.name.endswith(("/down", "/up"))]
    assert {tensor.data_type for tensor in own} == {onnx.TensorProto.FLOAT16}


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8, Precision.INT4], ids=lambda precision: precision.value)
def test_whole_tensors_take_the_place_of_the_bases_whatever_its_precision(tmp_path: Path, precision: Precision) -> None:
    source = checkpoint(tmp_path, hidden=128, layers=2)
    lora = write_lora(tmp_path / "lora", source, rank=2, strength=0.01)
    weights = torch.load(source / "pytorch_model.bin")
    replaced = {
        "model.layers.1.mlp.up_proj.weight": torch.randn_like(weights["model.layers.1.mlp.up_proj.weight"]) / 12,
        "model.norm.weight": weights["model.norm.weight"] * 1.5,
        f"{VISION_PREFIX}encoder.layers.0.mlp.fc1.weight": weights[f"{VISION_PREFIX}encoder.layers.0.mlp.fc1.weight"].flip(0),
        f"{VISION_PREFIX}embeddings.patch_embedding.weight": -weights[f"{VISION_PREFIX}embeddings.patch_embedding.weight"],
        "model.mm_projector.peg.peg.0.weight": -weights["model.mm_projector.peg.peg.0.weight"],
        EMBEDDING_NAME: weights[EMBEDDING_NAME].flip(1),
        HEAD_NAME: weights[HEAD_NAME].flip(0),
    }
    torch.save(replaced, lora / "non_lora_trainables.bin")
    options = ConvertOptions(precision=precision, rounding=Rounding.NEAREST, examples=4, verify=False)
    base = convert(source, tmp_path / "package", options).package
    report = convert_adapter(source, lora, base, tmp_path / "adapter", AdapterOptions())
    merged = convert(source, tmp_path / "merged", ConvertOptions(adapter=lora, verify=False)).package
    ours, exact = said(report.package), said(merged)
    limit = {Precision.FP16: 0.01, Precision.INT8: 0.1, Precision.INT4: 0.3}[precision]
    assert difference(ours.features, exact.features) < limit
    assert difference(ours.logits, exact.logits) < limit
    assert "embeddings.npy" in ModelPackage.open(report.package).manifest.files


def test_a_dozen_adapters_cost_little_beside_their_base(tmp_path: Path) -> None:
    source = checkpoint(tmp_path, hidden=512, layers=4, mlp=1024)
    base = convert(source, tmp_path / "package", ConvertOptions(precision=Precision.FP16, verify=False)).package
    lora = write_lora(tmp_path / "lora", source, rank=4)
    report = convert_adapter(source, lora, base, tmp_path / "adapter", UNCHECKED)
    assert size(report.package) < size(base) / 20
    assert size(report.package) == report.size + (report.package / "manifest.json").stat().st_size
    assert not (report.package / "vision.onnx").exists()  # nothing of the tower or projector changed


def test_converting_again_gives_the_same_bytes(tmp_path: Path) -> None:
    source = checkpoint(tmp_path)
    base = convert(source, tmp_path / "package", ConvertOptions(verify=False)).package
    lora = write_lora(tmp_path / "lora", source)
    first, second = (convert_adapter(source, lora, base, tmp_path / name, UNCHECKED).package for name in "ab")
    assert {path.name: path.read_bytes() for path in first.iterdir()} == {
        path.name: path.read_bytes() for path in second.iterdir()
    }


def test_the_manifest_names_the_base_and_takes_what_is_not_given_from_it(tmp_path: Path) -> None:
    source = checkpoint(tmp_path)
    phrasings = Phrasings(ground="Find {expression}.")
    options = ConvertOptions(precision=Precision.FP16, licence="Apache-2.0", revision="r1", phrasings=phrasings, verify=False)
    base = convert(source, tmp_path / "models" / "package", options).package
    lora = write_lora(tmp_path / "lora", source)
    manifest = ModelPackage.open(convert_adapter(source, lora, base, tmp_path / "adapter", UNCHECKED).package).manifest
    assert manifest.base is not None
    assert manifest.base.path == "../models/package"
    assert manifest.base.manifest_sha256 == file_sha256(base / "manifest.json")
    assert (manifest.name, manifest.licence, manifest.source.revision) == ("lora", "Apache-2.0", "r1")
    assert manifest.source.checkpoint == "base + lora"
    assert (manifest.phrasings, manifest.decoder_precision) == (phrasings, Precision.FP16)
    given = AdapterOptions(name="kitchen", licence="MIT", phrasings=Phrasings(), verify=False)
    manifest = ModelPackage.open(convert_adapter(source, lora, base, tmp_path / "other", given).package).manifest
    assert (manifest.name, manifest.licence, manifest.phrasings) == ("kitchen", "MIT", Phrasings())


def test_a_package_that_disagrees_with_the_merged_model_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = checkpoint(tmp_path)
    base = convert(source, tmp_path / "package", ConvertOptions(verify=False)).package
    lora = write_lora(tmp_path / "lora", source, strength=0.5)
    honest = module.adapt_graph

    def wrong(path: Path, adapted: Any, dtype: Any) -> Any:
        graph = honest(path, adapted, dtype)
        for node in graph.model.graph.node:
            if node.op_type == "Add" and node.name.endswith("/sum"):
                node.op_type = "Sub"
        return graph

    monkeypatch.setattr(module, "adapt_graph", wrong)
    with pytest.raises(ExportError, match="logits of the converted model differ"):
        convert_adapter(source, lora, base, tmp_path / "adapter", AdapterOptions())
    assert not (tmp_path / "adapter").exists()


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What the failing command says on stderr, which is one line."""
    assert main(["convert", *map(str, arguments)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_the_command_writes_it_and_every_command_can_use_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = checkpoint(tmp_path)
    lora = write_lora(tmp_path / "lora", source)
    assert main(["convert", str(source), str(tmp_path / "package"), "--no-verify"]) == 0
    arguments = ["convert", str(source), str(tmp_path / "kitchen"), "--lora", str(lora), "--onto", str(tmp_path / "package")]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "agrees with PyTorch" in out
    assert "MB beside" in out
    picture = str(PARITY / "image.png")
    assert main(["ask", picture, QUESTION, "--model", str(tmp_path / "kitchen"), "--max-tokens", "3"]) == 0


def test_what_does_not_fit_together_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = checkpoint(tmp_path)
    lora, target = write_lora(tmp_path / "lora", source), tmp_path / "target"
    base = convert(source, tmp_path / "package", ConvertOptions(verify=False)).package
    merged = convert(source, tmp_path / "merged", ConvertOptions(adapter=lora, verify=False)).package
    adapter = convert_adapter(source, lora, base, tmp_path / "adapter", UNCHECKED).package
    empty = write_lora(tmp_path / "empty", source, lambda name: False)
    assert "--onto needs --lora" in refusal(capsys, source, target, "--onto", base)
    stored = ("--lora", lora, "--onto", base, "--precision", "int4")
    assert "decides how weights are stored" in refusal(capsys, source, target, *stored)
    assert "was not made from" in refusal(capsys, source, target, "--lora", lora, "--onto", merged)
    assert "is an adapter package itself" in refusal(capsys, source, target, "--lora", lora, "--onto", adapter)
    assert "no such model package" in refusal(capsys, source, target, "--lora", lora, "--onto", tmp_path / "nowhere")
    assert "is the base package itself" in refusal(capsys, source, base, "--lora", lora, "--onto", base, "--force")
    assert "changes nothing" in refusal(capsys, source, target, "--lora", empty, "--onto", base)
    torch.save({f"{VISION_PREFIX}embeddings.class_embedding": torch.zeros(32)}, empty / "non_lora_trainables.bin")
    assert "only a merged package can hold" in refusal(capsys, source, target, "--lora", empty, "--onto", base)
    assert not target.exists()
    ModelPackage.open(base)

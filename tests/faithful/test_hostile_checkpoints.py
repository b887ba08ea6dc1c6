"""Checkpoints and adapters that are broken, or made to do harm, are refused by `mobilevlm convert` in one line and leave nothing.

What each file's reader says in detail stands in the tests of its layer; here the whole command is looked at from outside.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mobilevlm_ros.cli.main import main
from tests.faithful.released import PROJECTOR, TOKENIZER_PIECES, Sizes, draw, write, write_adapter

SIZES = Sizes()
WITNESS = "was here"


class Evil:
    """Unpickles into a shell command."""

    def __init__(self, witness: Path) -> None:
        self._witness = witness

    def __reduce__(self) -> Any:
        return (os.system, (f"touch '{self._witness}'",))


def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], *more: object) -> str:
    """What the command says; fails unless it is one line, nothing was written and nothing of the input was run."""
    before = set(tmp_path.rglob("*"))
    status = main(["convert", str(tmp_path / "checkpoint"), str(tmp_path / "package"), *map(str, more)])
    lines = capsys.readouterr().err.splitlines()
    assert status == 1
    assert len(lines) == 1, lines
    assert set(tmp_path.rglob("*")) == before
    return lines[0]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(folder / "pytorch_model.bin", weights_only=True))


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def change_tensor(folder: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    tensors = weights(folder)
    torch.save({**tensors, name: change(tensors[name])}, folder / "pytorch_model.bin")


def drop_tensor(folder: Path, name: str) -> None:
    tensors = weights(folder)
    del tensors[name]
    torch.save(tensors, folder / "pytorch_model.bin")


def cut(path: Path, keep: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def point_index_at(folder: Path, shard: str) -> None:
    """Replaces the weights by an index whose only shard is elsewhere."""
    (folder / "pytorch_model.bin").rename(folder.parent / "elsewhere.bin")
    index = {"weight_map": dict.fromkeys(weights_names(), shard)}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def weights_names() -> list[str]:
    return list(draw(SIZES, 0))


HEAD, DOWN, PEG = "lm_head.weight", "model.layers.1.mlp.down_proj.weight", f"{PROJECTOR}peg.peg.0.weight"
FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pickle that runs a command": (
        lambda folder: torch.save({HEAD: Evil(folder / WITNESS)}, folder / "pytorch_model.bin"),
        "pytorch_model.bin: refused",
    ),
    "a bare pickle that runs a command": (
        lambda folder: (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(folder / WITNESS), 2)),
        "pytorch_model.bin: refused",
    ),
    "a command hidden among tensors": (
        lambda folder: torch.save({**weights(folder), "x": Evil(folder / WITNESS)}, folder / "pytorch_model.bin"),
        "pytorch_model.bin: refused",
    ),
    "a pickle of a whole model": (
        lambda folder: torch.save(torch.nn.Linear(2, 2), folder / "pytorch_model.bin"),
        "pytorch_model.bin: refused",
    ),
    "a missing tensor": (lambda folder: drop_tensor(folder, PEG), f"tensor {PEG} is missing"),
    "a turned tensor": (lambda folder: change_tensor(folder, DOWN, lambda t: t.T.contiguous()), f"tensor {DOWN} is [136, 64]"),
    "a tensor without values": (lambda folder: change_tensor(folder, HEAD, lambda t: t[:0]), f"tensor {HEAD} is [0, 64]"),
    "a tensor that claims to be huge": (
        lambda folder: change_tensor(folder, HEAD, lambda t: t[:1, :1].expand(10**9, 64)),
        f"tensor {HEAD} is [1000000000, 64]",
    ),
    "weights in whole numbers": (lambda folder: change_tensor(folder, DOWN, lambda t: (t * 100).to(torch.int8)), DOWN),
    "a weight that is no number": (lambda folder: change_tensor(folder, DOWN, lambda t: t.fill_(float("nan"))), DOWN),
    "an infinite weight": (lambda folder: change_tensor(folder, PEG, lambda t: t.fill_(float("inf"))), PEG),
    "an unknown projector": (
        lambda folder: change_config(folder, mm_projector_type="mlp2x_gelu"),
        "unknown projector 'mlp2x_gelu'",
    ),
    "the other projector": (lambda folder: change_config(folder, mm_projector_type="ldpnet"), "model.mm_projector.model."),
    "a layer more in the config": (lambda folder: change_config(folder, num_hidden_layers=3), "model.layers.2."),
    "another width in the config": (lambda folder: change_config(folder, hidden_size=128), "expected"),
    "no vocabulary size": (lambda folder: change_config(folder, vocab_size=None), "vocab_size"),
    "a config that is a list": (lambda folder: (folder / "config.json").write_text("[]"), "config.json"),
    "a config that is no text": (lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe\x00"), "config.json"),
    "a truncated file": (lambda folder: cut(folder / "pytorch_model.bin", 0.9), "pytorch_model.bin"),
    "half a file": (lambda folder: cut(folder / "pytorch_model.bin", 0.5), "pytorch_model.bin"),
    "an empty file": (lambda folder: cut(folder / "pytorch_model.bin", 0), "pytorch_model.bin"),
    "a truncated tokenizer": (lambda folder: cut(folder / "tokenizer.model", 0.5), "tokenizer.model"),
    "an empty tokenizer": (lambda folder: cut(folder / "tokenizer.model", 0), "tokenizer.model"),
    "a tokenizer of another model": (lambda folder: smaller_vocabulary(folder), f"{TOKENIZER_PIECES} pieces"),
    "an index that points outside": (lambda folder: point_index_at(folder, "../elsewhere.bin"), "'../elsewhere.bin'"),
    "an index that points into the system": (lambda folder: point_index_at(folder, "/etc/passwd"), "'/etc/passwd'"),
    "an index whose shard is missing": (lambda folder: point_index_at(folder, "a.bin"), "a.bin: no such file"),
    "an index whose shard is the folder": (lambda folder: point_index_at(folder, "."), "'.'"),
    "an index whose shard is the folder above": (lambda folder: point_index_at(folder, ".."), "no such file"),
    "a vision tower outside": (lambda folder: change_config(folder, mm_vision_tower="../tower"), "'../tower'"),
    "a preprocessor that divides by zero": (
        lambda folder: (folder / "tower" / "preprocessor_config.json").write_text('{"image_std": [0.0, 0.2, 0.2]}'),
        "image_std",
    ),
}


def smaller_vocabulary(folder: Path) -> None:
    tensors = weights(folder)
    for name in ("model.embed_tokens.weight", HEAD):
        tensors[name] = tensors[name][:500].clone()
    torch.save(tensors, folder / "pytorch_model.bin")
    change_config(folder, vocab_size=500)


@pytest.mark.parametrize("name", FAULTS)
def test_a_checkpoint_that_is_no_good_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    break_it, wanted = FAULTS[name]
    break_it(write(tmp_path / "checkpoint", SIZES, draw(SIZES, 0)))
    assert wanted in refused(tmp_path, capsys)


ADAPTER_FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "an adapter that runs a command": (
        lambda folder: torch.save({"x": Evil(folder / WITNESS)}, folder / "adapter_model.bin"),
        "adapter_model.bin: refused",
    ),
    "a projector that runs a command": (
        lambda folder: torch.save({"x": Evil(folder / WITNESS)}, folder / "non_lora_trainables.bin"),
        "non_lora_trainables.bin: refused",
    ),
    "a truncated adapter": (lambda folder: cut(folder / "adapter_model.bin", 0.8), "adapter_model.bin"),
    "a truncated projector": (lambda folder: cut(folder / "non_lora_trainables.bin", 0.8), "non_lora_trainables.bin"),
    "no adapter": (lambda folder: (folder / "adapter_model.bin").unlink(), "adapter"),
    "no config": (lambda folder: (folder / "adapter_config.json").unlink(), "adapter_config.json"),
}


@pytest.mark.parametrize("name", ADAPTER_FAULTS)
def test_an_adapter_that_is_no_good_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    write(tmp_path / "checkpoint", SIZES, draw(SIZES, 0))
    break_it, wanted = ADAPTER_FAULTS[name]
    break_it(write_adapter(tmp_path / "adapter", SIZES, 0, "official"))
    assert wanted in refused(tmp_path, capsys, "--lora", tmp_path / "adapter")


def test_files_beside_the_weights_are_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Training leaves pickles of its own in such folders."""
    folder = write(tmp_path / "checkpoint", SIZES, draw(SIZES, 0))
    for name in ("training_args.bin", "optimizer.pt", "mm_projector.bin"):
        torch.save(Evil(folder / WITNESS), folder / name)
    assert main(["convert", str(folder), str(tmp_path / "package"), "--no-verify"]) == 0
    assert not (folder / WITNESS).exists()

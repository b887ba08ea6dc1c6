"""Reading weights from whatever files a release consists of."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from mobilevlm_ros.checkpoint.config import MobileVlmConfig
from mobilevlm_ros.checkpoint.errors import CheckpointError
from mobilevlm_ros.checkpoint.model import VISION_PREFIX
from mobilevlm_ros.checkpoint.reader import CheckpointTensors
from tests.make_checkpoint import Files, Layout, random_tensors, tiny_config, write_checkpoint, write_tower, write_weights

CONFIG = tiny_config()


def open_checkpoint(folder: Path, tower: Path | None = None) -> CheckpointTensors:
    return CheckpointTensors.open(folder, MobileVlmConfig.read(folder, tower), tower)


def error_of(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rewrite(folder: Path, change: dict[str, torch.Tensor], drop: str = "") -> Path:
    """The checkpoint with some tensors changed or dropped."""
    tensors = {**random_tensors(CONFIG, 0, torch.float16), **change}
    tensors.pop(drop, None)
    write_weights(write_checkpoint(folder, CONFIG), tensors, Layout.BIN)
    return folder


@pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.value)
def test_every_layout_holds_the_same_tensors(tmp_path: Path, layout: Layout) -> None:
    tensors = open_checkpoint(write_checkpoint(tmp_path / "c", CONFIG, seed=3, files=Files(layout)))
    expected = random_tensors(CONFIG, 3, torch.float16)
    assert sorted(tensors) == sorted(expected)
    for name, values in expected.items():
        assert tensors.shape(name) == tuple(values.shape)
        assert torch.equal(tensors[name], values)


def test_a_file_from_before_torch_1_6_still_reads(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "c", CONFIG)
    torch.save(random_tensors(CONFIG, 0), folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert len(open_checkpoint(folder)) == len(random_tensors(CONFIG, 0))


class Evil:
    """Unpickles into a shell command."""

    def __init__(self, witness: Path) -> None:
        self._witness = witness

    def __reduce__(self) -> Any:
        return (os.system, (f"touch '{self._witness}'",))


@pytest.mark.parametrize("new", [True, False])
def test_a_pickle_that_wants_more_than_tensors_is_refused_by_name(tmp_path: Path, new: bool) -> None:
    folder = write_checkpoint(tmp_path / "c", CONFIG)
    witness = tmp_path / "was here"
    torch.save({"model.norm.weight": Evil(witness)}, folder / "pytorch_model.bin", _use_new_zipfile_serialization=new)
    assert f"{folder / 'pytorch_model.bin'}: refused" in error_of(folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(witness), protocol=2))
    assert str(folder / "pytorch_model.bin") in error_of(folder)
    assert not witness.exists()


@pytest.mark.parametrize("content", [b"", b"no torch file", b"PK\x03\x04 truncated"])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    folder = write_checkpoint(tmp_path / "c", CONFIG)
    (folder / name).write_bytes(content)
    assert str(folder / name) in error_of(folder)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "c", CONFIG)
    path = folder / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:-1000])
    assert str(path) in error_of(folder)


def test_something_that_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "c", CONFIG)
    torch.save({"epoch": 3, "model": {}}, folder / "pytorch_model.bin")
    assert "not a dictionary of tensors" in error_of(folder)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    assert "lm_head.weight is missing" in error_of(rewrite(tmp_path / "c", {}, drop="lm_head.weight"))


def test_a_misshapen_tensor_is_named_with_both_shapes(tmp_path: Path) -> None:
    message = error_of(rewrite(tmp_path / "c", {"model.norm.weight": torch.ones(63)}))
    assert "model.norm.weight is [63], expected [64]" in message


def test_no_weights_at_all_is_said(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "c", CONFIG)
    (folder / "pytorch_model.bin").unlink()
    assert "no weights here" in error_of(folder)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "c", CONFIG, files=Files(Layout.SHARDED_BIN))
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    assert "pytorch_model-00002-of-00002.bin: no such file" in error_of(folder)


@pytest.mark.parametrize("text", ["{}", '{"weight_map": {}}', '{"weight_map": {"a": 1}}', "nothing"])
def test_an_index_without_shards_is_named(tmp_path: Path, text: str) -> None:
    folder = write_checkpoint(tmp_path / "c", CONFIG, files=Files(Layout.SHARDED_BIN))
    (folder / "pytorch_model.bin.index.json").write_text(text)
    assert "pytorch_model.bin.index.json" in error_of(folder)


def test_a_shard_outside_the_folder_is_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "c", CONFIG, files=Files(Layout.SHARDED_BIN))
    (folder / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "../other.bin"}}')
    assert "'../other.bin' is not a plain file name" in error_of(folder)


def test_a_checkpoint_without_tower_takes_it_from_a_given_folder(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "c", CONFIG, seed=1, files=Files(tower=False))
    tower = write_tower(tmp_path / "tower", CONFIG, seed=2)
    tensors = open_checkpoint(folder, tower)
    expected = random_tensors(CONFIG, 2, torch.float16)
    for name in (name for name in expected if name.startswith(VISION_PREFIX)):
        assert torch.equal(tensors[name], expected[name])
    assert tensors.unused(CONFIG) == []


def test_a_checkpoint_without_tower_says_which_one_it_wants(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "c", CONFIG, files=Files(tower=False))
    assert "holds no vision tower" in error_of(folder)
    assert "openai_clip" in error_of(folder)


def test_left_over_tensors_are_told_but_not_the_buffers_of_older_libraries(tmp_path: Path) -> None:
    more = {"model.image_newline": torch.zeros(3), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8)}
    tensors = open_checkpoint(rewrite(tmp_path / "c", {**more, f"{VISION_PREFIX}embeddings.position_ids": torch.zeros(1, 577)}))
    assert tensors.unused(CONFIG) == ["model.image_newline"]

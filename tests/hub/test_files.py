"""Which files of a repository are wanted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.hub.files import is_convertible, wanted_files

RELEASED = (
    ".gitattributes",
    "README.md",
    "config.json",
    "generation_config.json",
    "pytorch_model.bin",
    "special_tokens_map.json",
    "tokenizer.model",
    "tokenizer_config.json",
)
SHARDED = (
    "config.json",
    "pytorch_model-00001-of-00002.bin",
    "pytorch_model-00002-of-00002.bin",
    "pytorch_model.bin.index.json",
    "tokenizer.model",
)


def test_a_released_checkpoint_is_config_tokenizer_and_weights() -> None:
    assert wanted_files(RELEASED) == ("config.json", "generation_config.json", "pytorch_model.bin", "tokenizer.model")


def test_shards_come_with_their_index() -> None:
    assert wanted_files(SHARDED) == SHARDED


def test_weights_in_two_formats_are_wanted_once_as_safetensors() -> None:
    wanted = wanted_files((*RELEASED, "model.safetensors", "tf_model.h5", "flax_model.msgpack"))
    assert "model.safetensors" in wanted
    assert not {"pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"} & set(wanted)


def test_training_state_beside_the_weights_is_left() -> None:
    assert "optimizer.bin" not in wanted_files((*RELEASED, "optimizer.bin", "training_args.bin", "checkpoint-10/config.yaml"))


def test_an_adapter_is_its_config_its_weights_and_the_projector_trained_beside_it() -> None:
    names = (
        "README.md",
        "adapter_config.json",
        "adapter_model.bin",
        "config.json",
        "non_lora_trainables.bin",
        "trainer_state.json",
    )
    assert wanted_files(names) == ("adapter_config.json", "adapter_model.bin", "config.json", "non_lora_trainables.bin")
    assert is_convertible(names)


def test_a_tower_folders_config_is_wanted() -> None:
    assert "openai_clip/config.json" in wanted_files((*RELEASED, "openai_clip/config.json", "openai_clip/notes.txt"))


def test_a_repository_without_weights_or_without_a_config_is_no_checkpoint() -> None:
    assert is_convertible(RELEASED)
    assert is_convertible(SHARDED)
    assert not is_convertible(("README.md", "config.json"))
    assert not is_convertible(("pytorch_model.bin",))
    assert not is_convertible(("adapter_config.json",))


@given(st.lists(st.one_of(st.text("./\\ab-_0", max_size=12), st.sampled_from((*RELEASED, *SHARDED))), max_size=12))
def test_wanted_files_are_some_of_those_there_and_never_lead_out_of_the_folder(names: list[str]) -> None:
    wanted = wanted_files(names)
    assert set(wanted) <= set(names)
    assert not any(name.startswith(("/", ".")) or ".." in name.split("/") or "\\" in name for name in wanted)

"""The catalogue holds what is published of the released checkpoints, and numbers that follow from their shapes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mobilevlm_ros.checkpoint.config import VisionConfig
from mobilevlm_ros.hub.catalogue import CATALOGUE_FILE, Entry, catalogue, find
from mobilevlm_ros.hub.errors import HubError
from mobilevlm_ros.hub.resolve import find_repository
from mobilevlm_ros.models import shipped_package
from mobilevlm_ros.runtime.manifest import Precision
from mobilevlm_ros.runtime.package import ModelPackage

RELEASED = [entry for entry in catalogue() if entry.hub_id is not None]

# From the released configs: LLM, hidden size, layers, heads, head width, MLP, rms eps, positions, projector.
PUBLISHED = {
    "mtgv/MobileVLM-1.7B": ("MobileLLaMA-1.4B-Chat", 2048, 24, 16, 128, 5632, 1e-6, 2048, "ldpnet"),
    "mtgv/MobileVLM-3B": ("MobileLLaMA-2.7B-Chat", 2560, 32, 32, 80, 6912, 1e-6, 2048, "ldpnet"),
    "mtgv/MobileVLM_V2-1.7B": ("MobileLLaMA-1.4B-Chat", 2048, 24, 16, 128, 5632, 1e-6, 2048, "ldpnetv2"),
    "mtgv/MobileVLM_V2-3B": ("MobileLLaMA-2.7B-Chat", 2560, 32, 32, 80, 6912, 1e-6, 2048, "ldpnetv2"),
    "mtgv/MobileVLM_V2-7B": ("Vicuna-7B-v1.5", 4096, 32, 32, 128, 11008, 1e-5, 4096, "ldpnetv2"),
}
LANGUAGE_PARAMETERS = {2048: 1_364_297_728, 2560: 2_701_560_320}
PROJECTOR_PARAMETERS = {
    ("ldpnet", 2048): 18_936_832,
    ("ldpnet", 2560): 28_913_920,
    ("ldpnetv2", 2048): 6_316_032,
    ("ldpnetv2", 2560): 9_205_760,
    ("ldpnetv2", 4096): 21_020_672,
}
# Gigabytes of the weight files as the hub shows them.
FILE_SIZES = {"1.7b": 3.37, "3b": 6.07, "v2-1.7b": 3.35, "v2-3b": 6.03, "v2-7b": 9.98 + 4.15}


def names(entry: Entry) -> str:
    return entry.name


def test_every_released_checkpoint_has_an_entry() -> None:
    assert [entry.hub_id for entry in RELEASED] == list(PUBLISHED)


@pytest.mark.parametrize("entry", RELEASED, ids=names)
def test_the_sizes_are_the_published_ones(entry: Entry) -> None:
    config = entry.config
    found = (
        entry.language_model,
        config.hidden_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.head_dim,
        config.intermediate_size,
        config.rms_norm_eps,
        config.max_position_embeddings,
        config.projector.value,
    )
    assert found == PUBLISHED[entry.hub_id or ""]
    assert (config.vocab_size, config.num_key_value_heads) == (32000, config.num_attention_heads)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, 0)
    assert (config.rope_theta, config.tie_word_embeddings, config.image_tokens) == (10000.0, False, 144)
    assert (config.mm_vision_tower, config.mm_vision_select_layer) == ("openai/clip-vit-large-patch14-336", -2)
    assert config.vision == VisionConfig.clip_vit_l_336()


@pytest.mark.parametrize("entry", RELEASED, ids=names)
def test_parameter_counts_are_the_published_ones(entry: Entry) -> None:
    hidden = entry.config.hidden_size
    assert entry.parameters.language == LANGUAGE_PARAMETERS.get(hidden, entry.parameters.language)
    assert entry.parameters.projector == PROJECTOR_PARAMETERS[entry.config.projector.value, hidden]


@pytest.mark.parametrize("name", FILE_SIZES)
def test_the_download_is_as_large_as_the_hub_shows(name: str) -> None:
    entry = find(name)
    assert entry is not None
    assert entry.download_bytes / 1e9 == pytest.approx(FILE_SIZES[name], abs=0.01)


@pytest.mark.parametrize("entry", RELEASED, ids=names)
def test_a_revision_is_a_whole_commit_or_the_main_branch(entry: Entry) -> None:
    assert entry.revision == "main" or re.fullmatch(r"[0-9a-f]{40}", entry.revision)


def test_what_follows_from_the_shapes_is_up_to_date() -> None:
    pytest.importorskip("onnx", reason="package sizes come from the graphs")
    from bench.catalogue import computed

    written = json.loads(CATALOGUE_FILE.read_text(encoding="utf-8"))
    assert written == computed(), "run: python -m bench.catalogue"


def test_the_shipped_model_is_as_large_as_the_catalogue_says() -> None:
    nano = find("nano")
    assert nano is not None
    files = ModelPackage.open_unverified(shipped_package()).manifest.files
    weights = sum(file.bytes for name, file in files.items() if name.endswith((".data", ".npy")) and ".trt." not in name)
    header = 128  # of the embeddings' .npy
    assert nano.package_bytes[Precision.FP16.value] == weights - header


@pytest.mark.parametrize("name", ["v2-1.7b", "V2-1.7B", "MobileVLM_V2-1.7B", "mtgv/mobilevlm_v2-1.7b"])
def test_a_checkpoint_is_found_by_short_name_title_and_hub_id_in_any_case(name: str) -> None:
    assert find_repository(name).hub_id == "mtgv/MobileVLM_V2-1.7B"


def test_any_other_hub_id_is_taken_as_it_is() -> None:
    repository = find_repository("someone/some-model")
    assert (repository.hub_id, repository.revision) == ("someone/some-model", None)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("v2-1.8b", "did you mean v2-1.7b"),
        ("llava", "known are 1.7b, 3b, v2-1.7b, v2-3b, v2-7b"),
        ("nano", "ships with this package"),
        ("", "known are"),
        ("a/b/c", "neither a folder, nor a hub id"),
    ],
)
def test_a_name_that_means_nothing_is_answered_with_those_that_do(name: str, line: str) -> None:
    with pytest.raises(HubError, match=line):
        find_repository(name)


@pytest.mark.parametrize("entry", catalogue(), ids=names)
def test_a_figure_that_was_not_measured_has_a_reason(entry: Entry) -> None:
    assert entry.not_measured or (entry.conversion and entry.run)
    for measured in (*entry.conversion, *entry.run):
        assert measured.how
        assert measured.machine
        assert 0 < measured.anonymous_bytes <= measured.peak_bytes
        assert measured.seconds > 0


def test_the_catalogue_lies_where_an_installed_package_finds_it() -> None:
    assert CATALOGUE_FILE.parent == Path(__file__).resolve().parents[2] / "mobilevlm_ros" / "hub"

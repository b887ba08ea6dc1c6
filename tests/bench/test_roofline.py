"""The traffic model: its counts, its anchors, and the goal that it argues."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bench.roofline import PAPER_DECODE, left_out, shape_of_config
from mobilevlm_ros.bench.roofline import ANCHORS, Anchor, Orin, efficiency, predict, shape_of
from mobilevlm_ros.hub.catalogue import find
from mobilevlm_ros.models import shipped_folder
from mobilevlm_ros.runtime.manifest import Manifest

entry = find("MobileVLM_V2-1.7B")
assert entry is not None
SMALL = shape_of_config(entry.config, 4)


def test_it_counts_the_weights_of_the_1_7b_checkpoint() -> None:
    # 24 layers of four maps 2048 x 2048 and three 2048 x 5632; the vocabulary has 32,000 words of 2048.
    assert SMALL.language.layer_weights == 24 * (4 * 2048**2 + 3 * 2048 * 5632)
    assert SMALL.language.head_weights == 32000 * 2048
    assert SMALL.weight_bytes == pytest.approx(1_233_125_376 * (0.5 + 2 / 128) + 131_072_000)


def test_a_token_of_the_cache_takes_what_its_keys_and_values_take() -> None:
    assert SMALL.language.cache_bytes(1) == 192 * 1024
    assert SMALL.decode_bytes(512) - SMALL.decode_bytes(0) == 512 * 192 * 1024


def test_a_shape_is_read_from_a_package_too() -> None:
    manifest = Manifest.from_json((shipped_folder("nano") / "package" / "manifest.json").read_text())
    found = shape_of(manifest, 16)
    assert found.language.layers == manifest.decoder.layers
    assert found.tower.tokens == (manifest.vision.image_size // manifest.vision.patch_size) ** 2 + 1


@pytest.mark.parametrize("anchor", ANCHORS, ids=lambda anchor: f"{anchor.board.name}, {anchor.decode:g} tokens/s")
def test_each_published_figure_follows_from_the_others_within_a_third(anchor: Anchor) -> None:
    found = left_out(anchor)
    assert found.decode_tokens_per_s.middle == pytest.approx(anchor.decode, rel=1 / 3)
    if anchor.encode_ms is not None and anchor.prefill_ms is not None:
        assert found.encode_ms.middle == pytest.approx(anchor.encode_ms, rel=1 / 3)
        assert found.prefill_ms.middle == pytest.approx(anchor.prefill_ms, rel=1 / 3)


def test_no_anchor_beats_the_hardware() -> None:
    shares = efficiency()
    assert all(0.3 < share.low <= share.high < 1 for share in (shares.decode, shares.encode, shares.prefill))


def test_the_goal_on_an_agx_orin_is_within_what_others_reach() -> None:
    found = predict(SMALL, Orin.AGX_64.value)
    assert found.decode_tokens_per_s.low > 2 * PAPER_DECODE - 1
    assert found.answer_ms.high < 350


def test_more_bandwidth_and_more_cores_are_never_slower() -> None:
    boards = [Orin.NANO_8.value, Orin.NX_16.value, Orin.AGX_64.value]
    answers = [predict(SMALL, board).answer_ms.high for board in boards]
    assert answers == sorted(answers, reverse=True)


def test_the_command_prints_what_it_predicts() -> None:
    told = subprocess.run([sys.executable, "-m", "bench.roofline"], capture_output=True, text=True, check=True).stdout
    assert "AGX Orin 64 GB" in told
    data = json.loads(subprocess.run([sys.executable, "-m", "bench.roofline", "--json"], capture_output=True, check=True).stdout)
    assert len(data["predictions"]) == 5 * 2 * len(Orin)

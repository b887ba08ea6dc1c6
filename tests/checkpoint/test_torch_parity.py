"""The PyTorch modules give what the official code gave."""

from __future__ import annotations

import pytest
import torch

from mobilevlm_ros.checkpoint.config import MobileVlmConfig
from mobilevlm_ros.checkpoint.lora import AdaptedTensors
from mobilevlm_ros.checkpoint.model import MobileVLM, normalise
from mobilevlm_ros.checkpoint.reader import CheckpointTensors, load_model
from tests.parity import CASES, QUESTION, Case, letterboxed, prompt_ids, relative

TOLERANCE = 1e-4


def load(case: Case) -> MobileVLM:
    config = MobileVlmConfig.read(case.checkpoint)
    tensors = CheckpointTensors.open(case.checkpoint, config)
    return load_model(tensors if case.adapter is None else AdaptedTensors(tensors, case.adapter, config), config)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_features_logits_and_tokens_are_those_of_the_official_code(case: Case) -> None:
    golden, model = case.golden, load(case)
    pixels = normalise(torch.tensor(letterboxed(336)), model.config.vision)
    ids = torch.tensor([prompt_ids(QUESTION)])
    with torch.no_grad():
        features = model.encode_images(pixels)
        logits = model(ids, pixel_values=pixels)[0].numpy()
    assert ids.tolist() == golden["input_ids"].tolist()
    assert relative(features.numpy(), golden["features"]) < TOLERANCE
    assert relative(logits[-1], golden["last_logits"]) < TOLERANCE
    if "all_last8" in golden:
        assert relative(logits[-8:], golden["all_last8"]) < TOLERANCE
    assert model.generate(ids, pixels, len(golden["tokens"])) == golden["tokens"].tolist()


@pytest.mark.parametrize("case", CASES[:2], ids=lambda case: case.name)
def test_the_padded_normalised_picture_is_that_of_the_official_code(case: Case) -> None:
    golden = case.golden
    vision = MobileVlmConfig.read(case.checkpoint).vision
    pixels = normalise(torch.tensor(letterboxed(336)), vision).contiguous().numpy()
    assert abs(pixels.ravel()[golden["pixel_index"]] - golden["pixel_values"]).max() < 1e-5

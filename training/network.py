"""The nano model's sizes and its parts as torch modules: vision tower, projector, embeddings, language decoder.

The tower is built without its last layer while training: MobileVLM's feature is the output of the layer before it.
"""

from __future__ import annotations

import os

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from mobilevlm_ros.checkpoint.projector import LDPNetV2Projector
from training.pictures import MEAN, PATCH, SIDE, STD
from training.vocabulary import SIZE, Words

WIDTH = 192
VISION_LAYERS, VISION_HEADS, VISION_MLP = 7, 3, 768
LAYERS, HEADS, MLP = 5, 3, 384
MAX_POSITION = 1024


def vision_config(layers: int = VISION_LAYERS) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=VISION_MLP,
        num_hidden_layers=layers,
        num_attention_heads=VISION_HEADS,
        image_size=SIDE,
        patch_size=PATCH,
        hidden_act="quick_gelu",
        projection_dim=WIDTH,
        attn_implementation="eager",
    )


def language_config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=SIZE,
        hidden_size=WIDTH,
        intermediate_size=MLP,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=MAX_POSITION,
        rms_norm_eps=1e-6,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )


def projector() -> LDPNetV2Projector:
    return LDPNetV2Projector(WIDTH, WIDTH)


class Eyes(nn.Module):
    """Tower and projector: bytes of a picture to visual tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = CLIPVisionModel(vision_config(VISION_LAYERS - 1))
        self.projector = projector()
        self.register_buffer("mean", torch.from_numpy(MEAN * 255.0).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.from_numpy(STD * 255.0).view(1, 3, 1, 1), persistent=False)

    def features(self, pixels: Tensor) -> Tensor:
        """[B, 168, 168, 3] bytes to [B, 144, width]."""
        image = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.deviation
        return self.tower(pixel_values=image).last_hidden_state[:, 1:]

    def forward(self, pixels: Tensor) -> Tensor:
        return self.projector(self.features(pixels))


def initial_embeddings(words: Words, seed: int = 0) -> Tensor:
    """Rows for every token: words at random, coordinates so that near numbers are near; capital names as lower-case."""
    torch.manual_seed(seed)
    rows = torch.randn(SIZE, WIDTH) / WIDTH**0.5
    value = torch.arange(101).float()[:, None] / 100.0
    waves = torch.cos(2.0 * torch.pi * (value * torch.randn(WIDTH) * 6.0 + torch.rand(WIDTH)))
    waves = waves * (2.0 / WIDTH) ** 0.5
    for spaced in (False, True):
        rows[words.numbers(spaced)] = waves
    return rows


def language_model() -> LlamaForCausalLM:
    return LlamaForCausalLM(language_config())

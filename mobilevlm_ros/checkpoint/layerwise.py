"""Runs a MobileVLM whose weights are read layer by layer, for machines that cannot hold it whole.

Activations of all pictures and prompts go through one layer before the next is read, so memory holds one layer in float32 beside
them. Mirrors `model.MobileVLM` and uses the same modules of `transformers`; knows nothing of what the activations are wanted for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.clip.modeling_clip import CLIPEncoderLayer, CLIPVisionEmbeddings
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm, LlamaRotaryEmbedding

from mobilevlm_ros.checkpoint.config import MobileVlmConfig
from mobilevlm_ros.checkpoint.model import (
    EMBEDDING_NAME,
    HEAD_NAME,
    PROJECTOR_PREFIX,
    VISION_PREFIX,
    clip_config,
    llama_config,
    normalise,
)
from mobilevlm_ros.checkpoint.projector import make_projector

Observer = Callable[[str, Tensor], None]
"""Is given a linear weight's released name and what it is multiplied with, [..., in]."""


class Layer:
    """One layer of the tower or of the decoder with its weights in float32."""

    def __init__(self, prefix: str, module: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        self.prefix = prefix
        self._module = module
        self._call = call

    @property
    def size(self) -> int:
        """Bytes of the layer's weights."""
        return sum(parameter.numel() * parameter.element_size() for parameter in self._module.parameters())

    def linears(self) -> dict[str, nn.Linear]:
        """The layer's linear maps by their weights' released names, in the order of computation."""
        modules = self._module.named_modules()
        return {f"{self.prefix}{name}.weight": module for name, module in modules if isinstance(module, nn.Linear)}

    @torch.no_grad()
    def __call__(self, hidden: Tensor) -> Tensor:
        """Hidden states [N, T, width] to those behind the layer."""
        return self._call(self._module, hidden)

    def observe(self, hidden: Tensor, observer: Observer) -> Tensor:
        """As calling, and shows `observer` the input of each linear map."""
        handles = [module.register_forward_pre_hook(_shows(name, observer)) for name, module in self.linears().items()]
        try:
            return self(hidden)
        finally:
            for handle in handles:
                handle.remove()


class LayerwiseVision:
    """The tower up to the selected layer, and the projector."""

    def __init__(self, tensors: Mapping[str, Tensor], config: MobileVlmConfig) -> None:
        """`tensors` are the checkpoint's by released names; they are read when a part is asked for."""
        self._tensors = tensors
        self._config = config
        self._clip = clip_config(config.vision)
        self._clip._attn_implementation = "sdpa"

    @torch.no_grad()
    def embed(self, pixels: Tensor) -> Tensor:
        """Letterboxed pictures uint8 [N, S, S, 3] to the tower's first hidden states [N, 1 + grid * grid, width]."""
        vision = self._config.vision
        norm = nn.LayerNorm(vision.hidden_size, eps=vision.layer_norm_eps)
        parts = nn.ModuleDict({"embeddings": CLIPVisionEmbeddings(self._clip), "pre_layrnorm": norm})
        _fill(parts, self._tensors, VISION_PREFIX)
        hidden: Tensor = parts["pre_layrnorm"](parts["embeddings"](normalise(pixels, vision)))
        return hidden

    def layers(self) -> Iterator[Layer]:
        """The layers that a feature passes, each read when its turn comes."""
        for number in range(self._config.vision_layers_used):
            prefix = f"{VISION_PREFIX}encoder.layers.{number}."
            module = _empty(partial(CLIPEncoderLayer, self._clip))
            _fill(module, self._tensors, prefix)
            yield Layer(prefix, module, lambda module, hidden: module(hidden, None))

    @torch.no_grad()
    def project(self, hidden: Tensor) -> Tensor:
        """Hidden states behind the last layer to visual tokens [N, image_tokens, hidden]."""
        config = self._config
        projector = make_projector(config.projector, config.vision.hidden_size, config.hidden_size)
        _fill(projector, self._tensors, PROJECTOR_PREFIX)
        features: Tensor = projector(hidden[:, 1:])
        return features


class LayerwiseDecoder:
    """The language decoder over embeddings."""

    def __init__(self, tensors: Mapping[str, Tensor], config: MobileVlmConfig) -> None:
        """As `LayerwiseVision`."""
        self._tensors = tensors
        self._config = config
        self._llama = llama_config(config)
        self._llama._attn_implementation = "sdpa"
        self._rotary = LlamaRotaryEmbedding(self._llama)

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids [T] to embeddings [T, hidden]."""
        return self._tensors[EMBEDDING_NAME][ids].float()

    def layers(self) -> Iterator[Layer]:
        """All layers, each read when its turn comes. They take [N, T, hidden] of causal sequences without padding."""
        for number in range(self._config.num_hidden_layers):
            prefix = f"model.layers.{number}."
            module = _empty(partial(LlamaDecoderLayer, self._llama, number))
            _fill(module, self._tensors, prefix)
            yield Layer(prefix, module, self._call)

    @torch.no_grad()
    def norm(self, hidden: Tensor) -> Tensor:
        """The last normalisation, behind all layers."""
        norm = LlamaRMSNorm(self._config.hidden_size, eps=self._config.rms_norm_eps)
        _fill(norm, self._tensors, "model.norm.")
        normed: Tensor = norm(hidden)
        return normed

    def head(self) -> Tensor:
        """The matrix [vocab, hidden] from normalised states to logits, float32."""
        return self._tensors[self.head_name].float()

    @property
    def head_name(self) -> str:
        """The released name of `head`."""
        return EMBEDDING_NAME if self._config.tie_word_embeddings else HEAD_NAME

    def _call(self, module: nn.Module, hidden: Tensor) -> Tensor:
        positions = torch.arange(hidden.shape[1])[None]
        states: Tensor = module(hidden, position_ids=positions, position_embeddings=self._rotary(hidden, positions))
        return states


def _shows(name: str, observer: Observer) -> Any:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        observer(name, inputs[0])

    return hook


def _empty(make: Callable[[], nn.Module]) -> nn.Module:
    """A module whose parameters lie in memory, uninitialised."""
    with torch.device("meta"):
        module = make()
    return module.to_empty(device="cpu").eval()


@torch.no_grad()
def _fill(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> None:
    for name, parameter in module.named_parameters():
        parameter.copy_(tensors[prefix + name])

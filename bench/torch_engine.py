"""The official way as `bench.cpu` drives it: PyTorch through `transformers`, with random weights.

The tower is a CLIPVisionModel, the decoder a LlamaForCausalLM, the projector this repository's. Nothing is kept from one question
to the next, as in the official inference code.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.cpu_stages import ANSWER_TOKENS, DECODE_TOKENS, HEAD_TOKENS, PROMPT_TOKENS, TAIL_TOKENS, BenchError, Stage, token_ids
from mobilevlm_ros.checkpoint.config import MobileVlmConfig
from mobilevlm_ros.checkpoint.model import MobileVLM, normalise
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.geometry import letterbox

_DEVIATION = 0.02
_CHUNK = 1 << 22


class TorchType(Enum):
    """The numbers that weights and activations are; the value is PyTorch's name."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Torch:
    """Implements `Subject` but for FOLLOW_UP and FOUR_AT_ONCE, which the official code answers like so many first questions."""

    def __init__(self, config: MobileVlmConfig, kind: TorchType, threads: int) -> None:
        torch.set_num_threads(threads)
        self._dtype: torch.dtype = getattr(torch, kind.value)
        self._config = config
        self._model = _random_model(config, self._dtype)
        weights = sum(tensor.numel() for tensor in self._model.language.parameters())
        weights -= self._model.language.get_input_embeddings().weight.numel()
        kept = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
        self.bytes_per_token = (weights + PROMPT_TOKENS * kept) * self._dtype.itemsize
        self._stages: dict[Stage, Callable[[np.ndarray], float]] = {
            Stage.ENCODE: self._encode_stage,
            Stage.PREFILL: self._prefill_stage,
            Stage.DECODE: self._decode_stage,
            Stage.FIRST_QUESTION: self._first_question,
        }

    @torch.inference_mode()
    def run(self, stage: Stage, picture: np.ndarray) -> float:
        if stage not in self._stages:
            raise BenchError(f"the official code has no {stage.value}")
        return self._stages[stage](picture)

    def _encode_stage(self, picture: np.ndarray) -> float:
        start = time.perf_counter()
        self._encode(picture)
        return _since(start)

    def _prefill_stage(self, picture: np.ndarray) -> float:
        start = time.perf_counter()
        self._prefill(self._model.embed(_ids(PROMPT_TOKENS)))
        return _since(start)

    def _decode_stage(self, picture: np.ndarray) -> float:
        result = self._prefill(self._model.embed(_ids(PROMPT_TOKENS)))
        start = time.perf_counter()
        self._answer(result, DECODE_TOKENS + 1)
        return _since(start)

    def _first_question(self, picture: np.ndarray) -> float:
        start = time.perf_counter()
        head, tail = (self._model.embed(_ids(count)) for count in (HEAD_TOKENS, TAIL_TOKENS))
        self._answer(self._prefill(torch.cat([head, self._encode(picture), tail], dim=1)), ANSWER_TOKENS)
        return _since(start)

    def _encode(self, picture: np.ndarray) -> Tensor:
        vision = self._config.vision
        red, green, blue = (int(value * 255) for value in vision.image_mean)
        pixels = letterbox(Frame(picture), vision.image_size, (red, green, blue))
        return self._model.encode_images(normalise(torch.from_numpy(pixels)[None], vision).to(self._dtype))

    def _prefill(self, embeddings: Tensor) -> Any:
        return self._model.language(inputs_embeds=embeddings, use_cache=True, logits_to_keep=1)

    def _answer(self, result: Any, length: int) -> None:
        """The rest of an answer of `length` tokens whose prompt has been taken in."""
        for _ in range(length - 1):
            token = result.logits[:, -1].argmax(dim=-1, keepdim=True)
            embeddings = self._model.embed(token)
            result = self._model.language(inputs_embeds=embeddings, past_key_values=result.past_key_values, use_cache=True)


def _random_model(config: MobileVlmConfig, dtype: torch.dtype) -> MobileVLM:
    """A model whose weights are made up in place: it is never held in memory twice."""
    with torch.device("meta"):
        model = MobileVLM(config)
    model = model.to(dtype).to_empty(device="cpu").eval()
    numbers = torch.randn(_CHUNK, generator=torch.Generator().manual_seed(0)).mul_(_DEVIATION).to(dtype)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            flat = tensor.view(-1)
            for start in range(0, len(flat), _CHUNK):
                part = flat[start : start + _CHUNK]
                part.copy_(numbers[: len(part)])
            if name.endswith("norm.weight"):
                tensor.fill_(1)
    _restore_buffers(model, config)
    return model


def _restore_buffers(model: MobileVLM, config: MobileVlmConfig) -> None:
    """What is computed and not learnt, of which `to_empty` left nothing: positions and rotary frequencies."""
    for name, buffer in model.named_buffers():
        if name.endswith("position_ids"):
            buffer.copy_(torch.arange(buffer.shape[-1]).expand_as(buffer))
        elif name.endswith("inv_freq"):
            exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
            buffer.copy_(1.0 / config.rope_theta**exponents)


def _ids(count: int) -> Tensor:
    """Token ids [1, count] without a meaning."""
    return torch.tensor([token_ids(count)])


def _since(start: float) -> float:
    return (time.perf_counter() - start) * 1e3

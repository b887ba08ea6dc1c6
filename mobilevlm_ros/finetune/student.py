"""The model that learns: a frozen MobileVLM, a LoRA on its language model, and its projector.

Knows `peft` and how the parts are joined; knows nothing of files, of the order of examples and of the optimiser.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding

from mobilevlm_ros.checkpoint.config import MobileVlmConfig
from mobilevlm_ros.checkpoint.model import MobileVLM, normalise
from mobilevlm_ros.finetune.batches import Batch
from mobilevlm_ros.finetune.examples import IGNORE_INDEX
from mobilevlm_ros.finetune.recipe import Projector, Recipe

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Every Linear of the language model but `lm_head`."""


@dataclass(frozen=True)
class Compute:
    """Where and how it is computed. Frozen weights are held in `dtype`, what is trained in float32."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    recompute: bool = False
    """Keep only what enters each layer and compute the layer again for its gradient: slower, with much less memory."""


class Student:
    """A MobileVLM ready to be trained."""

    def __init__(self, tensors: Mapping[str, Tensor], config: MobileVlmConfig, recipe: Recipe, compute: Compute) -> None:
        """Loads the base's `tensors`; the adapter begins as `peft` draws it, with no effect.

        Raises CheckpointError where tensors do not fit the config.
        """
        with _quiet():
            from peft import LoraConfig, TaskType, get_peft_model

        self.config = config
        self.compute = compute
        self.projector_use = recipe.projector
        self.model = _load(tensors, config, compute)
        lora = LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.alpha,
            lora_dropout=recipe.dropout,
            target_modules=list(TARGETS),
            bias="none",
            task_type=TaskType.CAUSAL_LM,
        )
        torch.manual_seed(recipe.seed)
        with _quiet():
            self.peft = get_peft_model(self.model.language, lora)
        self.model.projector.requires_grad_(recipe.projector is Projector.TRAINED)
        if compute.recompute:
            language = self.model.language
            # The older name is the only one before transformers 5.23.
            enable = getattr(language, "activation_checkpointing_enable", None) or language.gradient_checkpointing_enable
            enable({"use_reentrant": False})

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What is trained, by a name that stays the same from run to run."""
        yield from ((f"language.{name}", p) for name, p in self.peft.named_parameters() if p.requires_grad)
        yield from ((f"projector.{name}", p) for name, p in self.model.projector.named_parameters() if p.requires_grad)

    def learn_mode(self) -> None:
        """Dropout on."""
        self.model.language.train()

    def test_mode(self) -> None:
        """Dropout off."""
        self.model.language.eval()

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """What never changes about pictures: uint8 [N, S, S, 3] to the tower's [N, patches, width], or with a frozen projector to
        visual tokens [N, image_tokens, hidden]; in the base's dtype."""
        values = normalise(pixels.to(self.compute.device), self.config.vision).to(self.compute.dtype)
        patches = self.model.encode_patches(values)
        if self.projector_use is Projector.TRAINED:
            return patches
        return self.model.projector(patches)

    def loss(self, batch: Batch, features: Tensor | None) -> tuple[Tensor, int]:
        """The summed cross entropy of a batch's answer tokens, and how many they are.

        `features` come from `encode`, one for each of the batch's pictures in its order; None where it has none.
        """
        device, dtype = self.compute.device, self.compute.dtype
        with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
            # Not by calling the module: for recomputed layers transformers hooks it to make its output a leaf of the gradient.
            embeds = embedding(batch.ids.to(device), self.model.language.get_input_embeddings().weight)
            if features is not None:
                visual = self.model.projector(features) if self.projector_use is Projector.TRAINED else features
                places = slice(batch.picture_at, batch.picture_at + visual.shape[1])
                embeds[batch.pictured.to(device), places] = visual.to(embeds.dtype)
            hidden = self.model.language.model(inputs_embeds=embeds, use_cache=False).last_hidden_state[:, :-1]
            labels = batch.labels[:, 1:].to(device)
            learnt = labels != IGNORE_INDEX
            # Only the answers' positions reach the head: with 32,000 pieces the others' logits would fill the memory.
            logits = self.model.language.lm_head(hidden[learnt])
        return cross_entropy(logits.float(), labels[learnt], reduction="sum"), int(learnt.sum())

    def save_adapter(self, folder: str) -> None:
        """Writes PEFT's files; raises OSError."""
        self.peft.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)

    def projector_tensors(self) -> dict[str, Tensor]:
        """The trained projector's tensors by its own names, float32 in the processor's memory."""
        return {name: tensor.detach().float().cpu().clone() for name, tensor in self.model.projector.state_dict().items()}


def _load(tensors: Mapping[str, Tensor], config: MobileVlmConfig, compute: Compute) -> MobileVLM:
    """The base on its device in its dtype, made there so that no second copy is needed on the way."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(compute.dtype)
    try:
        with torch.device(compute.device):
            model = MobileVLM(config)
    finally:
        torch.set_default_dtype(before)
    model.load_tensors(tensors)
    model.requires_grad_(False)
    model.projector.float()
    return model.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the log lines and deprecation notices of the libraries that `peft` looks for, which say nothing to our user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.disable(before)


def device_named(name: str) -> Any:
    """`auto`, `cpu`, `cuda` or `cuda:1` as a torch device; raises RuntimeError or ValueError for what there is not."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("no CUDA device that this torch can use")
    return device

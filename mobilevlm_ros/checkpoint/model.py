"""MobileVLM in PyTorch: the vision tower and the Llama of `transformers`, our projector, and how the three are joined.

Used to train, and to check what was exported. Knows the released tensor names; knows nothing of files (see `reader`), of
pictures' geometry and of prompts. Gradients flow everywhere unless the caller switches them off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from mobilevlm_ros.checkpoint.config import IMAGE_TOKEN, MobileVlmConfig, VisionConfig
from mobilevlm_ros.checkpoint.errors import CheckpointError
from mobilevlm_ros.checkpoint.projector import make_projector

VISION_PREFIX = "model.vision_tower.vision_tower.vision_model."
PROJECTOR_PREFIX = "model.mm_projector."
EMBEDDING_NAME = "model.embed_tokens.weight"
HEAD_NAME = "lm_head.weight"


class MobileVLM(nn.Module):
    """A MobileVLM with random weights; `load_tensors` or `reader.load_model` fill it.

    `vision` is a CLIPVisionModel, `projector` an LDPNetProjector or LDPNetV2Projector, `language` a LlamaForCausalLM.
    """

    def __init__(self, config: MobileVlmConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = CLIPVisionModel(clip_config(config.vision))
        self.projector = make_projector(config.projector, config.vision.hidden_size, config.hidden_size)
        self.language = LlamaForCausalLM(llama_config(config))

    def encode_patches(self, pixel_values: Tensor) -> Tensor:
        """The tower's features before the projector.

        `pixel_values` float [N, 3, S, S], normalised; returns [N, grid * grid, vision width]: the hidden states that the
        config selects, without the class token.
        """
        states = self.vision(pixel_values, output_hidden_states=True).hidden_states
        return states[self.config.vision_layers_used][:, 1:]

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Normalised float [N, 3, S, S] pictures to visual tokens [N, image_tokens, hidden]."""
        return self.projector(self.encode_patches(pixel_values))

    def embed(self, input_ids: Tensor, features: Tensor | None = None) -> Tensor:
        """Token embeddings with each IMAGE_TOKEN replaced by the next picture's visual tokens.

        `input_ids` int64 [B, L]; `features` [pictures, image_tokens, hidden], one for each IMAGE_TOKEN in reading order.
        Returns [B, L + pictures per row * (image_tokens - 1), hidden]; raises ValueError if rows would differ in length or
        pictures are missing or left over.
        """
        table = self.language.get_input_embeddings()
        given = 0 if features is None else features.shape[0]
        if int((input_ids == IMAGE_TOKEN).sum()) != given:
            raise ValueError(f"{int((input_ids == IMAGE_TOKEN).sum())} places for pictures, {given} pictures")
        if features is None:
            return table(input_ids)
        pictures = iter(features)
        rows = []
        for ids in input_ids:
            pieces: list[Tensor] = []
            start = 0
            for place in (ids == IMAGE_TOKEN).nonzero().flatten().tolist():
                pieces += [table(ids[start:place]), next(pictures)]
                start = place + 1
            rows.append(torch.cat([*pieces, table(ids[start:])]))
        if len({len(row) for row in rows}) != 1:
            raise ValueError("the rows of a batch must hold the same number of pictures")
        return torch.stack(rows)

    def forward(self, input_ids: Tensor, pixel_values: Tensor | None = None, features: Tensor | None = None) -> Tensor:
        """Logits [B, length after embedding, vocab] of a prompt with IMAGE_TOKEN where pictures stand.

        Pictures come as `pixel_values` (see `encode_images`) or, already encoded, as `features`. Rows are padded on the right by
        the caller; causal attention keeps the padding from what stands before it.
        """
        if pixel_values is not None:
            features = self.encode_images(pixel_values)
        return self.language(inputs_embeds=self.embed(input_ids, features), use_cache=False).logits

    @torch.no_grad()
    def generate(self, input_ids: Tensor, pixel_values: Tensor | None = None, max_tokens: int = 128) -> list[int]:
        """The greedy answer's token ids to one prompt ([1, L]), with the end-of-sequence token if that came."""
        features = None if pixel_values is None else self.encode_images(pixel_values)
        embeds = self.embed(input_ids, features)
        cache = None
        tokens: list[int] = []
        while len(tokens) < max_tokens:
            result = self.language(inputs_embeds=embeds, past_key_values=cache, use_cache=True)
            cache = result.past_key_values
            tokens.append(int(result.logits[0, -1].argmax()))
            if tokens[-1] == self.config.eos_token_id:
                break
            embeds = self.embed(torch.tensor([tokens[-1:]], device=input_ids.device))
        return tokens

    def named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight under its released name, in a fixed order; the tensors share the model's storage."""
        for name, tensor in self.state_dict().items():
            if not (self.config.tie_word_embeddings and name == "language.lm_head.weight"):
                yield _released_name(name), tensor

    @torch.no_grad()
    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Copies weights by released name, converting to the model's dtype.

        Raises CheckpointError naming the first tensor that is missing or misshapen; names that the model lacks are ignored.
        """
        for name, target in self.named_tensors():
            if name not in tensors:
                raise CheckpointError(f"tensor {name} is missing")
            tensor = tensors[name]
            if tensor.shape != target.shape:
                raise CheckpointError(f"tensor {name} is {list(tensor.shape)}, expected {list(target.shape)}")
            target.copy_(tensor)


def normalise(pixels: Tensor, config: VisionConfig) -> Tensor:
    """uint8 [N, S, S, 3] RGB pictures to the tower's float32 [N, 3, S, S]."""
    mean, std = torch.tensor(config.image_mean, device=pixels.device), torch.tensor(config.image_std, device=pixels.device)
    return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2)


def expected_shapes(config: MobileVlmConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a checkpoint with this config, by released name; allocates no weights."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in MobileVLM(config).named_tensors()}


def _released_name(name: str) -> str:
    """Our module path to the released tensor name; `transformers` before 5 nests the tower in `vision_model`, 5 does not."""
    part, rest = name.split(".", 1)
    if part == "language":
        return rest
    if part == "projector":
        return PROJECTOR_PREFIX + rest
    return VISION_PREFIX + rest.removeprefix("vision_model.")


def clip_config(config: VisionConfig) -> CLIPVisionConfig:
    """The tower in the words of `transformers`."""
    return CLIPVisionConfig(
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        image_size=config.image_size,
        patch_size=config.patch_size,
        hidden_act=config.hidden_act,
        layer_norm_eps=config.layer_norm_eps,
    )


def llama_config(config: MobileVlmConfig) -> LlamaConfig:
    """The language model in the words of `transformers`."""
    return LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        max_position_embeddings=config.max_position_embeddings,
        rms_norm_eps=config.rms_norm_eps,
        rope_theta=config.rope_theta,
        tie_word_embeddings=config.tie_word_embeddings,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
    )

"""MobileVLM as its papers and released tensor names describe it: the judge of converted packages.

The tower and the language model are those of `transformers`; the projectors, the merging of adapters, the prompt and the way of a
picture are written out here from their descriptions. Nothing of the package under test is imported.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import sentencepiece
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from tests.faithful.pictures import official_pixels
from tests.faithful.released import PROJECTOR, TOWER, Sizes

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite"
    " answers to the user's questions."
)
IMAGE = "<image>"
END = "</s>"
PLACE = -200


def conversation(turns: Sequence[tuple[str, str]], question: str) -> str:
    """The text of template v1: a space after each question, the end mark after each answer, the picture in the first question."""
    text = SYSTEM + " "
    first = f"{IMAGE}\n"
    for asked, answered in turns:
        text += f"USER: {first}{asked} ASSISTANT: {answered}{END}"
        first = ""
    return text + f"USER: {first}{question} ASSISTANT:"


def prompt_ids(pieces: sentencepiece.SentencePieceProcessor, text: str) -> list[int]:
    """Ids of a conversation's text, PLACE for the picture; what stands between marks is tokenized by itself, as LLaMA's does."""
    before, after = text.split(IMAGE)
    ids = [pieces.bos_id(), *pieces.encode(before), PLACE]
    for part in after.split(END):
        ids += [*pieces.encode(part), pieces.eos_id()]
    return ids[:-1]


def gelu(values: Tensor) -> Tensor:
    """The exact one."""
    return values * 0.5 * (1 + torch.erf(values / math.sqrt(2)))


def as_map(tokens: Tensor) -> Tensor:
    """[N, grid * grid, C] to [N, C, grid, grid]."""
    grid = math.isqrt(tokens.shape[1])
    return tokens.transpose(1, 2).unflatten(2, (grid, grid))


def as_tokens(maps: Tensor) -> Tensor:
    return maps.flatten(2).transpose(1, 2)


def ldp(patches: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """LDP: two linear layers, then two inverted residuals, of which the second halves the grid."""

    def get(name: str) -> Tensor:
        return weights[f"{PROJECTOR}model.{name}"]

    def norm(maps: Tensor, name: str) -> Tensor:
        shift = maps - maps.mean(1, keepdim=True)
        scaled = shift / (shift.square().mean(1, keepdim=True) + 1e-5).sqrt()
        return scaled * get(f"{name}.weight")[:, None, None] + get(f"{name}.bias")[:, None, None]

    def block(maps: Tensor, name: str, stride: int) -> Tensor:
        maps = F.conv2d(maps, get(f"{name}.block.0.0.weight"), stride=stride, padding=1, groups=maps.shape[1])
        maps = norm(maps, f"{name}.block.0.1")
        maps = maps * (maps + 3).clamp(0, 6) / 6
        gate = maps.mean((2, 3), keepdim=True)
        gate = F.conv2d(gate, get(f"{name}.block.1.fc1.weight"), get(f"{name}.block.1.fc1.bias")).clamp(min=0)
        gate = F.conv2d(gate, get(f"{name}.block.1.fc2.weight"), get(f"{name}.block.1.fc2.bias"))
        maps = maps * (gate + 3).clamp(0, 6) / 6
        return norm(F.conv2d(maps, get(f"{name}.block.2.0.weight")), f"{name}.block.2.1")

    hidden = gelu(F.linear(patches, get("mlp.1.weight"), get("mlp.1.bias")))
    maps = as_map(F.linear(hidden, get("mlp.3.weight"), get("mlp.3.bias")))
    return as_tokens(block(maps + block(maps, "mb_block.1", 1), "mb_block.2", 2))


def ldp_v2(patches: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """LDPv2: two linear layers, averaging to 12 x 12, and a depthwise convolution added to its input."""

    def get(name: str) -> Tensor:
        return weights[f"{PROJECTOR}{name}"]

    hidden = gelu(F.linear(patches, get("mlp.mlp.0.weight"), get("mlp.mlp.0.bias")))
    maps = as_map(F.linear(hidden, get("mlp.mlp.2.weight"), get("mlp.mlp.2.bias")))
    maps = F.adaptive_avg_pool2d(maps, (12, 12))
    return as_tokens(maps + F.conv2d(maps, get("peg.peg.0.weight"), get("peg.peg.0.bias"), padding=1, groups=maps.shape[1]))


def merged(weights: Mapping[str, Tensor], adapter: Path, projector: str) -> dict[str, Tensor]:
    """Weights with an adapter folder merged in, as the official loader does it.

    A half-precision base holds the result in float16, and with `ldpnet` the tower stays the base's.
    """
    config = json.loads((adapter / "adapter_config.json").read_text())
    scale = config["lora_alpha"] / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"])
    result = dict(weights)

    def put(name: str, values: Tensor) -> None:
        half = weights[name].dtype != torch.float32
        result[name] = values.half() if half else values

    trained = adapter / "non_lora_trainables.bin"
    if trained.is_file():
        for name, values in torch.load(trained, weights_only=True).items():
            put(name.removeprefix("base_model.model."), values.float())
    halves = _adapter_tensors(adapter)
    for name, down in halves.items():
        if ".lora_A." in name:
            up = halves[name.replace(".lora_A.", ".lora_B.")]
            target = name.removeprefix("base_model.model.").replace(".lora_A.", ".")
            if projector == "ldpnetv2" or not target.startswith(TOWER):
                put(target, result[target].float() + scale * (up.float() @ down.float()))
    return result


def _adapter_tensors(adapter: Path) -> dict[str, Tensor]:
    if (adapter / "adapter_model.bin").is_file():
        return dict(torch.load(adapter / "adapter_model.bin", weights_only=True))
    from safetensors.torch import load_file

    return dict(load_file(adapter / "adapter_model.safetensors"))


@dataclass(frozen=True)
class Expected:
    """What the model makes of one question: visual tokens, the first token's logits, the greedy answer, each choice's lead.

    `leads` are the differences between the best and the second logit as shares of the largest one: a choice with a small lead may
    fall the other way in other arithmetic.
    """

    features: Tensor
    logits: Tensor
    tokens: list[int]
    leads: list[float]


class Oracle:
    """One set of weights, ready to be asked."""

    def __init__(self, sizes: Sizes, weights: Mapping[str, Tensor], tokenizer: Path) -> None:
        self.sizes = sizes
        self.weights = {name: values.float() for name, values in weights.items()}
        self.pieces = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
        self._tower = _tower(sizes, self.weights)
        self._language = _language(sizes, self.weights)

    @torch.no_grad()
    def features(self, picture: Image.Image) -> Tensor:
        """Visual tokens [1, count, hidden]."""
        pixels = torch.from_numpy(official_pixels(picture, self.sizes.image_size, self.sizes.mean, self.sizes.std))
        states = self._tower(pixels, output_hidden_states=True).hidden_states
        project = ldp if self.sizes.projector == "ldpnet" else ldp_v2
        return project(states[self.sizes.select_layer][:, 1:], self.weights)

    @torch.no_grad()
    def answer(self, picture: Image.Image, ids: Sequence[int], count: int) -> Expected:
        """The greedy answer of at most `count` tokens, each from the whole text so far, with the end token if that came."""
        features = self.features(picture)
        table = self.weights["model.embed_tokens.weight"]
        place = list(ids).index(PLACE)
        start = torch.cat([table[list(ids[:place])], features[0], table[list(ids[place + 1 :])]])
        tokens: list[int] = []
        found: list[Tensor] = []
        leads: list[float] = []
        while len(tokens) < count and tokens[-1:] != [2]:
            embeds = torch.cat([start, table[tokens]])[None]
            found.append(self._language(inputs_embeds=embeds, use_cache=False).logits[0, -1])
            best, second = found[-1].topk(2).values.tolist()
            leads.append((best - second) / float(found[-1].abs().max()))
            tokens.append(int(found[-1].argmax()))
        return Expected(features, found[0], tokens, leads)


def _tower(sizes: Sizes, weights: Mapping[str, Tensor]) -> CLIPVisionModel:
    config = CLIPVisionConfig(
        hidden_size=sizes.tower_width,
        intermediate_size=sizes.tower_mlp,
        num_hidden_layers=sizes.tower_layers,
        num_attention_heads=sizes.tower_heads,
        image_size=sizes.image_size,
        patch_size=sizes.patch_size,
        hidden_act="quick_gelu",
        layer_norm_eps=1e-5,
    )
    tower = CLIPVisionModel(config).eval()
    # Newer releases of the library have no level `vision_model`.
    tower.load_state_dict({name: weights[TOWER + name.removeprefix("vision_model.")] for name in tower.state_dict()})
    return tower


def _language(sizes: Sizes, weights: Mapping[str, Tensor]) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=sizes.vocab,
        hidden_size=sizes.hidden,
        intermediate_size=sizes.mlp,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads,
        head_dim=sizes.head_dim,
        max_position_embeddings=sizes.positions,
        rms_norm_eps=sizes.rms_eps,
        rope_theta=sizes.theta,
        hidden_act="silu",
        tie_word_embeddings=False,
    )
    language = LlamaForCausalLM(config).eval()
    language.load_state_dict({name: weights[name] for name in language.state_dict()})
    return language

"""The decoder as training runs it: a Llama that reads a picture once and many turns about it side by side.

Parameters carry Llama's names, so a state fits transformers' `LlamaForCausalLM`. The prefix (the template's head and
the picture) is computed once; every turn attends to the prefix and to itself, at the positions of a first turn.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.network import HEADS, LAYERS, MAX_POSITION, MLP, WIDTH
from training.vocabulary import SIZE

DIM = WIDTH // HEADS
Cache = list[tuple[Tensor, Tensor]]


class Norm(nn.Module):
    """RMS normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden.float()
        return hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class Attention(nn.Module):
    """Llama's attention, once within the prefix and once from turns to prefix and turn."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))

    def keys_values(self, hidden: Tensor, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return rotated(split(self.k_proj(hidden)), turn), split(self.v_proj(hidden))

    def prefix(self, hidden: Tensor, keys: Tensor, values: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        """[B, P, width] attending to itself causally."""
        queries = rotated(split(self.q_proj(hidden)), turn)
        scores = queries @ keys.transpose(-1, -2) * DIM**-0.5 + causal(hidden.shape[1])
        return self.o_proj(merge(torch.softmax(scores, -1).to(values.dtype) @ values))

    def turns(self, hidden: Tensor, past: tuple[Tensor, Tensor], turn: tuple[Tensor, Tensor]) -> Tensor:
        """[B, T, L, width]: every turn attending to the prefix's keys and to itself."""
        batch, count, length, _ = hidden.shape
        queries = rotated(split(self.q_proj(hidden)), turn)
        keys, values = self.keys_values(hidden, turn)
        flat = queries.transpose(1, 2).flatten(2, 3)
        before = (flat @ past[0].transpose(-1, -2)).view(batch, HEADS, count, length, -1).transpose(1, 2)
        within = queries @ keys.transpose(-1, -2)
        scores = torch.cat([before * DIM**-0.5, within * DIM**-0.5 + causal(length)], -1)
        shares = torch.softmax(scores, -1).to(values.dtype)
        size = past[0].shape[-2]
        seen = shares[..., :size].transpose(1, 2).flatten(2, 3) @ past[1]
        seen = seen.view(batch, HEADS, count, length, DIM).transpose(1, 2)
        return self.o_proj(merge(seen + shares[..., size:] @ values))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input_layernorm, self.self_attn, self.post_attention_layernorm = Norm(), Attention(), Norm()
        self.mlp = nn.ModuleDict(
            {
                "gate_proj": nn.Linear(WIDTH, MLP, bias=False),
                "up_proj": nn.Linear(WIDTH, MLP, bias=False),
                "down_proj": nn.Linear(MLP, WIDTH, bias=False),
            }
        )

    def think(self, hidden: Tensor) -> Tensor:
        inner = self.post_attention_layernorm(hidden)
        return hidden + self.mlp["down_proj"](F.silu(self.mlp["gate_proj"](inner)) * self.mlp["up_proj"](inner))


class Llama(nn.Module):
    """Embeddings and layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(SIZE, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = Norm()


class Decoder(nn.Module):
    """The language model; `head` are the token ids before the picture."""

    def __init__(self, head: list[int]) -> None:
        super().__init__()
        self.model = Llama()
        self.lm_head = nn.Linear(WIDTH, SIZE, bias=False)
        self.register_buffer("head", torch.tensor(head), persistent=False)
        angles = torch.arange(MAX_POSITION).float()[:, None] * 10000.0 ** (-torch.arange(0, DIM, 2).float() / DIM)
        both = torch.cat([angles, angles], -1)
        self.register_buffer("cos", both.cos(), persistent=False)
        self.register_buffer("sin", both.sin(), persistent=False)

    def turning(self, start: int, length: int) -> tuple[Tensor, Tensor]:
        return self.cos[start : start + length], self.sin[start : start + length]

    def prefix(self, visual: Tensor) -> Cache:
        """Keys and values of the template's head and the picture, for every layer."""
        head = self.model.embed_tokens(self.head).expand(len(visual), -1, -1)
        hidden = torch.cat([head, visual.to(head.dtype)], 1)
        turn, cache = self.turning(0, hidden.shape[1]), []
        for number, layer in enumerate(self.model.layers):
            normed = layer.input_layernorm(hidden)
            keys, values = layer.self_attn.keys_values(normed, turn)
            cache.append((keys, values))
            if number + 1 < LAYERS:
                hidden = layer.think(hidden + layer.self_attn.prefix(normed, keys, values, turn))
        return cache

    def turns(self, cache: Cache, ids: Tensor) -> Tensor:
        """[B, T, L] ids to the last hidden states [B, T, L, width]."""
        hidden = self.model.embed_tokens(ids)
        turn = self.turning(cache[0][0].shape[-2], ids.shape[-1])
        for layer, past in zip(self.model.layers, cache):
            hidden = hidden + layer.self_attn.turns(layer.input_layernorm(hidden), past, turn)
            hidden = layer.think(hidden)
        return self.model.norm(hidden)

    def forward(self, visual: Tensor, ids: Tensor) -> Tensor:
        return self.turns(self.prefix(visual), ids)


def split(hidden: Tensor) -> Tensor:
    """[..., L, width] to [..., heads, L, dim]."""
    return hidden.unflatten(-1, (HEADS, DIM)).transpose(-2, -3)


def merge(hidden: Tensor) -> Tensor:
    """[..., heads, L, dim] to [..., L, width]."""
    return hidden.transpose(-2, -3).flatten(-2)


def rotated(hidden: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary positions, halves apart as Llama has them."""
    cos, sin = turn
    first, second = hidden.chunk(2, -1)
    return hidden * cos.to(hidden.dtype) + torch.cat([-second, first], -1) * sin.to(hidden.dtype)


def causal(length: int) -> Tensor:
    return torch.full((length, length), -1e4).triu(1)


@torch.no_grad()
def greedy(decoder: Decoder, visual: Tensor, prompts: list[list[list[int]]], limit: int = 48) -> list[list[list[int]]]:
    """Answers to several prompts on each picture, one token at a time; without the end token."""
    cache = decoder.prefix(visual)
    answers: list[list[list[int]]] = [[[] for _ in turns] for turns in prompts]
    done = [[False for _ in turns] for turns in prompts]
    for _ in range(limit):
        texts = [[p + a for p, a in zip(ps, row)] for ps, row in zip(prompts, answers)]
        length = max(len(text) for row in texts for text in row)
        count = max(len(row) for row in texts)
        ids = torch.zeros(len(texts), count, length, dtype=torch.long)
        last = torch.zeros(len(texts), count, dtype=torch.long)
        for b, row in enumerate(texts):
            for t, text in enumerate(row):
                ids[b, t, : len(text)] = torch.tensor(text)
                last[b, t] = len(text) - 1
        hidden = decoder.turns(cache, ids)
        ends = hidden.gather(2, last[..., None, None].expand(-1, -1, 1, hidden.shape[-1])).squeeze(2)
        best = decoder.lm_head(ends).argmax(-1).tolist()
        for b, row in enumerate(texts):
            for t in range(len(row)):
                done[b][t] = done[b][t] or best[b][t] == 2
                if not done[b][t]:
                    answers[b][t].append(best[b][t])
        if all(all(row) for row in done):
            break
    return answers

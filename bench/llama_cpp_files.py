"""GGUF files of MobileVLM-V2-1.7B's shapes with random weights, for llama.cpp: the language model and the vision part.

The language model is written in float16 and brought to its final form by llama.cpp's own quantiser. Needs the packages of
requirements/bench.txt.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.cpu_stages import BenchError
from mobilevlm_ros.checkpoint.config import MobileVlmConfig

if TYPE_CHECKING:
    from gguf import GGUFWriter

_CHUNK = 1 << 23
_DEVIATION = 0.02
_FLOAT16_NAME = "language-f16.gguf"


class LanguageForm(Enum):
    """How the language model is stored; the value is llama.cpp's name of the form."""

    Q4_0 = "Q4_0"
    Q4_K_M = "Q4_K_M"


class VisionForm(Enum):
    """How the vision part is stored; the value is llama.cpp's name of the form."""

    F16 = "F16"
    Q8_0 = "Q8_0"


@dataclass(frozen=True)
class _Tensor:
    """A tensor to be written: its name, its shape, outermost axis first, and whether it stays in float32."""

    name: str
    shape: tuple[int, ...]
    exact: bool = False


def language_file(folder: Path, config: MobileVlmConfig, form: LanguageForm, threads: int) -> Path:
    """The language model in `folder`, made where it is not there; the two forms are made together.

    Raises:
        BenchError: llama.cpp could not quantise it.
    """
    path = folder / f"language-{form.value}.gguf"
    if path.is_file():
        return path
    source = folder / _FLOAT16_NAME
    _write_language(source, config)
    for wanted in LanguageForm:
        _quantize(source, folder / f"language-{wanted.value}.gguf", wanted, threads)
    source.unlink()
    return path


def vision_file(folder: Path, config: MobileVlmConfig, form: VisionForm) -> Path:
    """The vision tower and projector in `folder`, made where they are not there."""
    path = folder / f"vision-{form.value}.gguf"
    if not path.is_file():
        _write_vision(path, config, form)
    return path


def _write_language(path: Path, config: MobileVlmConfig) -> None:
    from gguf import GGUFWriter, TokenType

    writer = GGUFWriter(path.with_suffix(".partial"), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(1)
    writer.add_tokenizer_model("llama")
    special = {0: "<unk>", config.bos_token_id: "<s>", config.eos_token_id: "</s>"}
    writer.add_token_list([special.get(number, f"\u2581word{number}") for number in range(config.vocab_size)])
    writer.add_token_scores([-float(number) for number in range(config.vocab_size)])
    writer.add_token_types([TokenType.CONTROL if number in special else TokenType.NORMAL for number in range(config.vocab_size)])
    writer.add_bos_token_id(config.bos_token_id)
    writer.add_eos_token_id(config.eos_token_id)
    _write_tensors(writer, path, list(_language_tensors(config)), quantised=False)


def _language_tensors(config: MobileVlmConfig) -> Iterator[_Tensor]:
    hidden, inner = config.hidden_size, config.intermediate_size
    keys = config.num_key_value_heads * config.head_dim
    yield _Tensor("token_embd.weight", (config.vocab_size, hidden))
    for layer in range(config.num_hidden_layers):
        prefix = f"blk.{layer}."
        yield _Tensor(f"{prefix}attn_norm.weight", (hidden,), exact=True)
        for name, rows in (("q", config.num_attention_heads * config.head_dim), ("k", keys), ("v", keys)):
            yield _Tensor(f"{prefix}attn_{name}.weight", (rows, hidden))
        yield _Tensor(f"{prefix}attn_output.weight", (hidden, config.num_attention_heads * config.head_dim))
        yield _Tensor(f"{prefix}ffn_norm.weight", (hidden,), exact=True)
        yield _Tensor(f"{prefix}ffn_gate.weight", (inner, hidden))
        yield _Tensor(f"{prefix}ffn_up.weight", (inner, hidden))
        yield _Tensor(f"{prefix}ffn_down.weight", (hidden, inner))
    yield _Tensor("output_norm.weight", (hidden,), exact=True)
    yield _Tensor("output.weight", (config.vocab_size, hidden))


def _write_vision(path: Path, config: MobileVlmConfig, form: VisionForm) -> None:
    from gguf import GGUFWriter

    vision = config.vision
    writer = GGUFWriter(path.with_suffix(".partial"), "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "ldpv2")
    sizes = {
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        "embedding_length": vision.hidden_size,
        "feed_forward_length": vision.intermediate_size,
        "block_count": vision.num_hidden_layers,
        "attention.head_count": vision.num_attention_heads,
        "projection_dim": config.hidden_size,
    }
    for name, size in sizes.items():
        writer.add_uint32(f"clip.vision.{name}", size)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", vision.layer_norm_eps)
    writer.add_array("clip.vision.image_mean", list(vision.image_mean))
    writer.add_array("clip.vision.image_std", list(vision.image_std))
    _write_tensors(writer, path, list(_vision_tensors(config)), quantised=form is VisionForm.Q8_0)


def _vision_tensors(config: MobileVlmConfig) -> Iterator[_Tensor]:
    vision, width, hidden = config.vision, config.vision.hidden_size, config.hidden_size
    yield _Tensor("v.class_embd", (width,), exact=True)
    yield _Tensor("v.patch_embd.weight", (width, 3, vision.patch_size, vision.patch_size))
    yield _Tensor("v.position_embd.weight", (vision.grid**2 + 1, width), exact=True)
    yield from _affine("v.pre_ln", (width,))
    for layer in range(vision.num_hidden_layers):
        prefix = f"v.blk.{layer}."
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            yield from _affine(prefix + name, (width, width))
        yield from _affine(f"{prefix}ln1", (width,))
        yield from _affine(f"{prefix}ln2", (width,))
        yield from _affine(f"{prefix}ffn_up", (vision.intermediate_size, width))
        yield from _affine(f"{prefix}ffn_down", (width, vision.intermediate_size))
    yield from _affine("mm.model.mlp.0", (hidden, width))
    yield from _affine("mm.model.mlp.2", (hidden, hidden))
    yield from _affine("mm.model.peg.0", (hidden, 1, 3, 3))


def _affine(name: str, shape: tuple[int, ...]) -> Iterator[_Tensor]:
    yield _Tensor(f"{name}.weight", shape, exact=len(shape) == 1)
    yield _Tensor(f"{name}.bias", shape[:1], exact=True)


def _write_tensors(writer: GGUFWriter, path: Path, tensors: Sequence[_Tensor], quantised: bool) -> None:
    """Writes the tensors one by one, matrices in Q8_0 where `quantised`, and closes the file under its name."""
    from gguf import GGMLQuantizationType

    numbers = np.random.default_rng(0).standard_normal(_CHUNK, np.float32) * np.float32(_DEVIATION)
    for tensor in tensors:
        if tensor.exact:
            writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), 4 * int(np.prod(tensor.shape)))
        elif quantised and len(tensor.shape) == 2:
            shape = (tensor.shape[0], tensor.shape[1] // 32 * 34)
            kind = GGMLQuantizationType.Q8_0
            writer.add_tensor_info(tensor.name, shape, np.dtype(np.uint8), int(np.prod(shape)), raw_dtype=kind)
        else:
            writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float16), 2 * int(np.prod(tensor.shape)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors:
        writer.write_tensor_data(_values(tensor, numbers, quantised))
    writer.close()
    path.with_suffix(".partial").rename(path)


def _values(tensor: _Tensor, numbers: np.ndarray, quantised: bool) -> np.ndarray:
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    values = np.resize(numbers, tensor.shape)
    if tensor.exact:
        return values + np.float32("norm.weight" in tensor.name or ".ln" in tensor.name or "pre_ln" in tensor.name)
    if quantised and len(tensor.shape) == 2:
        return np.asarray(quantize(values, GGMLQuantizationType.Q8_0))
    return values.astype(np.float16)


def _quantize(source: Path, target: Path, form: LanguageForm, threads: int) -> None:
    import llama_cpp

    params: Any = llama_cpp.llama_model_quantize_default_params()
    params.nthread = threads
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{form.value}")
    partial = target.with_suffix(".partial")
    status = llama_cpp.llama_model_quantize(str(source).encode(), str(partial).encode(), ctypes.byref(params))
    if status != 0:
        raise BenchError(f"llama.cpp could not bring {source} to {form.value}: status {status}")
    partial.rename(target)

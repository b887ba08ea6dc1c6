"""The conversion: a checkpoint in the released layout in, a verified model package out.

Joins reading, graph building, writing and verification. Knows which numbers of the config the manifest wants.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from mobilevlm_ros.checkpoint.config import MobileVlmConfig
from mobilevlm_ros.checkpoint.errors import CheckpointError, first_line
from mobilevlm_ros.checkpoint.lora import AdaptedTensors
from mobilevlm_ros.checkpoint.model import EMBEDDING_NAME
from mobilevlm_ros.checkpoint.reader import CheckpointTensors, Tensors
from mobilevlm_ros.checkpoint.save import TOKENIZER_FILE
from mobilevlm_ros.export.cpu_dialect import CpuDialect, cache_head_dim
from mobilevlm_ros.export.decoder_graph import build_decoder
from mobilevlm_ros.export.errors import ExportError
from mobilevlm_ros.export.onnx_builder import OPSET, GraphBuilder
from mobilevlm_ros.export.verify import Agreement, verify
from mobilevlm_ros.export.vision_graph import build_vision
from mobilevlm_ros.export.writer import PackageWriter, Progress
from mobilevlm_ros.runtime.manifest import DecoderSpec, Manifest, Phrasings, Precision, Source, SpecialTokens, VisionSpec
from mobilevlm_ros.runtime.package import (
    DECODER_CPU_NAME,
    EMBEDDINGS_NAME,
    TOKENIZER_NAME,
    VISION_NAME,
    ModelPackage,
    file_sha256,
)
from mobilevlm_ros.runtime.prompt import V1

# The mean colour of CLIP's training pictures, with which the official code fills the square (its own rounding).
PAD_COLOR = (122, 116, 104)


@dataclass(frozen=True)
class ConvertOptions:
    """How to convert. `name` defaults to the checkpoint folder's; `licence` and `revision` are recorded as given."""

    precision: Precision = Precision.FP32
    name: str | None = None
    phrasings: Phrasings = field(default_factory=Phrasings)
    vision_tower: Path | None = None
    adapter: Path | None = None
    licence: str = "unknown"
    revision: str = "unknown"
    verify: bool = True
    force: bool = False


@dataclass(frozen=True)
class ConvertReport:
    """What a conversion did: the package, its agreement with PyTorch (None if not verified), and what went nowhere.

    `unused` are tensors of the checkpoint that are no part of MobileVLM, `ignored` those that an adapter changes without effect.
    """

    package: Path
    agreement: Agreement | None
    unused: tuple[str, ...]
    ignored: tuple[str, ...]


ProgressFactory = Callable[[int], Progress]
"""Is given the bytes to be written and returns who is told of each tensor."""


def convert(
    source: str | Path, target: str | Path, options: ConvertOptions, progress: ProgressFactory | None = None
) -> ConvertReport:
    """Converts the checkpoint folder `source` to the model package `target`, telling `progress` of each tensor written.

    Memory beyond the mapped checkpoint stays around two of its largest tensors in float32; verification loads the whole model, in
    PyTorch and then in ONNX Runtime. Raises CheckpointError or ExportError with one line, OSError from the file system; the
    target then is as it was before.
    """
    root = Path(source).expanduser()
    config = MobileVlmConfig.read(root, options.vision_tower)
    tokenizer = root / TOKENIZER_FILE
    if not tokenizer.is_file():
        raise CheckpointError(f"{tokenizer}: no such file")
    with PackageWriter(target, options.force) as writer:
        base = CheckpointTensors.open(root, config, options.vision_tower)
        adapted = None if options.adapter is None else AdaptedTensors(base, options.adapter, config)
        tensors: Tensors = base if adapted is None else adapted
        vision, decoder = _build(tensors, config, options.precision)
        dtype: np.dtype[Any] = np.dtype(np.float32 if options.precision is Precision.FP32 else np.float16)
        table_size = config.vocab_size * config.hidden_size * dtype.itemsize
        total = table_size + sum(weight.size for graph in (vision, decoder) for weight in graph.weights())
        report = _silent if progress is None else progress(total)
        writer.copy(tokenizer, TOKENIZER_NAME)
        writer.table(EMBEDDINGS_NAME, tensors[EMBEDDING_NAME], dtype, report)
        writer.graph(VISION_NAME, vision, {"": OPSET}, report)
        writer.graph(DECODER_CPU_NAME, decoder, CpuDialect.opsets, report)
        report("hashing the checkpoint", 0)
        manifest = _manifest(root, config, options, tensors.files)
        agreement = None
        if options.verify:
            package = ModelPackage(writer.path, replace(manifest, files=dict(writer.files)))
            report("comparing with PyTorch", 0)
            agreement = verify(package, tensors, config)
        writer.commit(manifest)
    return ConvertReport(writer.target, agreement, tuple(base.unused(config)), () if adapted is None else adapted.ignored)


def _silent(name: str, size: int) -> None:
    """The progress that nobody watches."""


def read_phrasings(path: str | Path) -> Phrasings:
    """A JSON object with any of the manifest's phrasings; the others keep LLaVA's wording.

    Raises ExportError naming the file and what is wrong with it.
    """
    try:
        given = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExportError(f"{path}: not readable as JSON ({first_line(error)})") from None
    known = [entry.name for entry in fields(Phrasings)]
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise ExportError(f"{path}: wanted an object of texts with the keys {', '.join(known)}")
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ExportError(f"{path}: unknown key '{unknown[0]}' (known: {', '.join(known)})")
    return Phrasings(**given)


def _build(tensors: Tensors, config: MobileVlmConfig, precision: Precision) -> tuple[GraphBuilder, GraphBuilder]:
    vision = GraphBuilder("vision", tensors, precision)
    build_vision(vision, config)
    decoder = GraphBuilder("decoder", tensors, precision)
    build_decoder(decoder, config, CpuDialect())
    return vision, decoder


def _manifest(root: Path, config: MobileVlmConfig, options: ConvertOptions, files: Sequence[Path]) -> Manifest:
    vision = config.vision
    return Manifest(
        name=options.name or root.resolve().name,
        source=Source(_source_name(root, options.adapter), options.revision, _weights_digest(files)),
        licence=options.licence,
        vision=VisionSpec(vision.image_size, vision.patch_size, config.image_tokens, config.projector.value, PAD_COLOR),
        decoder=DecoderSpec(
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=cache_head_dim(config.head_dim),
            vocab_size=config.vocab_size,
            max_positions=config.max_position_embeddings,
            rms_norm_eps=config.rms_norm_eps,
            rope_theta=config.rope_theta,
        ),
        prompt=V1,
        tokens=SpecialTokens(config.bos_token_id, config.eos_token_id, config.pad_token_id),
        vision_precision=options.precision,
        decoder_precision=options.precision,
        phrasings=options.phrasings,
    )


def _source_name(root: Path, adapter: Path | None) -> str:
    return root.resolve().name + ("" if adapter is None else f" + {adapter.resolve().name}")


def _weights_digest(files: Sequence[Path]) -> str:
    """The weight file's SHA-256 (as hubs show it), or for several files the SHA-256 over their lines of a `sha256sum` listing."""
    if len(files) == 1:
        return file_sha256(files[0])
    listing = "".join(f"{file_sha256(path)}  {path.name}\n" for path in files)
    return hashlib.sha256(listing.encode()).hexdigest()

"""The conversion: a checkpoint in the released layout in, a verified model package out.

Joins reading, graph building, writing and verification. Knows which numbers of the config the manifest wants.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np

from mobilevlm_ros.checkpoint.config import MobileVlmConfig, VisionConfig
from mobilevlm_ros.checkpoint.errors import CheckpointError, first_line
from mobilevlm_ros.checkpoint.lora import AdaptedTensors
from mobilevlm_ros.checkpoint.model import EMBEDDING_NAME
from mobilevlm_ros.checkpoint.reader import CheckpointTensors, Tensors
from mobilevlm_ros.checkpoint.save import TOKENIZER_FILE
from mobilevlm_ros.export.calibration import Calibration, ExampleMaker, read_calibration, shipped_calibration
from mobilevlm_ros.export.cpu_dialect import CpuDialect, cache_head_dim, tower_attention
from mobilevlm_ros.export.decoder_graph import build_decoder
from mobilevlm_ros.export.errors import ExportError
from mobilevlm_ros.export.fidelity import REPORT_NAME, FidelityReport, measure
from mobilevlm_ros.export.gptq import require_library
from mobilevlm_ros.export.linear_weights import LinearWeight
from mobilevlm_ros.export.onnx_builder import MICROSOFT, OPSET, BuiltGraph, GraphBuilder
from mobilevlm_ros.export.prefill_builder import Prefill, PrefillBuilder, check_prefill
from mobilevlm_ros.export.quantization import HEAD_MAPS, Quantized, Rounding, Scheme, quantize, quantized_bytes
from mobilevlm_ros.export.trt_graphs import Target, build_trt_graphs, check_target
from mobilevlm_ros.export.verify import Agreement, verify
from mobilevlm_ros.export.verify_trt import GraphAgreement, verify_trt
from mobilevlm_ros.export.vision_graph import build_vision
from mobilevlm_ros.export.writer import PackageWriter, Progress
from mobilevlm_ros.runtime.errors import PackageError
from mobilevlm_ros.runtime.manifest import (
    DecoderSpec,
    Manifest,
    Phrasings,
    Precision,
    ScoreCalibration,
    Source,
    SpecialTokens,
    VisionSpec,
)
from mobilevlm_ros.runtime.package import (
    DECODER_CPU_NAME,
    EMBEDDINGS_NAME,
    PREFILL_DIALECT,
    TOKENIZER_NAME,
    VISION_NAME,
    ModelPackage,
    decoder_name,
    file_sha256,
)
from mobilevlm_ros.runtime.prompt import V1, PromptBuilder
from mobilevlm_ros.runtime.tokenizer import Tokenizer


@dataclass(frozen=True)
class ConvertOptions:
    """How to convert. `name` and `source` default to the folders' names; `source`, `licence` and `revision` are only recorded.

    For int8 and int4: `rounding`; `keep`, names or patterns of maps that keep 8 bits in int4; `calibration`, a folder or file
    that `read_calibration` takes, None for the rendered tabletops that ship; and `examples`, how many of it to use at most.
    For int4: `prefill`, what prompts are read with on the CPU.
    `verify` matters for fp32 and fp16, and for the graphs for TensorRT that `target` asks for; the others are always measured.
    """

    precision: Precision = Precision.FP32
    target: Target = Target.CPU
    prefill: Prefill = Prefill.SAME
    name: str | None = None
    phrasings: Phrasings = field(default_factory=Phrasings)
    score_calibration: ScoreCalibration = field(default_factory=ScoreCalibration)
    vision_tower: Path | None = None
    adapter: Path | None = None
    source: str | None = None
    licence: str = "unknown"
    revision: str = "unknown"
    rounding: Rounding = Rounding.GPTQ
    keep: tuple[str, ...] = HEAD_MAPS
    calibration: Path | None = None
    examples: int = 64
    verify: bool = True
    force: bool = False


@dataclass(frozen=True)
class ConvertReport:
    """What a conversion did: the package, its agreement with PyTorch, and what went nowhere.

    `agreement` is None for what was not verified and for packages in fewer bits, which `fidelity` tells of. `unused` are tensors
    of the checkpoint that are no part of MobileVLM, `ignored` those that an adapter changes without effect. `beside` are the
    graphs for TensorRT as far as they were verified.
    """

    package: Path
    agreement: Agreement | None
    fidelity: FidelityReport | None
    unused: tuple[str, ...]
    ignored: tuple[str, ...]
    beside: tuple[GraphAgreement, ...] = ()


ProgressFactory = Callable[[str, int], Progress]
"""Is given what is being done and its size in bytes, and returns who is told of each part."""


def convert(
    source: str | Path, target: str | Path, options: ConvertOptions, progress: ProgressFactory | None = None
) -> ConvertReport:
    """Converts the checkpoint folder `source` to the model package `target`, telling `progress` of each tensor written.

    Memory beyond the mapped checkpoint stays around two of its largest tensors in float32. Verification reads the model layer by
    layer and maps the package; int8 and int4 hold one layer, the calibration's activations and the rounded weights.
    Raises CheckpointError or ExportError with one line, OSError from the file system; the target then is as it was before.
    """
    check_target(options.target, options.precision)
    check_prefill(options.prefill, options.precision)
    root = Path(source).expanduser()
    config = MobileVlmConfig.read(root, options.vision_tower)
    tokenizer = root / TOKENIZER_FILE
    _check_tokenizer(tokenizer, config)
    started = _silent_factory if progress is None else progress
    with PackageWriter(target, options.force) as writer:
        base = CheckpointTensors.open(root, config, options.vision_tower)
        adapted = None if options.adapter is None else AdaptedTensors(base, options.adapter, config)
        tensors: Tensors = base if adapted is None else adapted
        started("hashing the checkpoint", 0)
        manifest = describe(root, config, options, tensors.files)
        calibration = _calibration(tokenizer, manifest, options)
        quantized = None if calibration is None else _quantize(tensors, config, calibration, options, started)
        linears = {} if quantized is None else quantized.weights
        graphs = build_graphs(tensors, config, options.precision, linears, options.target, options.prefill)
        _write(writer, tokenizer, tensors, table_dtype(options.precision), graphs, started)
        started("checking", 0)
        written = ModelPackage(writer.path, replace(manifest, files=dict(writer.files)))
        agreement, fidelity = None, None
        if calibration is not None and quantized is not None:
            fidelity = measure(written, calibration, options.rounding, quantized)
            writer.text(fidelity.to_json(), REPORT_NAME)
        elif options.verify:
            agreement = verify(written, tensors, config)
        beside = verify_trt(written, options.target) if options.verify else ()
        writer.commit(manifest)
    ignored = () if adapted is None else adapted.ignored
    return ConvertReport(writer.target, agreement, fidelity, tuple(base.unused(config)), ignored, beside)


def _check_tokenizer(path: Path, config: MobileVlmConfig) -> None:
    """The model may know more ids than its tokenizer makes, as filled-up tables do, but not fewer."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        pieces = Tokenizer(path).vocab_size
    except PackageError as error:
        raise CheckpointError(first_line(error)) from None
    if pieces > config.vocab_size:
        raise CheckpointError(f"{path}: {pieces} pieces, but the config's vocab_size is {config.vocab_size}")


def _silent(name: str, size: int) -> None:
    """The progress that nobody watches."""


def _silent_factory(what: str, size: int) -> Progress:
    return _silent


def _calibration(tokenizer: Path, manifest: Manifest, options: ConvertOptions) -> Calibration | None:
    """What int8 and int4 are measured on; read before anything long begins."""
    if options.precision not in (Precision.INT8, Precision.INT4):
        return None
    if options.precision is Precision.INT4 and options.rounding is Rounding.GPTQ:
        require_library()
    pieces = Tokenizer(tokenizer)
    maker = ExampleMaker(
        size=manifest.vision.image_size,
        pad_color=manifest.vision.pad_color,
        tokenizer=pieces,
        prompts=PromptBuilder(manifest.prompt, manifest.tokens, pieces),
        phrasings=manifest.phrasings,
        eos=manifest.tokens.eos,
    )
    return read_calibration(options.calibration or shipped_calibration(), maker, options.examples)


def _quantize(
    tensors: Tensors, config: MobileVlmConfig, calibration: Calibration, options: ConvertOptions, started: ProgressFactory
) -> Quantized:
    report = started("quantising", quantized_bytes(config))
    return quantize(tensors, config, calibration, Scheme(options.precision, options.rounding, options.keep), report)


def _write(
    writer: PackageWriter,
    tokenizer: Path,
    tensors: Tensors,
    dtype: np.dtype[Any],
    graphs: Sequence[BuiltGraph],
    started: ProgressFactory,
) -> None:
    """Writes all but the manifest; `dtype` is the token-embedding table's."""
    table_size = math.prod(tensors.shape(EMBEDDING_NAME)) * dtype.itemsize
    report = started("writing", table_size + sum(weight.size for built in graphs for weight in built.builder.weights()))
    writer.copy(tokenizer, TOKENIZER_NAME)
    writer.table(EMBEDDINGS_NAME, tensors[EMBEDDING_NAME], dtype, report)
    for built in graphs:
        writer.graph(built.name, built.builder, built.opsets, report)


def build_graphs(
    tensors: Tensors,
    config: MobileVlmConfig,
    precision: Precision,
    linears: Mapping[str, LinearWeight],
    target: Target = Target.CPU,
    prefill: Prefill = Prefill.SAME,
) -> tuple[BuiltGraph, ...]:
    """All graphs of a package; reads no weights. `linears` are the maps in fewer bits, by released names."""
    vision, decoder = GraphBuilder("vision", tensors, precision, linears), GraphBuilder("decoder", tensors, precision, linears)
    build_vision(vision, config, tower_attention)
    build_decoder(decoder, config, CpuDialect())
    vision_opsets = {"": OPSET, MICROSOFT: 1}
    graphs = BuiltGraph(VISION_NAME, vision, vision_opsets), BuiltGraph(DECODER_CPU_NAME, decoder, CpuDialect.opsets)
    written = {graph.data_name: graph.builder for graph in graphs}
    beside = build_trt_graphs(tensors, config, precision, linears, target, written)
    if prefill is Prefill.SAME:
        return *graphs, *beside
    prompts = PrefillBuilder("decoder", tensors, precision, linears)
    build_decoder(prompts, config, CpuDialect())
    return *graphs, BuiltGraph(decoder_name(PREFILL_DIALECT), prompts, CpuDialect.opsets), *beside


def table_dtype(precision: Precision) -> np.dtype[Any]:
    """How the token-embedding table of a package is stored."""
    return np.dtype(np.float32 if precision is Precision.FP32 else np.float16)


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
    for key, text in given.items():
        wanted = _places(getattr(Phrasings(), key))
        if _places(text) != wanted:
            raise ExportError(f"{path}: '{key}' must have the place {' '.join(sorted(wanted))} and no other braces")
    return Phrasings(**given)


def _places(phrasing: str) -> set[str]:
    """The places to be filled in, such as `{expression}`; a brace without its other half counts as a place of its own."""
    try:
        return {f"{{{name}}}" for _, name, _, _ in Formatter().parse(phrasing) if name is not None}
    except ValueError:
        return {phrasing}


def describe(root: Path, config: MobileVlmConfig, options: ConvertOptions, files: Sequence[Path]) -> Manifest:
    """The manifest, its list of files still empty, of the checkpoint folder `root` with the weight files `files`."""
    vision = config.vision
    return Manifest(
        name=options.name or root.resolve().name,
        source=Source(options.source or _source_name(root, options.adapter), options.revision, weights_digest(files)),
        licence=options.licence,
        vision=VisionSpec(vision.image_size, vision.patch_size, config.image_tokens, config.projector.value, _pad_color(vision)),
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
        # The tower has no form in 4 bits: its maps are few, and their inputs' range is wide.
        vision_precision=Precision.INT8 if options.precision is Precision.INT4 else options.precision,
        decoder_precision=options.precision,
        phrasings=options.phrasings,
        score_calibration=options.score_calibration,
    )


def _pad_color(vision: VisionConfig) -> tuple[int, int, int]:
    """The preprocessor's mean colour cut to whole numbers, with which the official code pads (CLIP: 122, 116, 104)."""
    red, green, blue = (int(value * 255) for value in vision.image_mean)
    return red, green, blue


def _source_name(root: Path, adapter: Path | None) -> str:
    return root.resolve().name + ("" if adapter is None else f" + {adapter.resolve().name}")


def weights_digest(files: Sequence[Path]) -> str:
    """The weight file's SHA-256 (as hubs show it), or for several files the SHA-256 over their lines of a `sha256sum` listing."""
    if len(files) == 1:
        return file_sha256(files[0])
    listing = "".join(f"{file_sha256(path)}  {path.name}\n" for path in files)
    return hashlib.sha256(listing.encode()).hexdigest()

"""Converts a LoRA adapter to an adapter package: only what differs from a base package that exists already.

Joins reading, graph rewriting, writing and verification, as `convert` does for whole packages. Knows which package is the base of
which checkpoint; knows nothing of ONNX.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mobilevlm_ros.checkpoint.config import MobileVlmConfig
from mobilevlm_ros.checkpoint.lora import AdaptedTensors, Merging
from mobilevlm_ros.checkpoint.model import EMBEDDING_NAME
from mobilevlm_ros.checkpoint.reader import CheckpointTensors
from mobilevlm_ros.export.adapter_graph import AdaptedGraph, adapt_graph
from mobilevlm_ros.export.convert import ProgressFactory, weights_digest
from mobilevlm_ros.export.errors import ExportError
from mobilevlm_ros.export.verify import TOLERANCE, Agreement, check, differences, verify
from mobilevlm_ros.export.writer import PackageWriter, Progress
from mobilevlm_ros.runtime.errors import PackageError
from mobilevlm_ros.runtime.manifest import MANIFEST_NAME, BaseRef, Manifest, Phrasings, Precision, Source
from mobilevlm_ros.runtime.package import (
    DECODER_CPU_NAME,
    EMBEDDINGS_NAME,
    PREFILL_DIALECT,
    VISION_NAME,
    ModelPackage,
    file_sha256,
)

_QUANTIZED_SHARE = 2.0
"""How much further than a base in int8 or int4 from its checkpoint an adapter's model may be from the merged one."""


@dataclass(frozen=True)
class AdapterOptions:
    """How to convert.

    `name` and `source`, which is only recorded, default to the folders' names; licence, revision and phrasings to the base
    package's.
    """

    name: str | None = None
    source: str | None = None
    phrasings: Phrasings | None = None
    vision_tower: Path | None = None
    licence: str | None = None
    revision: str | None = None
    verify: bool = True
    force: bool = False


@dataclass(frozen=True)
class AdapterReport:
    """What a conversion did: the package, its size in bytes, and its agreement with PyTorch (None if not verified).

    `ignored` are tensors that the adapter changes without effect: those of the vision tower where the official loader leaves them
    out, and those that no answer depends on.
    """

    package: Path
    size: int
    agreement: Agreement | None
    ignored: tuple[str, ...]


def convert_adapter(
    source: str | Path,
    adapter: str | Path,
    onto: str | Path,
    target: str | Path,
    options: AdapterOptions,
    progress: ProgressFactory | None = None,
) -> AdapterReport:
    """Converts the adapter folder `adapter` of the checkpoint `source` to the package `target` beside the base package `onto`.

    The package refers to `onto` by its relative place and its manifest's hash. Raises CheckpointError or ExportError with one
    line, OSError from the file system; the target then is as it was before.
    """
    root = Path(source).expanduser()
    base = _open_base(onto)
    if base.path.resolve() == Path(target).expanduser().resolve():
        raise ExportError(f"{target}: is the base package itself")
    config = MobileVlmConfig.read(root, options.vision_tower)
    with PackageWriter(target, options.force) as writer:
        tensors = CheckpointTensors.open(root, config, options.vision_tower)
        _check_origin(base, tensors)
        adapted = AdaptedTensors(tensors, adapter, config, Merging.BESIDE)
        graphs = _graphs(base, adapted)
        changed = frozenset[str]().union(*(graph.changed for graph in graphs.values()))
        names = sorted({*adapted.low_rank, *adapted.replaced})
        _write(writer, base, adapted, graphs, progress)
        if not writer.files:
            raise ExportError(f"{adapter}: changes nothing that an answer depends on")
        manifest = _manifest(base, writer.target, Path(adapter), adapted, options)
        agreement = None
        if options.verify:
            plain = base.without_decoder(PREFILL_DIALECT)  # the adapter's package has none of its own
            package = ModelPackage(writer.path, replace(manifest, files=dict(writer.files)), plain)
            agreement = _verify(package, plain, adapted, tensors, config)
        size = sum(entry.bytes for entry in writer.files.values())
        writer.commit(manifest)
    unused = (name for name in names if name not in changed and name != EMBEDDING_NAME)
    return AdapterReport(writer.target, size, agreement, (*adapted.ignored, *unused))


def _open_base(onto: str | Path) -> ModelPackage:
    try:
        base = ModelPackage.open(onto)
    except PackageError as error:
        raise ExportError(error.message) from None
    if base.base is not None:
        raise ExportError(f"{onto}: is an adapter package itself; name its base, {base.base.path}")
    return base


def _check_origin(base: ModelPackage, tensors: CheckpointTensors) -> None:
    """Raises ExportError if the package was made from other weights than these."""
    digest, recorded = weights_digest(tensors.files), base.manifest.source.weights_sha256
    if digest != recorded:
        raise ExportError(
            f"{base.path}: was not made from {tensors.where} alone: the weights' SHA-256 is {digest[:12]}..., "
            f"its manifest says {recorded[:12]}..."
        )


def _graphs(base: ModelPackage, adapted: AdaptedTensors) -> Mapping[str, AdaptedGraph]:
    """The graphs that the adapter changes, by file name."""
    graphs = {}
    for name in sorted(base.manifest.files):
        if name in (VISION_NAME, DECODER_CPU_NAME):
            precision = base.manifest.vision_precision if name == VISION_NAME else base.manifest.decoder_precision
            graph = adapt_graph(base.path / name, adapted, _dtype(precision))
            if graph.changed:
                graphs[name] = graph
    return graphs


def _dtype(precision: Precision) -> np.dtype[Any]:
    return np.dtype(np.float32 if precision is Precision.FP32 else np.float16)


def _write(
    writer: PackageWriter,
    base: ModelPackage,
    adapted: AdaptedTensors,
    graphs: Mapping[str, AdaptedGraph],
    progress: ProgressFactory | None,
) -> None:
    own_table = EMBEDDING_NAME in adapted.replaced or EMBEDDING_NAME in adapted.low_rank
    table = base.embeddings()
    total = sum(weight.size for graph in graphs.values() for weight in graph.weights) + own_table * table.nbytes
    report: Progress = (lambda name, size: None) if progress is None else progress("writing", total)
    for name, graph in graphs.items():
        writer.adapted_graph(name, graph, report)
    if own_table:
        writer.table(EMBEDDINGS_NAME, adapted[EMBEDDING_NAME], table.dtype, report)


def _verify(
    package: ModelPackage, base: ModelPackage, adapted: AdaptedTensors, tensors: CheckpointTensors, config: MobileVlmConfig
) -> Agreement:
    """Holds the package against the merged model; raises ExportError in one line if they differ too much.

    A base in fewer bits is far from its checkpoint itself: there the adapter's model may be twice as far from the merged one.
    """
    if package.manifest.decoder_precision in TOLERANCE:
        return verify(package, adapted, config)
    allowed = _QUANTIZED_SHARE * max(differences(base, tensors, config))
    agreement = Agreement(*differences(package, adapted, config), allowed)
    check(agreement)
    return agreement


def _manifest(base: ModelPackage, target: Path, adapter: Path, adapted: AdaptedTensors, options: AdapterOptions) -> Manifest:
    folder, known = adapter.resolve().name, base.manifest
    revision = known.source.revision if options.revision is None else options.revision
    return replace(
        known,
        name=options.name or folder,
        source=Source(options.source or f"{known.source.checkpoint} + {folder}", revision, weights_digest(adapted.files)),
        licence=known.licence if options.licence is None else options.licence,
        phrasings=options.phrasings or known.phrasings,
        files={},
        base=BaseRef(os.path.relpath(base.path.resolve(), target.resolve()), file_sha256(base.path / MANIFEST_NAME)),
    )

"""Which graphs for TensorRT a package holds beside the CPU's, and how they are made.

The vision graph is one for all versions of TensorRT; decoders are written in a dialect each, over the same weights. Knows what
shares a data file; knows nothing of checkpoints' and packages' other files.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from mobilevlm_ros.checkpoint.config import MobileVlmConfig
from mobilevlm_ros.checkpoint.reader import Tensors
from mobilevlm_ros.export.decoder_graph import DecoderDialect, build_decoder
from mobilevlm_ros.export.errors import ExportError
from mobilevlm_ros.export.linear_weights import LinearWeight
from mobilevlm_ros.export.onnx_builder import OPSET, BuiltGraph, GraphBuilder
from mobilevlm_ros.export.trt_dialect import TrtDialect
from mobilevlm_ros.export.trt_portable_dialect import TrtPortableDialect
from mobilevlm_ros.export.typed_builder import TypedGraphBuilder
from mobilevlm_ros.export.vision_graph import build_vision
from mobilevlm_ros.runtime.manifest import Precision
from mobilevlm_ros.runtime.package import VISION_TRT_NAME, decoder_name


class Target(str, Enum):
    """What a package is for. The CPU's graphs are always in it: they are the reference, and what runs where TensorRT cannot."""

    CPU = "cpu"
    TRT = "trt"
    TRT_PORTABLE = "trt-portable"
    ALL = "all"

    def dialects(self) -> tuple[DecoderDialect, ...]:
        """The dialects beside the CPU's."""
        known: tuple[DecoderDialect, ...] = (TrtDialect(), TrtPortableDialect())
        return tuple(dialect for dialect in known if self is Target.ALL or dialect.name == self.value)


def check_target(target: Target, precision: Precision) -> None:
    """Raises ExportError for a precision that the target's graphs do not have."""
    if precision is Precision.INT8 and target is not Target.CPU:
        raise ExportError("TensorRT multiplies with no blocks of 8 bits: convert with --precision fp16 or int4")


def build_trt_graphs(
    tensors: Tensors,
    config: MobileVlmConfig,
    precision: Precision,
    linears: Mapping[str, LinearWeight],
    target: Target,
    written: Mapping[str, GraphBuilder],
) -> tuple[BuiltGraph, ...]:
    """The target's graphs beside the CPU's, which are given as `written` by the names of their data files.

    The tower and the projector are float16 where the decoder has fewer bits: they run once for a picture, on whole matrices.
    """
    if target is Target.CPU:
        return ()
    shared = dict(written)
    vision = TypedGraphBuilder("vision", tensors, precision, {}, shared)
    build_vision(vision, config)
    graphs = [BuiltGraph(VISION_TRT_NAME, vision, {"": OPSET})]
    for dialect in target.dialects():
        decoder = TypedGraphBuilder("decoder", tensors, precision, linears, shared)
        build_decoder(decoder, config, dialect)
        graphs.append(BuiltGraph(decoder_name(dialect.name), decoder, dialect.opsets))
        shared[graphs[-1].data_name] = decoder
    return tuple(graphs)

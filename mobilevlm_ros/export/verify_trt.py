"""Holds a package's graphs for TensorRT against its CPU graphs, which `verify` and `fidelity` hold against PyTorch.

Both run here, in ONNX Runtime: what is checked is that float16 suffices for this checkpoint, whose activations the other checks
have seen to be sound, and that no value leaves its range. Knows both interfaces; proves nothing about TensorRT itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mobilevlm_ros.export.errors import ExportError
from mobilevlm_ros.export.trt_graphs import Target
from mobilevlm_ros.export.trt_reference import ReferenceDecoder, ReferenceGraph, RunnableGraph, can_run
from mobilevlm_ros.export.verify import Sample, difference, run_package
from mobilevlm_ros.runtime.manifest import Precision
from mobilevlm_ros.runtime.package import PREFILL_DIALECT, VISION_TRT_NAME, ModelPackage

TOLERANCE = {Precision.FP32: 1e-4, Precision.FP16: 2e-2, Precision.INT4: 1e-1}
"""Largest allowed difference as a share of the largest value. In int4 the CPU's graphs round a product's inputs to 8 bits, as its
tower's weights; TensorRT's do neither."""


@dataclass(frozen=True)
class GraphAgreement:
    """How a graph compares with the CPU's.

    Attributes:
        graph: its file.
        difference: the largest one, as a share of the largest value; `tolerance` is what was allowed.
        largest: the largest magnitude of a value in float16, whose range ends at 65504.

    Where this ONNX Runtime is too old for the graph, `difference` and `largest` are None.
    """

    graph: str
    difference: float | None
    tolerance: float
    largest: float | None


def verify_trt(package: ModelPackage, target: Target) -> tuple[GraphAgreement, ...]:
    """Compares visual tokens and logits of the target's graphs.

    Raises ExportError in one line if they differ by too much, or if a value leaves float16's range.
    """
    if target is Target.CPU:
        return ()
    sample = Sample.of(package.manifest)
    features, logits = run_package(package.without_decoder(PREFILL_DIALECT), sample)  # of the same rounding
    allowed = TOLERANCE[package.manifest.decoder_precision]
    vision = ReferenceGraph(package.vision_trt.graph)
    seen = vision.run({"pixels": sample.pixels})["features"]
    found = [GraphAgreement(VISION_TRT_NAME, difference(seen, features), allowed, vision.largest)]
    for dialect in target.dialects():
        path = package.decoder(dialect.name).graph
        if can_run(path):
            graph = ReferenceGraph(path)
            shown = difference(_logits(package, graph, sample, features), logits)
            found.append(GraphAgreement(path.name, shown, allowed, graph.largest))
        else:
            found.append(GraphAgreement(path.name, None, allowed, None))
    for agreement in found:
        _check(agreement)
    return tuple(found)


def _logits(package: ModelPackage, graph: RunnableGraph, sample: Sample, features: np.ndarray) -> np.ndarray:
    """Logits from the sample's tail on."""
    table = package.embeddings()
    head, tail, steps = (np.asarray(table[ids], np.float32) for ids in (sample.head, sample.tail, sample.steps))
    decoder = ReferenceDecoder(graph, rows=1, capacity=len(head) + features.shape[1] + len(tail) + len(steps))
    decoder.prefill(0, np.concatenate([head, features[0]]), [0])
    parts = [decoder.prefill(0, tail, range(len(tail)))]
    return np.concatenate([*parts, *(decoder.decode(step[None]) for step in steps)])


def _check(agreement: GraphAgreement) -> None:
    if agreement.largest == np.inf:
        raise ExportError(f"{agreement.graph}: float16 does not suffice for this checkpoint, whose values leave its range")
    # Written so that a NaN fails.
    if agreement.difference is not None and not agreement.difference <= agreement.tolerance:
        found = f"{agreement.difference:.2e}, allowed are {agreement.tolerance:.0e}"
        raise ExportError(f"{agreement.graph} differs from the CPU's graph by {found}: float16 does not suffice here")

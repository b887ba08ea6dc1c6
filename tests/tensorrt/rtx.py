"""Compiles graphs with TensorRT-RTX, which needs neither a GPU nor a driver for that.

What passes here was parsed and compiled by TensorRT-RTX for an Ampere card (SM 8.6); it was not run, and not on TensorRT.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mobilevlm_ros.runtime.onnx_axis import fix_axis

REASON = "TensorRT-RTX is not installed: pip install -r requirements/tensorrt-check.txt"


@dataclass(frozen=True)
class Sizes:
    """What engines are built for: positions in the cache, the longest prefill, and rows that decode at once."""

    capacity: int = 64
    prefill: int = 32
    rows: int = 2


def compiled(graph: Path, sizes: Sizes = Sizes()) -> int:
    """Bytes of the engine made of a package's graph, with one profile for vision and two for decoders.

    Raises ValueError with what TensorRT-RTX has to say if it does not parse or does not compile.
    """
    model = graph.read_bytes()
    if graph.name.startswith("decoder."):
        model = fix_axis(model, "M", sizes.capacity)
    return compile_model(model, graph, sizes)


def compile_model(model: bytes, path: Path | None = None, sizes: Sizes = Sizes()) -> int:
    """As `compiled`, for a serialized model whose weights lie beside `path`."""
    rtx = pytest.importorskip("tensorrt_rtx_bindings", reason=REASON)
    logger = _logger(rtx)
    builder = rtx.Builder(logger)
    network = builder.create_network(0)
    parser = rtx.OnnxParser(network, logger)
    if not parser.parse(model, None if path is None else str(path)):
        raise ValueError("; ".join(parser.get_error(number).desc() for number in range(parser.num_errors)))
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(rtx.ComputeCapability.SM86, 0)
    inputs = [network.get_input(number) for number in range(network.num_inputs)]
    decoder = any(tensor.name == "position_ids" for tensor in inputs)
    for lengths in ((1, sizes.prefill), (1, 1)) if decoder else ((1, 1),):
        rows = sizes.rows if lengths == (1, 1) and decoder else 1
        profile = builder.create_optimization_profile()
        for tensor in inputs:
            shapes = [_shape(tensor, *dynamic) for dynamic in ((1, lengths[0]), (1, lengths[1]), (rows, lengths[1]))]
            profile.set_shape(tensor.name, *shapes)
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ValueError("; ".join(logger.messages))
    return int(engine.nbytes)


def _shape(tensor: Any, rows: int, length: int) -> tuple[int, ...]:
    """The shape with rows and length in the place of dynamic axes; logits are asked for at one place."""
    second = 1 if tensor.name == "logits_at" else length
    return tuple((rows, second)[axis] if size < 0 else size for axis, size in enumerate(tensor.shape))


def _logger(rtx: Any) -> Any:
    class Logger(rtx.ILogger):
        def __init__(self) -> None:
            rtx.ILogger.__init__(self)
            self.messages: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(rtx.ILogger.ERROR):
                self.messages.append(message)

    return Logger()

"""Builds one engine: `python -m mobilevlm_ros.runtime.tensorrt.build ORDER OUTPUT TIMING_CACHE`, ORDER being `Order.to_json`.

A process of its own, so that what TensorRT takes to build is given back, a crash takes no node with it, and it can be ended at
any moment. Prints one JSON object a line: progress, and at the end `done` or an `error`. Ends when its standard input does, so
that it does not outlive the process that wanted the engine. Writes where it is told; the caller puts the file in its place.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mobilevlm_ros.runtime.errors import BackendError, VlmError
from mobilevlm_ros.runtime.onnx_axis import fix_axis
from mobilevlm_ros.runtime.tensorrt.library import load_tensorrt
from mobilevlm_ros.runtime.tensorrt.log import make_logger
from mobilevlm_ros.runtime.tensorrt.plan import AxisRange, Order, Profile

CACHE_AXIS = "M"
_AXES = {
    "inputs_embeds": ("B", "S"),
    "position_ids": ("B", "S"),
    "logits_at": ("B", "K"),
    "past": ("B",),
    "pixels": ("N",),
}
"""The leading axes of the graphs' inputs whose sizes may change; all inputs of the cache begin with `past`."""


def main(arguments: Sequence[str] | None = None, tensorrt: Any = None) -> int:
    """Builds. Returns 0, or 1 after an `error` line.

    Args:
        tensorrt: what to build with instead of the machine's TensorRT.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own handler would wait for TensorRT to come back
    threading.Thread(target=_end_with_the_caller, daemon=True).start()
    order, output, timing = (sys.argv[1:] if arguments is None else arguments)[:3]
    try:
        written = build(tensorrt or load_tensorrt(), Order.from_json(order), Path(output), Path(timing))
    except VlmError as error:
        _say(error=error.message)
        return 1
    except OSError as error:
        _say(error=f"the engine cannot be written: {error}")
        return 1
    _say(done=written)
    return 0


def build(trt: Any, order: Order, output: Path, timing: Path) -> int:
    """Builds an engine into a file and returns its bytes.

    Args:
        trt: TensorRT's module.
        timing: measurements of kernels, read where the file is there and written afterwards.

    Raises:
        BackendError: TensorRT takes the graph not, or cannot build it; in its own words.
        OSError: a file cannot be read or written.
    """
    log, logger = make_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    graph = order.graph.read_bytes()
    if order.positions:
        graph = fix_axis(graph, CACHE_AXIS, order.positions)
    if not parser.parse(graph, str(order.graph)):
        said = parser.get_error(0).desc() if parser.num_errors else log.last_error()
        raise BackendError(f"TensorRT {trt.__version__} does not take {order.graph.name}: {' '.join(said.split())}")
    _let_attention_decompose(trt, network)
    config = _configure(trt, builder, network, order)
    cache = config.create_timing_cache(timing.read_bytes() if timing.is_file() else b"")
    config.set_timing_cache(cache, False)
    if hasattr(trt, "IProgressMonitor"):
        config.progress_monitor = _make_monitor(trt)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise BackendError(f"TensorRT {trt.__version__} cannot build {order.graph.name}: {log.last_error()}")
    written = memoryview(serialized)
    _write(output, written)
    measured = config.get_timing_cache()
    if measured is not None:
        part = timing.with_suffix(".part")
        _write(part, memoryview(measured.serialize()))
        os.replace(part, timing)
    return written.nbytes


def _configure(trt: Any, builder: Any, network: Any, order: Order) -> Any:
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, order.workspace)
    config.max_aux_streams = 0  # one stream: less memory, and a plain graph to capture
    for wanted in order.profiles:
        profile = builder.create_optimization_profile()
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            profile.set_shape(tensor.name, *input_shapes(tensor.name, tuple(tensor.shape), wanted))
        if config.add_optimization_profile(profile) < 0:
            raise BackendError(f"TensorRT {trt.__version__} does not take a profile of {order.graph.name}: {wanted}")
    return config


def _let_attention_decompose(trt: Any, network: Any) -> None:
    """Let attention be built from single operations where TensorRT has no kernel for all of it, which else ends the build."""
    own_type, kind = getattr(trt, "IAttentionInputLayer", None), getattr(trt.LayerType, "ATTENTION_INPUT", None)
    if own_type is None or kind is None:
        return
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == kind:
            layer.__class__ = own_type  # how TensorRT's Python gives a layer its own type
            layer.attention.decomposable = True


def input_shapes(name: str, shape: tuple[int, ...], profile: Profile) -> list[tuple[int, ...]]:
    """Least, usual and largest shape of an input in a profile; `shape` has -1 where the profile decides.

    Raises:
        BackendError: the graph leaves open what the profile does not tell.
    """
    axes = _AXES.get(name.split("_")[0] if name.startswith("past_") else name, ())
    ranges = {entry.axis: entry for entry in profile}
    try:
        open_axes = [ranges[axes[place]] if size < 0 else AxisRange("", size, size, size) for place, size in enumerate(shape)]
    except (IndexError, KeyError) as error:
        raise BackendError(f"the graph's input {name} of shape {shape} is not one that a profile is known for") from error
    least, usual, most = (tuple(getattr(axis, which) for axis in open_axes) for which in ("least", "usual", "most"))
    return [least, usual, most]


def _make_monitor(trt: Any) -> Any:
    """Reports the outermost phases; what is inside one counts as that."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._outer: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self._outer[phase_name] = num_steps
                _say(phase=phase_name, fraction=0.0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if steps := self._outer.get(phase_name):
                _say(phase=phase_name, fraction=min((step + 1) / steps, 1.0))
            return True

        def phase_finish(self, phase_name: str) -> None:
            self._outer.pop(phase_name, None)

    return Monitor()


def _write(path: Path, content: memoryview) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _say(**values: object) -> None:
    print(json.dumps(values), flush=True)


def _end_with_the_caller() -> None:
    while os.read(0, 1 << 10):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())

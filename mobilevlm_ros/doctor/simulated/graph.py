"""A graph's inputs and outputs, read and computed with ONNX Runtime on the processor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

_KINDS = {
    "tensor(float)": ("FLOAT", np.float32),
    "tensor(float16)": ("HALF", np.float16),
    "tensor(int64)": ("INT64", np.int64),
    "tensor(int32)": ("INT32", np.int32),
    "tensor(uint8)": ("UINT8", np.uint8),
    "tensor(bool)": ("BOOL", np.bool_),
}


@dataclass(frozen=True)
class Value:
    """An input or output: its shape with names for open axes, TensorRT's word for its type, and NumPy's."""

    shape: tuple[int | str, ...]
    kind: str
    dtype: np.dtype

    @property
    def plain_shape(self) -> tuple[int, ...]:
        """With -1 for open axes, as TensorRT tells it."""
        return tuple(-1 if isinstance(size, str) else size for size in self.shape)

    def resolved(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """With the sizes of open axes put in."""
        return tuple(sizes[size] if isinstance(size, str) else size for size in self.shape)

    def nbytes(self, shape: tuple[int, ...]) -> int:
        """Bytes in such a shape."""
        return int(np.prod(shape)) * self.dtype.itemsize


class Graph:
    """A graph that can be computed on memory by address."""

    def __init__(self, model: bytes, path: Path) -> None:
        """
        Args:
            path: where the graph lies, beside its weights.

        Raises:
            RuntimeError: ONNX Runtime does not take it.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")  # activations are not rounded to 8 bits
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise RuntimeError(str(error).splitlines()[0]) from error
        self.inputs = {value.name: _value(value) for value in self._session.get_inputs()}
        self.outputs = {value.name: _value(value) for value in self._session.get_outputs()}

    def sizes(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
        """The open axes' sizes that follow from the inputs' shapes; raises ValueError where two contradict each other."""
        sizes: dict[str, int] = {}
        for name, value in self.inputs.items():
            for axis, size in zip(value.shape, shapes[name]):
                if isinstance(axis, str) and sizes.setdefault(axis, size) != size:
                    raise ValueError(f"axis {axis} is {sizes[axis]} and, in {name}, {size}")
        return sizes

    def compute(self, places: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Compute from and into memory; `places` are addresses for the processor, `shapes` those of inputs and outputs."""
        binding = self._session.io_binding()
        for name, value in self.inputs.items():
            binding.bind_input(name, "cpu", 0, value.dtype.type, shapes[name], places[name])
        for name, value in self.outputs.items():
            binding.bind_output(name, "cpu", 0, value.dtype.type, shapes[name], places[name])
        self._session.run_with_iobinding(binding)


def _value(value: ort.NodeArg) -> Value:
    kind, dtype = _KINDS[value.type]
    shape = tuple(size if isinstance(size, (int, str)) else f"{value.name}/{place}" for place, size in enumerate(value.shape))
    return Value(shape, kind, np.dtype(dtype))

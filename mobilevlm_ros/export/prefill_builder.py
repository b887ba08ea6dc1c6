"""Builds the decoder that prompts are read with: the same graph as for single tokens, its layers multiplied in 8 bits.

Reading a prompt is bound by arithmetic, not by memory, and processors with int8 products multiply whole integers of 8 bits
several times as fast as blocks of 4. A weight has one scale for each output (and 7 of the 8 bits, see CHANNEL_LEVELS), an input
in 8 bits one for each position, found when it is multiplied (LLM.int8, section 3.1; ZeroQuant's "token-wise" quantisation); what
is left of one range for all positions is where between -1 and 1 it begins. Knows how weights are stored; nothing of what a graph
computes beside the name of its layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import numpy as np

from mobilevlm_ros.export.errors import ExportError
from mobilevlm_ros.export.linear_weights import takes_channels, to_channels
from mobilevlm_ros.export.onnx_builder import MICROSOFT, GraphBuilder
from mobilevlm_ros.runtime.manifest import Precision

LAYERS = "model.layers."
"""Begins the released names of the decoder layers' tensors."""
_LEAST = 1e-12
"""In place of the largest value of a position whose values are all zero."""


class Prefill(str, Enum):
    """What prompts are read with: the decoder for single tokens, or one in 8 bits beside it."""

    SAME = "same"
    INT8 = "int8"


def check_prefill(prefill: Prefill, precision: Precision) -> None:
    """Raises ExportError for a precision whose decoder has no other one beside it."""
    if prefill is not Prefill.SAME and precision is not Precision.INT4:
        raise ExportError("a decoder of its own for prompts (--prefill int8) goes with --precision int4 only")


class PrefillBuilder(GraphBuilder):
    """A `GraphBuilder` whose layers' linear weights are stored in 8 bits by the output, where the product takes that.

    They are rounded from the checkpoint's own values when they are written; the other maps are as `linears` says.
    """

    def linear(self, value: str, weight: str, bias: str | None = None) -> str:
        if not self._in_8_bits(weight):
            return super().linear(value, weight, bias)
        (product,) = self.linears(value, [weight])
        return product if bias is None else self.node("Add", product, self.weight(bias))

    def linears(self, value: str, weights: Sequence[str]) -> list[str]:
        if not all(map(self._in_8_bits, weights)):
            return [self.linear(value, weight) for weight in weights]
        # The operator has one scale for all of its input, so each position is brought to the same range before it.
        largest = self.node("ReduceMax", self.node("Abs", value), axes=[-1], keepdims=1)
        largest = self.node("Max", largest, self.constant(_LEAST))
        even = self.node("Div", value, largest)
        return [self.node("Mul", self._product(even, weight), largest) for weight in weights]

    def _in_8_bits(self, name: str) -> bool:
        return name.startswith(LAYERS) and takes_channels(self.tensors.shape(name)[0])

    def _product(self, value: str, name: str) -> str:
        rows, columns = self.tensors.shape(name)
        integers = self._declare(
            f"{name}/integers", np.dtype(np.int8), (columns, rows), lambda: to_channels(self.read(name)).integers
        )
        scales = self._declare(f"{name}/scales", np.dtype(np.float32), (rows,), lambda: to_channels(self.read(name)).scales)
        return self.node("DynamicQuantizeMatMul", value, integers, scales, domain=MICROSOFT)

"""How the matrix of a linear map can be stored in fewer bits, and what ONNX Runtime multiplies with.

Values and arithmetic only; which matrix is stored how is decided in `quantization.py`. All of it is symmetric: a weight is an
integer times a positive scale, without a zero point of its own, which is also what TensorRT takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BLOCK = 128
"""Neighbouring inputs of one output that share a scale. Larger blocks read fewer bytes; TensorRT knows 64 and 128."""
CHANNEL_LEVELS = 63
"""Largest integer of a `ChannelWeight`. With 7 bits, pairs of products fit into the 16 bits in which processors with AVX2 and
without VNNI add them; with 8 they would overflow (ONNX Runtime's documentation of quantisation, "reduce_range")."""


@dataclass(frozen=True, eq=False)
class BlockWeight:
    """A matrix [out, in] in integers of 4 or 8 bits, with a scale for each block of inputs.

    Attributes:
        bits: 4 or 8.
        columns: inputs; the last block may be shorter than BLOCK.
        packed: uint8 [out, blocks, BLOCK * bits / 8]: the integers plus 2^(bits - 1), the earlier of two in the lower half of a
            byte (ONNX Runtime's operator MatMulNBits).
        scales: float32 [out, blocks].
    """

    bits: int
    columns: int
    packed: np.ndarray
    scales: np.ndarray

    @property
    def rows(self) -> int:
        """Outputs."""
        return int(self.packed.shape[0])

    @property
    def size(self) -> int:
        """Bytes in the data file."""
        return self.packed.nbytes + self.scales.nbytes

    def integers(self) -> np.ndarray:
        """int8 [out, blocks, BLOCK], from -2^(bits - 1) to 2^(bits - 1) - 1."""
        raised = self.packed
        if self.bits == 4:
            raised = np.stack([raised & 15, raised >> 4], axis=-1).reshape(self.rows, -1, BLOCK)
        return (raised.astype(np.int16) - 2 ** (self.bits - 1)).astype(np.int8)

    def values(self) -> np.ndarray:
        """The matrix that this stands for: float32 [out, in]."""
        whole = self.integers().astype(np.float32) * self.scales[:, :, None]
        return np.ascontiguousarray(whole.reshape(self.rows, -1)[:, : self.columns])


@dataclass(frozen=True, eq=False)
class ChannelWeight:
    """A matrix [out, in] in integers with a scale for each output; its input is brought to 8 bits when it is multiplied.

    `integers` int8 [in, out] from -CHANNEL_LEVELS to CHANNEL_LEVELS; `scales` float32 [out].
    """

    integers: np.ndarray
    scales: np.ndarray

    @property
    def size(self) -> int:
        """Bytes in the data file."""
        return self.integers.nbytes + self.scales.nbytes

    def values(self) -> np.ndarray:
        """The matrix that this stands for: float32 [out, in]."""
        return np.ascontiguousarray((self.integers.astype(np.float32) * self.scales).T)


LinearWeight = BlockWeight | ChannelWeight


def block_scales(matrix: np.ndarray, bits: int) -> np.ndarray:
    """Scales float32 [out, blocks] with which the largest value of each block is just expressed."""
    largest = np.abs(_in_blocks(matrix)).max(axis=2)
    return np.where(largest > 0, largest / (2 ** (bits - 1) - 1), 1).astype(np.float32)


def to_blocks(matrix: np.ndarray, bits: int, scales: np.ndarray | None = None) -> BlockWeight:
    """Rounds a matrix float32 [out, in] to the nearest integers of `bits`, by default with `block_scales`."""
    used = block_scales(matrix, bits) if scales is None else scales.astype(np.float32)
    middle = 2 ** (bits - 1)
    integers = np.clip(np.rint(_in_blocks(matrix) / used[:, :, None]) + middle, 0, 2 * middle - 1).astype(np.uint8)
    if bits == 4:
        integers = integers[:, :, 0::2] | (integers[:, :, 1::2] << 4)
    return BlockWeight(bits, matrix.shape[1], np.ascontiguousarray(integers), used)


def joined(parts: Sequence[BlockWeight]) -> BlockWeight:
    """Matrices of the same inputs and bits, one below the other."""
    packed, scales = (np.concatenate(arrays) for arrays in zip(*((part.packed, part.scales) for part in parts)))
    return BlockWeight(parts[0].bits, parts[0].columns, packed, scales)


def to_channels(matrix: np.ndarray) -> ChannelWeight:
    """Rounds a matrix float32 [out, in] to the nearest integers with one scale for each output."""
    largest = np.abs(matrix).max(axis=1)
    scales = np.where(largest > 0, largest / CHANNEL_LEVELS, 1).astype(np.float32)
    integers = np.clip(np.rint(matrix / scales[:, None]), -CHANNEL_LEVELS, CHANNEL_LEVELS).astype(np.int8)
    return ChannelWeight(np.ascontiguousarray(integers.T), scales)


def takes_channels(outputs: int) -> bool:
    """Whether every ONNX Runtime multiplies a `ChannelWeight` with so many outputs rightly.

    1.23.2, on processors with AMX, computes nonsense for the last columns where 17 to 31 are left behind whole 32s (measured for
    8 to 99 outputs). No released model has such a map.
    """
    return outputs % 32 <= 16


def _in_blocks(matrix: np.ndarray) -> np.ndarray:
    """[out, in] to [out, blocks, BLOCK], the last block filled up with zeros."""
    missing = -matrix.shape[1] % BLOCK
    return np.pad(matrix, ((0, 0), (0, missing))).reshape(matrix.shape[0], -1, BLOCK)

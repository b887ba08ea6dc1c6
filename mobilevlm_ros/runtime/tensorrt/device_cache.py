"""Keys and values on the device: one block for all rows of all layers, and copies of prefixes beside it.

Implements what `runtime/kv_cache.py` asks of a cache. Knows no engine; an engine writes into the rows in place, or leaves
a chunk's new keys and values in a staging block, from which `take` brings them into the rows.
"""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass

from mobilevlm_ros.runtime.errors import BackendError
from mobilevlm_ros.runtime.tensorrt.cudart import Cudart, Planes
from mobilevlm_ros.runtime.tensorrt.memory import ALIGNMENT, Block, Memory


@dataclass(frozen=True)
class CacheShape:
    """The cache of all layers: [tensors, rows, heads, positions, head_bytes], a key's and a value's tensor for each layer."""

    tensors: int
    rows: int
    heads: int
    positions: int
    head_bytes: int

    @property
    def row_bytes(self) -> int:
        """A row of one tensor."""
        return self.heads * self.positions * self.head_bytes

    @property
    def nbytes(self) -> int:
        """All of it."""
        return self.tensors * self.rows * self.row_bytes


class DevicePrefix:
    """Keys and values of `length` positions of a prompt: [tensors, heads, length, head_dim] on the device."""

    def __init__(self, memory: Memory, shape: CacheShape, length: int) -> None:
        self.length = length
        self.nbytes = shape.tensors * shape.heads * length * shape.head_bytes
        block = memory.allocate(self.nbytes, "a kept prefix")
        self.planes = Planes(block.address, length * shape.head_bytes, shape.heads)
        weakref.finalize(self, memory.release, block)


class DeviceKVCache:
    """Buffers for `rows` requests of up to `capacity` positions.

    Attributes:
        shape: the sizes.
        capacity: longest prompt and answer together; the buffers may be longer.
        lengths: positions filled in each row.
    """

    def __init__(self, cudart: Cudart, memory: Memory, stream: int, shape: CacheShape, capacity: int) -> None:
        """
        Raises:
            CudaError: OUT_OF_MEMORY with what was asked for.
        """
        purpose = f"the keys and values of {shape.rows} rows of {shape.positions} tokens"
        self.shape = shape
        self.capacity = capacity
        self.lengths = [0] * shape.rows
        self._cudart, self._memory, self._stream = cudart, memory, stream
        self._block = memory.allocate(shape.nbytes, purpose)
        # Masked positions are multiplied by zero, which only a number survives.
        cudart.memset(self._block.address, 0, shape.nbytes, stream)

    @property
    def rows(self) -> int:
        """Requests that can run at once."""
        return len(self.lengths)

    def address(self, tensor: int, row: int) -> int:
        """Where a row of a tensor begins; tensor 2 i is layer i's keys, 2 i + 1 its values."""
        return self._block.address + (tensor * self.shape.rows + row) * self.shape.row_bytes

    def extend(self, row: int, prefix: DevicePrefix, count: int) -> None:
        """Put the first `count` positions of a copy behind those that a row holds."""
        self._copy(self._planes(row, self.lengths[row]), prefix.planes, count)
        self.lengths[row] += count

    def save(self, row: int, start: int = 0) -> DevicePrefix:
        """A copy of what a row holds from position `start` on; raises CudaError."""
        prefix = DevicePrefix(self._memory, self.shape, self.lengths[row] - start)
        self._copy(prefix.planes, self._planes(row, start), prefix.length)
        return prefix

    def take(self, row: int, staged: Planes, length: int) -> None:
        """Copy the keys and values of `length` new positions behind those that the row holds, without counting them."""
        self._copy(self._planes(row, self.lengths[row]), staged, length)

    def check_room(self, row: int, length: int) -> None:
        """Raises BackendError where a row cannot hold so many positions more."""
        if self.lengths[row] + length > self.shape.positions:
            raise BackendError(f"{self.lengths[row]} and {length} tokens do not fit a row of {self.shape.positions}")

    def _planes(self, row: int, position: int) -> Planes:
        shape = self.shape
        address = self.address(0, row) + position * shape.head_bytes
        return Planes(address, shape.positions * shape.head_bytes, shape.rows * shape.heads)

    def _copy(self, target: Planes, source: Planes, length: int) -> None:
        shape = self.shape
        if length:
            extent = (shape.tensors, shape.heads, length * shape.head_bytes)
            self._cudart.copy_planes(target, source, extent, self._stream)


class Staging:
    """Where an engine leaves a chunk's new keys and values: [tensors, batch, heads, chunk, head_dim], tensors a stride apart."""

    def __init__(self, memory: Memory, shape: CacheShape, longest: int) -> None:
        """Room for `longest` new positions, counted over the rows of a batch; raises CudaError."""
        self._shape = shape
        step = _step(shape.head_bytes)  # that of any chunk divides it
        most = longest * -(-shape.heads // step) * step * shape.head_bytes
        self._block: Block = memory.allocate(shape.tensors * most, "new keys and values")

    def address(self, tensor: int, batch: int, chunk: int) -> int:
        """Where a tensor begins in a run of `batch` rows and `chunk` positions."""
        return self._block.address + tensor * self._lines(batch, chunk) * chunk * self._shape.head_bytes

    def planes(self, row: int, batch: int, chunk: int) -> Planes:
        """A row's new keys and values after such a run."""
        pitch = chunk * self._shape.head_bytes
        return Planes(self._block.address + row * self._shape.heads * pitch, pitch, self._lines(batch, chunk))

    def _lines(self, batch: int, chunk: int) -> int:
        """Lines of `chunk` positions from tensor to tensor: the fewest that hold a batch and keep addresses aligned."""
        step = _step(chunk * self._shape.head_bytes)
        return -(-batch * self._shape.heads // step) * step


def _step(line_bytes: int) -> int:
    """How many lines it takes to come to an aligned address again."""
    return ALIGNMENT // math.gcd(ALIGNMENT, line_bytes)

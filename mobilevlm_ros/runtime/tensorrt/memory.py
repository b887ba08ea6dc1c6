"""The memory that a model takes on the device: who has what, and that all of it is given back.

Knows sizes and purposes, nothing of what the bytes mean.
"""

from __future__ import annotations

import ctypes
import threading
from dataclasses import dataclass

import numpy as np

from mobilevlm_ros.runtime.errors import BackendError, ErrorCode
from mobilevlm_ros.runtime.tensorrt.cudart import CudaError, Cudart

ALIGNMENT = 256
"""What TensorRT wants every address to be a multiple of, in bytes."""


@dataclass(frozen=True)
class Block:
    """Device memory: its address and size in bytes."""

    address: int
    nbytes: int


@dataclass(frozen=True, eq=False)
class MappedArray:
    """An array that the processor and the device both see. The device reads it after the processor wrote it without any copy."""

    array: np.ndarray
    address: int
    """The device's address of it."""
    host_address: int


class Memory:
    """Gives out memory and remembers it. Safe to use from several threads."""

    def __init__(self, cudart: Cudart) -> None:
        self._cudart = cudart
        self._lock = threading.RLock()  # a finaliser may call while this thread is inside
        self._blocks: set[int] = set()
        self._mapped: set[int] = set()
        self._nbytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes of device memory that are given out."""
        with self._lock:
            return self._nbytes

    def allocate(self, nbytes: int, purpose: str) -> Block:
        """Device memory, not cleared.

        Raises:
            CudaError: OUT_OF_MEMORY with the purpose, what was asked for and what was free.
        """
        try:
            address = self._cudart.malloc(max(nbytes, 1))
        except CudaError as error:
            raise self._explained(error, nbytes, purpose) from error
        with self._lock:
            self._blocks.add(address)
            self._nbytes += nbytes
        return Block(address, nbytes)

    def map(self, shape: tuple[int, ...], kind: np.dtype, purpose: str) -> MappedArray:
        """An array of zeros that both sides see; raises as `allocate`."""
        nbytes = max(int(np.prod(shape)) * kind.itemsize, 1)
        try:
            host, address = self._cudart.host_alloc(nbytes)
        except CudaError as error:
            raise self._explained(error, nbytes, purpose) from error
        with self._lock:
            self._mapped.add(host)
        raw = (ctypes.c_char * nbytes).from_address(host)
        array = np.frombuffer(raw, np.uint8)[: int(np.prod(shape)) * kind.itemsize].view(kind).reshape(shape)
        array[...] = 0
        return MappedArray(array, address, host)

    def release(self, block: Block) -> None:
        """Give a block back; one that `close` took already is left alone."""
        with self._lock:
            if block.address not in self._blocks:
                return
            self._blocks.remove(block.address)
            self._nbytes -= block.nbytes
            self._cudart.free(block.address)

    def release_mapped(self, mapped: MappedArray) -> None:
        """Give an array back, which must not be used any more."""
        with self._lock:
            if mapped.host_address not in self._mapped:
                return
            self._mapped.remove(mapped.host_address)
            self._cudart.free_host(mapped.host_address)

    def close(self) -> None:
        """Give everything back. What lies there must not be used any more."""
        with self._lock:
            blocks, mapped = self._blocks, self._mapped
            self._blocks, self._mapped, self._nbytes = set(), set(), 0
            for address in blocks:
                self._cudart.free(address)
            for address in mapped:
                self._cudart.free_host(address)

    def _explained(self, error: CudaError, nbytes: int, purpose: str) -> BackendError:
        if error.code is not ErrorCode.OUT_OF_MEMORY:
            return error
        free, total = self._cudart.memory()
        text = f"{nbytes / 2**20:.1f} MiB for {purpose}: {error.message}; {free / 2**20:.0f} of {total / 2**20:.0f} MiB are free"
        return CudaError(text, error.status)


def aligned(nbytes: int) -> int:
    """The next multiple of what addresses must be."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT

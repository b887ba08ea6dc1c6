"""A stand-in for CUDA's runtime library, at the seam where ctypes would call the real one.

Stricter than a device wherever that finds mistakes. Work is done only when somebody waits for it; memory begins as NaNs; a device
address is of no use to the processor; every access must lie in memory that is allocated; while a stream is captured, what CUDA
forbids is refused. Proves nothing about a driver.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sized
from ctypes import CFUNCTYPE, c_char, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SUCCESS, INVALID_VALUE, OUT_OF_MEMORY = 0, 1, 2
INVALID_HANDLE, CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED, LAUNCH_FAILURE = 400, 900, 901, 719
_WORDS = {
    INVALID_VALUE: b"invalid argument",
    OUT_OF_MEMORY: b"out of memory",
    INVALID_HANDLE: b"invalid resource handle",
    CAPTURE_UNSUPPORTED: b"operation not permitted when stream is capturing",
    CAPTURE_INVALIDATED: b"operation failed due to a previous error during capture",
    LAUNCH_FAILURE: b"unspecified launch failure",
}
_ALIGNMENT = 256
_DEVICE_BIT = 1 << 60
"""Set in every device address, so that the processor cannot use one by mistake."""
_ATTRIBUTES = {18: 1, 75: 8, 76: 7}  # integrated; compute capability 8.7, an Orin's
_POISON = 0xFF  # NaN in every float

Work = Callable[[], object]


class RefusedError(Exception):
    """A call that CUDA would answer with an error code."""

    def __init__(self, status: int) -> None:
        super().__init__(_WORDS[status].decode())
        self.status = status


@dataclass
class _Stream:
    """Work that waits, and the recording that is under way, if one is."""

    waiting: list[Work] = field(default_factory=list)
    recording: list[Work] | None = None
    spoilt: bool = False


@dataclass(frozen=True)
class _Block:
    """Memory of the pretended device, and the array that keeps it."""

    start: int
    nbytes: int
    owner: np.ndarray


class SimulatedCuda:
    """The library. Its C functions are attributes, as on what `ctypes.CDLL` returns."""

    def __init__(self, memory: int = 8 << 30, name: str = "Simulated Orin") -> None:
        """A device with so many bytes of memory."""
        self.total = memory
        self.problems: list[str] = []
        """What was done that a device would not have borne."""
        self._name = name.encode()
        self._blocks: dict[int, _Block] = {}
        self._mapped: dict[int, _Block] = {}
        self._streams: dict[int, _Stream] = {}
        self._events: dict[int, int] = {}
        self._graphs: dict[int, tuple[Work, ...]] = {}
        self._executables: dict[int, tuple[Work, ...]] = {}
        self._handles = 0x1000
        self._broken = False
        self._words = {status: ctypes.create_string_buffer(text) for status, text in _WORDS.items()}
        self._functions = self._make_functions()

    def __getattr__(self, name: str) -> Any:
        if self.__dict__.pop("_interrupted", False):
            raise KeyboardInterrupt
        try:
            return self.__dict__["_functions"][name]
        except KeyError:
            raise AttributeError(f"undefined symbol: {name}") from None

    @property
    def used(self) -> int:
        """Bytes of memory that are given out."""
        return sum(block.nbytes for block in (*self._blocks.values(), *self._mapped.values()))

    @property
    def live(self) -> int:
        """Blocks, streams, events and graphs that were not given back."""
        kinds: tuple[Sized, ...] = (self._blocks, self._mapped, self._streams, self._events, self._graphs, self._executables)
        return sum(len(kind) for kind in kinds)

    def submit(self, stream: int, work: Work) -> bool:
        """Give a stream work, as an engine does. Returns whether it was recorded for a graph instead of lined up."""
        found = self._stream(stream)
        if found.recording is not None:
            found.recording.append(work)
            return True
        found.waiting.append(work)
        return False

    def is_capturing(self, stream: int) -> bool:
        """Whether the stream's work is being recorded."""
        return self._stream(stream).recording is not None

    def at(self, address: int, nbytes: int) -> int:
        """Where the processor finds a range of device addresses; raises RefusedError where that range is not allocated."""
        place = address ^ _DEVICE_BIT
        for block in (*self._blocks.values(), *self._mapped.values()):
            if block.start <= place and place + nbytes <= block.start + block.nbytes:
                return place
        self.problems.append(f"{nbytes} bytes at {address:#x} are not memory of the device")
        raise RefusedError(INVALID_VALUE)

    def _make_functions(self) -> dict[str, Any]:
        """The C functions. Their signatures are CUDA's own, independent of what the caller declares."""
        out, size, handle = c_void_p, c_size_t, c_void_p
        table: dict[str, tuple[Callable[..., None], tuple[Any, ...]]] = {
            "cudaRuntimeGetVersion": (lambda to: _put_int(to, 12060), (out,)),
            "cudaGetDeviceCount": (lambda to: _put_int(to, 1), (out,)),
            "cudaGetLastError": (lambda: None, ()),
            "cudaDeviceGetAttribute": (lambda to, which, _: _put_int(to, _ATTRIBUTES[which]), (out, c_int, c_int)),
            "cudaGetDeviceProperties_v2": (self._properties, (out, c_int)),
            "cudaMemGetInfo": (self._memory, (out, out)),
            "cudaMalloc": (self._malloc, (out, size)),
            "cudaFree": (self._free, (c_void_p,)),
            "cudaHostAlloc": (self._host_alloc, (out, size, c_uint)),
            "cudaHostGetDevicePointer": (self._device_pointer, (out, c_void_p, c_uint)),
            "cudaFreeHost": (self._free_host, (c_void_p,)),
            "cudaMemsetAsync": (self._memset, (c_void_p, c_int, size, handle)),
            "cudaMemcpy3DAsync": (self._copy_3d, (c_void_p, handle)),
            "cudaStreamCreateWithFlags": (lambda to, _: self._make(to, self._streams, _Stream()), (out, c_uint)),
            "cudaStreamDestroy": (lambda which: _drop(self._streams, which), (handle,)),
            "cudaEventCreateWithFlags": (lambda to, _: self._make(to, self._events, 0), (out, c_uint)),
            "cudaEventDestroy": (lambda which: _drop(self._events, which), (handle,)),
            "cudaEventRecord": (self._record, (handle, handle)),
            "cudaEventSynchronize": (self._synchronize, (handle,)),
            "cudaStreamBeginCapture": (self._begin_capture, (handle, c_int)),
            "cudaStreamEndCapture": (self._end_capture, (handle, out)),
            "cudaGraphInstantiate": (self._instantiate, (out, handle, c_ulonglong)),
            "cudaGraphDestroy": (lambda which: _drop(self._graphs, which), (handle,)),
            "cudaGraphLaunch": (self._launch, (handle, handle)),
            "cudaGraphExecDestroy": (lambda which: _drop(self._executables, which), (handle,)),
        }
        functions: dict[str, Any] = {
            name: CFUNCTYPE(c_int, *arguments)(self._guarded(call)) for name, (call, arguments) in table.items()
        }
        functions["cudaGetErrorString"] = CFUNCTYPE(c_void_p, c_int)(self._error_string)
        return functions

    def _guarded(self, call: Callable[..., None]) -> Callable[..., int]:
        def function(*arguments: Any) -> int:
            try:
                call(*(argument or 0 for argument in arguments))
            except RefusedError as refused:
                return refused.status
            except KeyboardInterrupt:
                self._interrupted = True  # it cannot be raised through C either: the next call does
                return LAUNCH_FAILURE
            except Exception as error:  # noqa: BLE001 - nothing can be raised through C
                self.problems.append(f"{type(error).__name__}: {error}")
                return LAUNCH_FAILURE
            return SUCCESS

        return function

    def _error_string(self, status: int) -> int | None:
        text = self._words.get(status)
        return None if text is None else ctypes.addressof(text)

    def _properties(self, to: int, _: int) -> None:
        (c_char * 256).from_address(to).value = self._name

    def _memory(self, free: int, total: int) -> None:
        c_size_t.from_address(free).value = self.total - self.used
        c_size_t.from_address(total).value = self.total

    def _malloc(self, to: int, nbytes: int) -> None:
        self._refuse_while_capturing()
        block = self._new_block(nbytes)
        self._blocks[block.start] = block
        _put(to, block.start | _DEVICE_BIT)

    def _free(self, address: int) -> None:
        self._refuse_while_capturing()
        if address:
            self._finish_all()
            _drop(self._blocks, address ^ _DEVICE_BIT)

    def _host_alloc(self, to: int, nbytes: int, _: int) -> None:
        self._refuse_while_capturing()
        block = self._new_block(nbytes)
        self._mapped[block.start] = block
        _put(to, block.start)

    def _device_pointer(self, to: int, host: int, _: int) -> None:
        if host not in self._mapped:
            raise RefusedError(INVALID_VALUE)
        _put(to, host | _DEVICE_BIT)

    def _free_host(self, address: int) -> None:
        self._finish_all()
        _drop(self._mapped, address)

    def _new_block(self, nbytes: int) -> _Block:
        if not nbytes:
            raise RefusedError(INVALID_VALUE)
        if nbytes > self.total - self.used:
            raise RefusedError(OUT_OF_MEMORY)
        owner = np.full(nbytes + _ALIGNMENT, _POISON, np.uint8)
        start = -(-owner.ctypes.data // _ALIGNMENT) * _ALIGNMENT
        return _Block(start, nbytes, owner)

    def _memset(self, address: int, value: int, nbytes: int, stream: int) -> None:
        place = self.at(address, nbytes)

        def work() -> None:
            ctypes.memset(place, value, nbytes)

        self.submit(stream, work)

    def _copy_3d(self, parameters: int, stream: int) -> None:
        """cudaMemcpy3DParms is 20 words: an array, a position, a pitched pointer; the same for the target; extent; kind."""
        words = (ctypes.c_uint64 * 20).from_address(parameters)
        since, source_pitch, source_lines = words[4], words[5], words[7]
        to, target_pitch, target_lines = words[12], words[13], words[15]
        width, height, depth, kind = words[16], words[17], words[18], words[19] & 0xFFFFFFFF
        unused = (*words[0:4], *words[8:12])
        if any(unused) or kind != 3 or width > min(source_pitch, target_pitch) or height > min(source_lines, target_lines):
            raise RefusedError(INVALID_VALUE)

        def last(pitch: int, lines: int) -> int:
            return ((depth - 1) * lines + height - 1) * pitch + width

        target, source = self.at(to, last(target_pitch, target_lines)), self.at(since, last(source_pitch, source_lines))

        def work() -> None:
            for plane in range(depth):
                for line in range(height):
                    at = (plane * target_lines + line) * target_pitch
                    ctypes.memmove(target + at, source + (plane * source_lines + line) * source_pitch, width)

        self.submit(stream, work)

    def _record(self, event: int, stream: int) -> None:
        if event not in self._events:
            raise RefusedError(INVALID_HANDLE)
        self._stream(stream)
        self._events[event] = stream

    def _synchronize(self, event: int) -> None:
        self._refuse_while_capturing()
        if event not in self._events:
            raise RefusedError(INVALID_HANDLE)
        self._finish(self._stream(self._events[event]))

    def _begin_capture(self, stream: int, _: int) -> None:
        found = self._stream(stream)
        if found.recording is not None:
            raise RefusedError(INVALID_VALUE)
        found.recording, found.spoilt = [], False

    def _end_capture(self, stream: int, to: int) -> None:
        found = self._stream(stream)
        if found.recording is None:
            raise RefusedError(INVALID_VALUE)
        recorded, found.recording = tuple(found.recording), None
        _put(to, 0)
        if found.spoilt:
            raise RefusedError(CAPTURE_INVALIDATED)
        self._make(to, self._graphs, recorded)

    def _instantiate(self, to: int, graph: int, _: int) -> None:
        if graph not in self._graphs:
            raise RefusedError(INVALID_VALUE)
        self._make(to, self._executables, self._graphs[graph])

    def _launch(self, executable: int, stream: int) -> None:
        if executable not in self._executables:
            raise RefusedError(INVALID_VALUE)
        for work in self._executables[executable]:
            self.submit(stream, work)

    def _stream(self, handle: int) -> _Stream:
        if handle not in self._streams:
            raise RefusedError(INVALID_HANDLE)
        return self._streams[handle]

    def _refuse_while_capturing(self) -> None:
        for stream in self._streams.values():
            if stream.recording is not None:
                stream.spoilt = True
                raise RefusedError(CAPTURE_UNSUPPORTED)

    def _finish_all(self) -> None:
        for stream in self._streams.values():
            self._finish(stream)

    def _finish(self, stream: _Stream) -> None:
        """Do what waits. Once work has failed, the device answers every wait with that, as a real one does."""
        waiting, stream.waiting = stream.waiting, []
        if not self._broken:
            try:
                for work in waiting:
                    work()
            except Exception as error:  # noqa: BLE001 - a kernel that fails takes the device with it
                self.problems.append(f"{type(error).__name__}: {error}")
                self._broken = True
        if self._broken:
            raise RefusedError(LAUNCH_FAILURE)

    def _make(self, to: int, table: dict[int, Any], thing: object) -> None:
        self._handles += 1
        table[self._handles] = thing
        _put(to, self._handles)


def _put(to: int, value: int) -> None:
    c_void_p.from_address(to).value = value


def _put_int(to: int, value: int) -> None:
    c_int.from_address(to).value = value


def _drop(table: dict[int, Any], handle: int) -> None:
    if table.pop(handle, None) is None:
        raise RefusedError(INVALID_VALUE)

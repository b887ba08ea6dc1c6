"""CUDA's runtime library through ctypes: memory, copies, a stream, events and graphs, as much as running an engine takes.

Knows no TensorRT and no model. Handles and addresses are plain numbers. Every call raises CudaError, in the driver's own words.
Signatures are those of CUDA 12 and 13 (NVIDIA, CUDA Runtime API).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_char, c_char_p, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilevlm_ros.runtime.errors import BackendError, BackendLostError, ErrorCode

LIBRARY_NAMES = ("libcudart.so.13", "libcudart.so.12")

_OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation
_LOST = frozenset({214, 700, 702, 709, 710, *range(714, 720)})
"""Illegal addresses and instructions, launch failures and timeouts, memory errors: the context is gone with them."""
_HOST_ALLOC_MAPPED = 2
_COPY_INSIDE = 3  # cudaMemcpyDeviceToDevice
_STREAM_NON_BLOCKING = 1
_EVENT_BLOCKING_NO_TIMING = 1 | 2
_CAPTURE_THREAD_LOCAL = 1
_ATTRIBUTE_INTEGRATED, _ATTRIBUTE_MAJOR, _ATTRIBUTE_MINOR = 18, 75, 76
_PROPERTIES_BYTES = 1 << 14  # cudaDeviceProp takes about 1 KiB, how much depends on the version; the name stands first
_NAME_BYTES = 256


class _Pitched(Structure):
    """cudaPitchedPtr."""

    _fields_ = (("address", c_void_p), ("pitch", c_size_t), ("width", c_size_t), ("lines", c_size_t))


class _Copy3D(Structure):
    """cudaMemcpy3DParms; arrays and offsets, which stay zero here, are part of it."""

    _fields_ = (
        *(("source_array", c_void_p), ("source_at", c_size_t * 3), ("source", _Pitched)),
        *(("target_array", c_void_p), ("target_at", c_size_t * 3), ("target", _Pitched)),
        *(("width", c_size_t), ("lines", c_size_t), ("planes", c_size_t), ("kind", c_int)),
    )


_OUT = POINTER(c_void_p)
_PROTOTYPES: dict[str, Sequence[Any]] = {
    "cudaRuntimeGetVersion": (POINTER(c_int),),
    "cudaGetDeviceCount": (POINTER(c_int),),
    "cudaGetLastError": (),
    "cudaDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cudaMemGetInfo": (POINTER(c_size_t), POINTER(c_size_t)),
    "cudaMalloc": (_OUT, c_size_t),
    "cudaFree": (c_void_p,),
    "cudaHostAlloc": (_OUT, c_size_t, c_uint),
    "cudaHostGetDevicePointer": (_OUT, c_void_p, c_uint),
    "cudaFreeHost": (c_void_p,),
    "cudaMemsetAsync": (c_void_p, c_int, c_size_t, c_void_p),
    "cudaMemcpy3DAsync": (POINTER(_Copy3D), c_void_p),
    "cudaStreamCreateWithFlags": (_OUT, c_uint),
    "cudaStreamDestroy": (c_void_p,),
    "cudaEventCreateWithFlags": (_OUT, c_uint),
    "cudaEventDestroy": (c_void_p,),
    "cudaEventRecord": (c_void_p, c_void_p),
    "cudaEventSynchronize": (c_void_p,),
    "cudaStreamBeginCapture": (c_void_p, c_int),
    "cudaStreamEndCapture": (c_void_p, _OUT),
    "cudaGraphInstantiate": (_OUT, c_void_p, c_ulonglong),
    "cudaGraphDestroy": (c_void_p,),
    "cudaGraphLaunch": (c_void_p, c_void_p),
    "cudaGraphExecDestroy": (c_void_p,),
}


class CudaError(BackendError):
    """A call of CUDA's runtime library that failed; `status` is its cudaError_t, 0 where no call was made."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message, ErrorCode.OUT_OF_MEMORY if status == _OUT_OF_MEMORY else ErrorCode.MODEL_ERROR)
        self.status = status


class CudaLostError(CudaError, BackendLostError):
    """The device failed in a way that every later call of this process meets again."""


@dataclass(frozen=True)
class Planes:
    """Where planes of lines lie: the first byte's address, bytes from line to line, and lines from plane to plane."""

    address: int
    pitch: int
    lines: int

    def pointer(self) -> _Pitched:
        """As CUDA takes it."""
        return _Pitched(self.address, self.pitch, self.pitch, self.lines)


@dataclass(frozen=True)
class DeviceProperties:
    """The CUDA device: name, compute capability such as "8.7", memory in bytes, and whether that is the processor's too."""

    name: str
    compute_capability: str
    memory: int
    integrated: bool


class Cudart:
    """The calls. One device, number 0; any thread may call, though an engine's calls come from one."""

    def __init__(self, library: Any) -> None:
        """Use a library that is loaded already: what `ctypes.CDLL` returns.

        Raises:
            CudaError: it lacks a function.
        """
        self._library = library
        try:
            for name, arguments in _PROTOTYPES.items():
                function = getattr(library, name)
                function.argtypes, function.restype = list(arguments), c_int
            library.cudaGetErrorString.argtypes, library.cudaGetErrorString.restype = [c_int], c_char_p
            # CUDA 12 has the function with today's layout under a name of its own.
            newer = getattr(library, "cudaGetDeviceProperties_v2", None)
            self._properties = newer or library.cudaGetDeviceProperties
            self._properties.argtypes, self._properties.restype = [c_void_p, c_int], c_int
        except AttributeError as error:
            raise CudaError(f"this is no CUDA runtime library of version 12 or 13: {error}", 0) from error

    @staticmethod
    def load() -> Cudart:
        """The first of the machine's libraries that finds a device.

        Raises:
            CudaError: there is none, or no device; one line with what each library said.
        """
        said = []
        for name in candidates():
            try:
                cudart = Cudart(ctypes.CDLL(name))
                if cudart.device_count():
                    return cudart
                said.append(f"{name}: no CUDA device")
            except CudaError as error:
                said.append(f"{name}: {error.message}")
            except OSError:
                continue
        found = "; ".join(said) or f"none of {', '.join(LIBRARY_NAMES)} is installed"
        raise CudaError(f"no CUDA device can be used: {found}", 0)

    def version(self) -> str:
        """The library's version, such as "12.6"."""
        number = c_int()
        self._call("cudaRuntimeGetVersion", byref(number))
        return f"{number.value // 1000}.{number.value % 1000 // 10}"

    def device_count(self) -> int:
        """How many devices there are."""
        count = c_int()
        self._call("cudaGetDeviceCount", byref(count))
        return count.value

    def device(self) -> DeviceProperties:
        """What the device is."""
        content = (c_char * _PROPERTIES_BYTES)()
        self._check("cudaGetDeviceProperties", self._properties(ctypes.addressof(content), 0))
        name = content.raw[:_NAME_BYTES].split(b"\0")[0].decode(errors="replace")
        major, minor = self._attribute(_ATTRIBUTE_MAJOR), self._attribute(_ATTRIBUTE_MINOR)
        return DeviceProperties(name, f"{major}.{minor}", self.memory()[1], bool(self._attribute(_ATTRIBUTE_INTEGRATED)))

    def memory(self) -> tuple[int, int]:
        """Free bytes and bytes in all of the device's memory."""
        free, total = c_size_t(), c_size_t()
        self._call("cudaMemGetInfo", byref(free), byref(total))
        return free.value, total.value

    def malloc(self, nbytes: int) -> int:
        """Device memory, at an address that is a multiple of 256."""
        return self._made("cudaMalloc", nbytes)

    def free(self, address: int) -> None:
        """Frees what `malloc` gave, after all work on the device."""
        self._call("cudaFree", address)

    def host_alloc(self, nbytes: int) -> tuple[int, int]:
        """Memory that the processor and the device both see: its address for each."""
        host = self._made("cudaHostAlloc", nbytes, _HOST_ALLOC_MAPPED)
        try:
            return host, self._made("cudaHostGetDevicePointer", host, 0)
        except CudaError:
            self.free_host(host)
            raise

    def free_host(self, address: int) -> None:
        """Frees what `host_alloc` gave, by the processor's address."""
        self._call("cudaFreeHost", address)

    def memset(self, address: int, value: int, nbytes: int, stream: int) -> None:
        """Fills bytes, in the stream's order."""
        self._call("cudaMemsetAsync", address, value, nbytes, stream)

    def copy_planes(self, target: Planes, source: Planes, extent: tuple[int, int, int], stream: int) -> None:
        """Copies `extent` = (planes, lines in each, bytes of each line) inside the device's memory, in the stream's order."""
        planes, lines, width = extent
        order = _Copy3D(
            source=source.pointer(), target=target.pointer(), width=width, lines=lines, planes=planes, kind=_COPY_INSIDE
        )
        self._call("cudaMemcpy3DAsync", byref(order), stream)

    def create_stream(self) -> int:
        """A stream that does not wait for the default one."""
        return self._made("cudaStreamCreateWithFlags", _STREAM_NON_BLOCKING)

    def destroy_stream(self, stream: int) -> None:
        """Frees a stream."""
        self._call("cudaStreamDestroy", stream)

    def create_event(self) -> int:
        """An event to wait for without keeping a core busy."""
        return self._made("cudaEventCreateWithFlags", _EVENT_BLOCKING_NO_TIMING)

    def destroy_event(self, event: int) -> None:
        """Frees an event."""
        self._call("cudaEventDestroy", event)

    def finish(self, stream: int, event: int) -> None:
        """Waits until all that the stream was given is done."""
        self._call("cudaEventRecord", event, stream)
        self._call("cudaEventSynchronize", event)

    def begin_capture(self, stream: int) -> None:
        """From now on the stream's work of this thread is recorded instead of done."""
        self._call("cudaStreamBeginCapture", stream, _CAPTURE_THREAD_LOCAL)

    def end_capture(self, stream: int) -> int:
        """Ends the recording; returns the graph."""
        return self._made("cudaStreamEndCapture", stream, out_last=True)

    def instantiate(self, graph: int) -> int:
        """Makes a recorded graph ready to launch and frees the recording; returns what `launch` takes."""
        try:
            return self._made("cudaGraphInstantiate", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, executable: int, stream: int) -> None:
        """Does a graph's work, in the stream's order."""
        self._call("cudaGraphLaunch", executable, stream)

    def destroy_executable(self, executable: int) -> None:
        """Frees what `instantiate` gave."""
        self._call("cudaGraphExecDestroy", executable)

    def _attribute(self, attribute: int) -> int:
        value = c_int()
        self._call("cudaDeviceGetAttribute", byref(value), attribute, 0)
        return value.value

    def _made(self, name: str, *arguments: int, out_last: bool = False) -> int:
        """Calls a function that hands something out through a pointer, its first argument or its last."""
        made = c_void_p()
        self._call(name, *((*arguments, byref(made)) if out_last else (byref(made), *arguments)))
        return made.value or 0

    def _call(self, name: str, *arguments: Any) -> None:
        self._check(name, getattr(self._library, name)(*arguments))

    def _check(self, name: str, status: int) -> None:
        if status == 0:
            return
        self._library.cudaGetLastError()  # so that the next call of anybody does not find this error
        words = (self._library.cudaGetErrorString(status) or b"an unknown error").decode(errors="replace")
        raise (CudaLostError if status in _LOST else CudaError)(f"{name}: {words} (CUDA error {status})", status)


def candidates() -> list[str]:
    """Where the library may be, in the order of preference: the loader's own paths, CUDA's usual folders, a pip package."""
    folders = [Path("/usr/local/cuda/lib64"), Path("/usr/local/cuda/targets/aarch64-linux/lib")]
    for entry in filter(None, sys.path):
        folders += [Path(entry, "nvidia", "cu13", "lib"), Path(entry, "nvidia", "cuda_runtime", "lib")]
    paths = [folder / name for folder in folders for name in LIBRARY_NAMES]
    return [*LIBRARY_NAMES, *(str(path) for path in paths if path.is_file())]

"""What a process uses, from /proc; and requests whose strings are not text, sent past rclpy's checks as a C client would."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Usage:
    """Resident memory in MB, threads, and open file descriptors."""

    memory: float
    threads: int
    files: int

    @staticmethod
    def of(pid: int) -> Usage:
        """What the process uses now."""
        folder = Path("/proc") / str(pid)
        lines = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        return Usage(int(lines["VmRSS"].split()[0]) / 1024, int(lines["Threads"]), len(list((folder / "fd").iterdir())))


def send_with_bytes(client: Any, request: Any, text: bytes) -> None:
    """Sends a request whose first field, a string, holds these bytes.

    rclpy sends valid UTF-8 only; a client in another language sends what it likes. So the C message is made by rclpy's own
    functions, its string's bytes are overwritten, and librcl sends it.

    Args:
        request: its first field is a string of as many ASCII characters as `text` has bytes.
    """
    kind: Any = type(type(request))
    create = _function(kind._CREATE_ROS_MESSAGE, ctypes.CFUNCTYPE(ctypes.c_void_p))
    convert = _function(kind._CONVERT_FROM_PY, ctypes.PYFUNCTYPE(ctypes.c_bool, ctypes.py_object, ctypes.c_void_p))
    destroy = _function(kind._DESTROY_ROS_MESSAGE, ctypes.CFUNCTYPE(None, ctypes.c_void_p))
    message = create()
    try:
        assert convert(request, message)
        string = ctypes.cast(message, ctypes.POINTER(ctypes.c_void_p))
        size = ctypes.cast(message, ctypes.POINTER(ctypes.c_size_t))[1]  # a string in C: data, size, capacity
        assert size == len(text)
        ctypes.memmove(string[0], text, len(text))
        send = ctypes.CDLL("librcl.so").rcl_send_request
        send.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64))
        with client.handle:
            assert send(client.handle.pointer, message, ctypes.byref(ctypes.c_int64())) == 0
    finally:
        destroy(message)


def _function(capsule: Any, prototype: Any) -> Any:
    name, pointer = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name.restype, name.argtypes = ctypes.c_char_p, (ctypes.py_object,)
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    return prototype(pointer(capsule, name(capsule)))

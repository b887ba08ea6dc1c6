"""Gives a symbolic axis of a stored ONNX graph its length, without the onnx package, which a robot need not have.

Walks protobuf's encoding (field number and wire type before each value) along the fields of onnx.proto that lead to the
dimensions of a graph's inputs and outputs; everything else is passed on as it is. Knows nothing of what a graph computes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mobilevlm_ros.runtime.errors import PackageError

# ModelProto.graph, GraphProto.input and output, ValueInfoProto.type, TypeProto.tensor_type, Tensor.shape, TensorShapeProto.dim
_PATH = (frozenset({7}), frozenset({11, 12}), frozenset({2}), frozenset({1}), frozenset({2}), frozenset({1}))
_DIM_VALUE, _DIM_PARAM = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class _Field:
    """A field of a message: its number, its wire type, its value (without length) and all of its bytes."""

    number: int
    wire: int
    value: bytes
    whole: bytes


def fix_axis(model: bytes, axis: str, size: int) -> bytes:
    """A serialized ONNX model whose inputs and outputs have `size` (1 or more) wherever they had the symbolic axis `axis`.

    Raises:
        PackageError: the bytes are no such model, or none of its inputs and outputs has the axis.
    """
    if size < 1:
        raise PackageError(f"axis {axis}: length {size}, wanted 1 or more")
    try:
        fixed = _rewritten(model, _PATH, axis.encode(), size)
    except (IndexError, ValueError):
        raise PackageError("not a readable ONNX graph") from None
    if fixed == model:
        raise PackageError(f"no input or output of the graph has the axis {axis}")
    return fixed


def _rewritten(message: bytes, path: tuple[frozenset[int], ...], axis: bytes, size: int) -> bytes:
    parts = []
    for field in _fields(message):
        if field.wire == _BYTES and path and field.number in path[0]:
            value = _rewritten(field.value, path[1:], axis, size)
            parts.append(field.whole if value == field.value else _bytes_field(field.number, value))
        elif not path and field.number == _DIM_PARAM and field.value == axis:
            parts.append(_varint(_DIM_VALUE << 3 | _VARINT) + _varint(size))
        else:
            parts.append(field.whole)
    return b"".join(parts)


def _fields(message: bytes) -> Iterator[_Field]:
    """Raises ValueError or IndexError for what is no message."""
    position = 0
    while position < len(message):
        start = position
        key, position = _read_varint(message, position)
        wire, begin = key & 7, position
        if wire == _VARINT:
            _, position = _read_varint(message, position)
        elif wire == _BYTES:
            length, begin = _read_varint(message, position)
            position = begin + length
        elif wire in (_FIXED64, _FIXED32):
            position += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if position > len(message):
            raise ValueError("cut short")
        yield _Field(key >> 3, wire, message[begin:position], message[start:position])


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    """The number at a position, and the position behind it."""
    value, shift = 0, 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _bytes_field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value

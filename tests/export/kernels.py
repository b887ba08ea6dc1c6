"""Which operators a version of ONNX Runtime has for CPUs, recorded once and held against graphs of ours.

    python -m tests.export.kernels

writes what the ONNX Runtime of this Python has; run it with the newest one of Python 3.10, which is what Humble's robots get. Its
x86_64 and aarch64 builds register the same kernels of the CPU provider: those are chosen by the source, not by the processor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

RECORDED = Path(__file__).parents[1] / "data" / "kernels" / "onnxruntime-1.23.2.json"
_PROVIDER = "CPUExecutionProvider"
_OLDEST_OPSET = 13
"""Kernels for operator sets before this one are left out: no graph of ours is as old."""
_OWN = ("com.microsoft", "")


@dataclass(frozen=True)
class Kernel:
    """An implementation: the operator's versions that it is for, and what its types may be."""

    first: int
    last: int
    types: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Signature:
    """An operator that ONNX does not define: its inputs' and outputs' type names, and its attributes."""

    inputs: Sequence[str]
    outputs: Sequence[str]
    attributes: Sequence[str]


class Kernels:
    """What a version of ONNX Runtime has."""

    def __init__(self, recorded: Path = RECORDED) -> None:
        raw = json.loads(recorded.read_text(encoding="utf-8"))
        self.version: str = raw["version"]
        self._kernels = {name: [Kernel(*kernel) for kernel in kernels] for name, kernels in raw["kernels"].items()}
        self.signatures = {name: Signature(*parts) for name, parts in raw["signatures"].items()}

    def lacks(self, name: str, since: int, types: Mapping[str, str]) -> str | None:
        """Why no kernel runs the operator `domain.name` of the version `since` on these types; None where one does."""
        if name not in self._kernels:
            return f"{name} is not there"
        fitting = [kernel for kernel in self._kernels[name] if kernel.first <= since <= kernel.last]
        if not fitting:
            return f"{name} of version {since} is not there"
        if not any(all(types.get(key, allowed[0]) in allowed for key, allowed in kernel.types.items()) for kernel in fitting):
            return f"{name} of version {since} is not there for {dict(types)}"
        return None


def record(path: Path) -> None:
    """Writes what this Python's ONNX Runtime has."""
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema, get_all_opkernel_def

    kernels: dict[str, list[object]] = {}
    for kernel in get_all_opkernel_def():
        first, last = kernel.version_range
        if kernel.provider == _PROVIDER and last >= _OLDEST_OPSET and kernel.domain in _OWN:
            types = {key: [_plain(one) for one in allowed] for key, allowed in sorted(kernel.type_constraints.items())}
            kernels.setdefault(f"{kernel.domain}.{kernel.op_name}", []).append([first, last, types])
    signatures = {}
    for schema in get_all_operator_schema():
        name = f"{schema.domain}.{schema.name}"
        if name in kernels and (schema.domain or schema.name.startswith("Simplified")):
            parts = ([_plain(one.typeStr) for one in side] for side in (schema.inputs, schema.outputs))
            signatures[name] = [*parts, sorted(schema.attributes)]
    content = {"version": onnxruntime.__version__, "kernels": kernels, "signatures": signatures}
    path.write_text(json.dumps(content, separators=(",", ":"), sort_keys=True) + "\n", encoding="utf-8")


def _plain(name: str) -> str:
    """`float` for `tensor(float)`; names of type variables as they are."""
    return name[len("tensor(") : -1] if name.startswith("tensor(") else name


if __name__ == "__main__":
    record(RECORDED)

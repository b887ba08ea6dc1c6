"""What machine this is: processor, memory, board. Read from the files in which Linux tells it; knows no model."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
FEATURES = ("avx2", "avx_vnni", "avx512_vnni", "amx_int8", "asimd", "asimddp", "i8mm")
"""Vector instructions that make a model's arithmetic fast, of x86 and of ARM, as Linux calls them."""


@dataclass(frozen=True)
class Machine:
    """The machine.

    Attributes:
        processor: its name.
        cores: that this process may use.
        memory: bytes that there are for this process; a container's limit counts.
        available: bytes of memory that are free or can be freed.
        features: those of `FEATURES` that the processor has.
        board: the name in the device tree, such as a Jetson's; empty elsewhere.
    """

    processor: str
    cores: int
    memory: int
    available: int
    features: tuple[str, ...]
    board: str


def read_machine(root: Path = ROOT) -> Machine:
    """What the files below `root` tell; what they do not tell is empty or 0."""
    cpu = _fields(_text(root / "proc" / "cpuinfo"))
    memory = {name: int(value.split()[0]) * 1024 for name, value in _fields(_text(root / "proc" / "meminfo")).items()}
    total, available = memory.get("MemTotal", 0), memory.get("MemAvailable", 0)
    limit = _text(root / "sys" / "fs" / "cgroup" / "memory.max").strip()
    if limit.isdigit() and int(limit) < total:
        used = _text(root / "sys" / "fs" / "cgroup" / "memory.current").strip()
        total = int(limit)
        available = min(available, total - int(used) if used.isdigit() else total)
    flags = (cpu.get("flags") or cpu.get("Features") or "").split()
    board = _text(root / "proc" / "device-tree" / "model").strip("\0\n ")
    processor = cpu.get("model name") or board or f"{platform.machine()} processor"
    return Machine(processor, _cores(), total, available, tuple(name for name in FEATURES if name in flags), board)


def physical_cores(root: Path = ROOT) -> int:
    """Cores of which each has arithmetic units of its own, as many as this process may use; where Linux does not tell, all."""
    found = set()
    for block in _text(root / "proc" / "cpuinfo").split("\n\n"):
        cpu = _fields(block)
        if "core id" in cpu:
            found.add((cpu.get("physical id"), cpu["core id"]))
    return min(len(found) or _cores(), _cores())


def gibibytes(size: float) -> str:
    """A size in bytes for people, such as "7.4 GiB"."""
    return f"{size / 2**30:.1f} GiB"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _fields(text: str) -> dict[str, str]:
    """The values of `name : value` lines; the first of a name counts."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip(), value.strip())
    return fields


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""

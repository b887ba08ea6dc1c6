"""Processor, memory, disk, and whether there is a GPU or a Jetson."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

from mobilevlm_ros.doctor.check import Check, Status, Surroundings
from mobilevlm_ros.doctor.imports import probe
from mobilevlm_ros.machine import Machine, gibibytes

LEAST_MEMORY = 2 << 30
LEAST_DISK = 10 << 30
"""Room for a released checkpoint of 3 B parameters and its package."""

_USEFUL = {"x86_64": "avx2", "AMD64": "avx2", "aarch64": "asimddp", "arm64": "asimddp"}
_CLOSER = "'mobilevlm doctor --jetson' tries it"
_SMI = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")


def processor(machine: Machine) -> Check:
    """The processor and the cores that may be used."""
    return Check("processor", Status.PASS, f"{machine.processor}, {machine.cores} cores")


def instructions(machine: Machine, architecture: str | None = None) -> Check:
    """Vector instructions that matter."""
    found = " ".join(machine.features) or "none of those that matter"
    wanted = _USEFUL.get(architecture or platform.machine())
    if wanted and wanted not in machine.features:
        return Check("instructions", Status.WARN, found, f"answers are slow without {wanted}; a newer processor has it")
    return Check("instructions", Status.PASS, found)


def memory(machine: Machine) -> Check:
    """Memory, all and free."""
    detail = f"{gibibytes(machine.memory)}, {gibibytes(machine.available)} free"
    if machine.available < LEAST_MEMORY:
        return Check("memory", Status.WARN, detail, "end other programs: a released model needs 2 GiB and more")
    return Check("memory", Status.PASS, detail)


def disk(surroundings: Surroundings) -> Check:
    """Room where downloaded checkpoints go."""
    home = Path(surroundings.environ.get("HOME", "/"))
    cache = Path(surroundings.environ.get("HF_HOME") or home / ".cache" / "huggingface")
    there = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(there).free
    detail = f"{gibibytes(free)} free for downloads in {cache}"
    if free < LEAST_DISK:
        return Check("disk", Status.WARN, detail, "make room, or set HF_HOME to a folder on a larger disk")
    return Check("disk", Status.PASS, detail)


def gpu(machine: Machine, surroundings: Surroundings) -> Check:
    """A Jetson, or what nvidia-smi tells."""
    if "jetson" in machine.board.lower() or "orin" in machine.board.lower():
        return Check("GPU", Status.PASS, f"{machine.board} ({_CLOSER})")
    tool = shutil.which(_SMI[0], path=surroundings.environ.get("PATH", ""))
    nothing = "nothing to do: models run on the processor"
    if tool is None:
        return Check("GPU", Status.MISSING, "no NVIDIA GPU was found", nothing)
    try:
        done = subprocess.run([tool, *_SMI[1:]], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("GPU", Status.WARN, f"nvidia-smi does not work: {error}", "mend the driver; models run on the processor")
    if done.returncode or not done.stdout.strip():
        said = (done.stdout + done.stderr).strip().splitlines() or ["it says nothing"]
        return Check("GPU", Status.WARN, f"nvidia-smi does not work: {said[0]}", "mend the driver; models run on the processor")
    return Check("GPU", Status.PASS, f"{done.stdout.strip().splitlines()[0]} ({_CLOSER})")


def tensorrt() -> Check:
    """Whether TensorRT is there."""
    found = probe("tensorrt")
    if found.error:
        return Check("TensorRT", Status.MISSING, "not installed", "only for Jetsons and NVIDIA GPUs: see docs/jetson.md")
    return Check("TensorRT", Status.PASS, f"{found.output} ({_CLOSER})")

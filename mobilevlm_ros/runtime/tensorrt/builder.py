"""Engines for a package: found in the cache, or built there, one at a time, each in a process of its own."""

from __future__ import annotations

import json
import re
import select
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from mobilevlm_ros.runtime.errors import BackendError, ErrorCode, PackageError
from mobilevlm_ros.runtime.package import ModelPackage
from mobilevlm_ros.runtime.tensorrt.cudart import DeviceProperties
from mobilevlm_ros.runtime.tensorrt.engine_cache import EngineCache, default_folders
from mobilevlm_ros.runtime.tensorrt.library import Libraries, version_numbers
from mobilevlm_ros.runtime.tensorrt.plan import Machine, Order, Role, key, make_order

FUSED_SINCE = (10, 15)
"""The first TensorRT that takes the fused decoder."""

_L4T_RELEASE = Path("/etc/nv_tegra_release")
_TICK_S = 2.0
"""How often a build is reported on at least; whoever is told may end it by raising."""
_MIB = 1 << 20
_NO_MEMORY = re.compile(r"out ?of ?memory|bad_alloc", re.IGNORECASE)

Report = Callable[[str], None]
"""Takes a line about what is being done."""


@dataclass(frozen=True)
class EngineFile:
    """An engine on disk. `built_s` is how long building it took, 0.0 where it was there."""

    role: Role
    path: Path
    built_s: float


@dataclass(frozen=True)
class Engines:
    """What a package runs on. `notice` says why it is not the best that there could be, empty where it is."""

    vision: EngineFile
    decoder: EngineFile
    notice: str = ""

    @property
    def files(self) -> tuple[EngineFile, ...]:
        """Both."""
        return self.vision, self.decoder


@dataclass(frozen=True)
class EngineNeeds:
    """What engines must serve: rows that decode at once, tokens of context, and where engines are kept, None for the default."""

    rows: int
    context_length: int
    cache: Path | None = None


def check_graphs(package: ModelPackage) -> None:
    """Raises PackageError where a package has no graphs for TensorRT; those of adapters have none."""
    if not any(package_has(package, role) for role in (Role.FUSED, Role.PORTABLE)):
        raise PackageError(f"{package.path} has no graphs for TensorRT; convert the checkpoint with --backend all")
    _ = package.vision_trt


def package_has(package: ModelPackage, role: Role) -> bool:
    """Whether a package has the decoder in this dialect."""
    try:
        package.decoder(role.value)
    except PackageError:
        return False
    return True


class EngineBuilder:
    """Finds or builds the engines of one package on this machine."""

    def __init__(self, libraries: Libraries, package: ModelPackage, needs: EngineNeeds, report: Report) -> None:
        self._libraries = libraries
        self._package = package
        self._needs = needs
        self._report = report
        self._device = libraries.cudart.device()
        self._machine = machine_of(libraries, self._device)

    def engines(self) -> Engines:
        """Both engines.

        Raises:
            PackageError: the package has no graphs for TensorRT.
            BackendError: an engine cannot be built or kept; OUT_OF_MEMORY where it does not fit.
        """
        role, notice = self._decoder_role()
        vision = self._engine(self._order(Role.VISION))
        if role is Role.FUSED and self._has(Role.PORTABLE):
            return self._fused_or_portable(vision)
        return Engines(vision, self._engine(self._order(role)), notice)

    def forget(self) -> None:
        """Remove the engines that there are, so that they are built anew."""
        for role in Role:
            if role is Role.VISION or self._has(role):
                order = self._order(role)
                self._cache(order).forget(key(order, self._machine))

    def _fused_or_portable(self, vision: EngineFile) -> Engines:
        """The fused decoder where TensorRT builds it; where not, that is remembered, because trying takes minutes."""
        order = self._order(Role.FUSED)
        cache, name = self._cache(order), key(order, self._machine)
        reason = "" if cache.find(name) else cache.failure(name)
        if not reason:
            try:
                return Engines(vision, self._engine(order))
            except _CannotBuildError as error:
                reason = error.message
        notice = f"the decoder runs on its portable graph, which is slower: {reason}; 'mobilevlm build --again' tries it anew"
        self._report(notice)
        portable = self._engine(self._order(Role.PORTABLE))
        cache.note_failure(portable.path.parent, name, reason)
        return Engines(vision, portable, notice)

    def _decoder_role(self) -> tuple[Role, str]:
        old = version_numbers(self._machine.tensorrt)[:2] < FUSED_SINCE
        if not old and self._has(Role.FUSED):
            return Role.FUSED, ""
        if self._has(Role.PORTABLE):
            lacking = "the package has no fused decoder, which would be faster: convert with --backend all"
            return Role.PORTABLE, "" if old else lacking
        wanted = Role.PORTABLE if old else Role.FUSED
        raise PackageError(f"{self._package.path}: no {wanted.graph} in this package; convert with --backend {wanted.value}")

    def _has(self, role: Role) -> bool:
        return package_has(self._package, role)

    def _order(self, role: Role) -> Order:
        return make_order(self._package, role, self._needs.rows, self._needs.context_length, self._device.memory)

    def _cache(self, order: Order) -> EngineCache:
        return EngineCache(default_folders(order.graph) if self._needs.cache is None else (self._needs.cache,))

    def _engine(self, order: Order) -> EngineFile:
        cache, name = self._cache(order), key(order, self._machine)
        if known := cache.find(name):
            return EngineFile(order.role, known, 0.0)
        self._check_memory(order)
        folder = cache.writable_folder(order.weights_bytes + 64 * _MIB)
        made_by = f"TensorRT {self._machine.tensorrt} for {self._machine.device}"
        self._report(f"building {order.graph.name} with {made_by}; this is done once and takes minutes")
        began = time.monotonic()
        waits = f"waiting for another program that builds in {folder}"
        with cache.adding(folder, name, lambda: self._report(waits)) as part:
            if known := cache.find(name):  # another process built it while this one waited
                return EngineFile(order.role, known, 0.0)
            timing = folder / f"timing-{self._machine.tensorrt}-{self._machine.compute_capability}.cache"
            self._run_build(order, part, timing)
        seconds = time.monotonic() - began
        made = cache.find(name)
        assert made is not None
        self._report(f"built {order.graph.name} in {seconds:.0f} s: {made.stat().st_size / _MIB:.0f} MiB in {folder}")
        return EngineFile(order.role, made, seconds)

    def _check_memory(self, order: Order) -> None:
        """Refuse what cannot end well: building holds the weights at least twice, running once."""
        free, total = self._libraries.cudart.memory()
        if order.weights_bytes > total:
            held = f"the weights take {order.weights_bytes / _MIB:.0f} MiB, the device has {total / _MIB:.0f} MiB"
            raise BackendError(f"{order.graph.name} does not fit: {held}; convert with --precision int4", ErrorCode.OUT_OF_MEMORY)
        needed = 2 * order.weights_bytes + order.workspace
        available = _available_memory() if self._device.integrated else free
        if available is not None and needed > available:
            raise BackendError(
                f"building {order.graph.name} takes {needed / _MIB:.0f} MiB at least, {available / _MIB:.0f} MiB are available: "
                "end other programs, add swap, or convert with --precision int4",
                ErrorCode.OUT_OF_MEMORY,
            )

    def _run_build(self, order: Order, output: Path, timing: Path) -> None:
        command = [*self._libraries.build_command, order.to_json(), str(output), str(timing)]
        with subprocess.Popen(
            command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            try:
                last, stray = self._follow(process, order)
                status = process.wait()
            finally:
                process.kill()
        if status < 0:
            raise BackendError(
                f"building {order.graph.name} was ended by signal {-status}, as happens where memory does not suffice",
                ErrorCode.OUT_OF_MEMORY,
            )
        if error := last.get("error"):
            if _NO_MEMORY.search(str(error)):
                raise BackendError(str(error), ErrorCode.OUT_OF_MEMORY)
            raise _CannotBuildError(str(error)) if "TensorRT" in str(error) else BackendError(str(error))
        if status != 0 or "done" not in last:
            raise BackendError(f"building {order.graph.name} ended with status {status}: {stray or 'no word why'}")

    def _follow(self, process: subprocess.Popen[bytes], order: Order) -> tuple[dict[str, Any], str]:
        """Report what the building process says, and the time where it says nothing.

        Returns the last of its objects, and the last line that was none: a library's words, or an interpreter's.
        """
        assert process.stdout is not None
        began = told = time.monotonic()
        last: dict[str, Any] = {}
        stray = phase = ""
        while True:
            ready, _, _ = select.select([process.stdout], [], [], _TICK_S)
            if not ready:
                self._report(f"building {order.graph.name}: {phase} {time.monotonic() - began:.0f} s")
                continue
            line = process.stdout.readline()
            if not line:
                return last, stray
            try:
                last = dict(json.loads(line))
            except (ValueError, TypeError):
                stray = line.decode(errors="replace").strip() or stray
                continue
            now = time.monotonic()
            if "phase" in last and (last["phase"] != phase or now - told > _TICK_S):
                phase, told = last["phase"], now
                self._report(f"building {order.graph.name}: {phase} {last['fraction']:.0%}, {now - began:.0f} s")


class _CannotBuildError(BackendError):
    """TensorRT itself does not build this engine, for another reason than memory."""


def machine_of(libraries: Libraries, device: DeviceProperties) -> Machine:
    """What engines made here run on."""
    return Machine(str(libraries.tensorrt.__version__), device.name, device.compute_capability, l4t_release())


def l4t_release(path: Path | None = None) -> str:
    """NVIDIA's Linux for Tegra, such as "36.4.3"; empty where this is none.

    Source: the first line of /etc/nv_tegra_release, "# R36 (release), REVISION: 4.3, ...".
    """
    try:
        words = (path or _L4T_RELEASE).read_text(encoding="utf-8").split("\n")[0].replace(",", " ").split()
    except OSError:
        return ""
    major = next((word[1:] for word in words if word[:1] == "R" and word[1:].isdigit()), "")
    minor = next((after for word, after in pairwise(words) if word == "REVISION:"), "")
    return ".".join(filter(None, (major, minor)))


def _available_memory() -> int | None:
    """Bytes of memory and swap that can be had; None where that is not known. Source: proc(5)."""
    with suppress(OSError, ValueError, KeyError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        values = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        return (values["MemAvailable"] + values["SwapFree"]) * 1024
    return None

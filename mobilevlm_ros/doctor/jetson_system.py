"""What a Jetson tells of itself: release, board, power mode, clocks. Read from files and from nvpmodel; knows no TensorRT.

Sources: NVIDIA, Jetson Linux Developer Guide (nv_tegra_release, nvpmodel, clock frequencies in sysfs and debugfs).
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from mobilevlm_ros.bench.roofline import Board, Orin
from mobilevlm_ros.doctor.check import Surroundings
from mobilevlm_ros.machine import Machine

_TOOLS = "usr/sbin"
_GPU_FOLDERS = re.compile(r"gpu|ga10b|gpc")
_MEMORY_CLOCK = Path("sys/kernel/debug/bpmp/debug/clk/emc")
_CPU_CLOCK = Path("sys/devices/system/cpu/cpu0/cpufreq")
_GIB = 1 << 30

JETPACKS = {"35": "5", "36": "6", "38": "7", "39": "7"}
"""JetPack's first number by that of NVIDIA's Linux for Tegra."""


@dataclass(frozen=True)
class Clock:
    """A clock in MHz, now and at most; 0 where that is not told."""

    name: str
    now: int
    most: int

    @property
    def slowed(self) -> bool:
        """Whether it runs below its limit."""
        return 0 < self.now < self.most

    def __str__(self) -> str:
        return f"{self.name} {self.now} of {self.most} MHz" if self.slowed else f"{self.name} {self.now} MHz"


def jetpack_version(l4t: str, packages: str) -> str:
    """JetPack's version; empty where it is not known.

    Args:
        l4t: the release, such as "36.4.3".
        packages: dpkg's status file, which tells it exactly where the package nvidia-jetpack is installed.
    """
    for paragraph in packages.split("\n\n"):
        if paragraph.startswith("Package: nvidia-jetpack\n"):
            found = re.search(r"^Version: *([0-9][0-9.]*)", paragraph, re.MULTILINE)
            if found:
                return found[1].rstrip(".")
    return JETPACKS.get(l4t.split(".")[0], "")


def parse_power_mode(text: str) -> str:
    """The mode's name in what `nvpmodel -q` prints, such as "MAXN"; empty where there is none."""
    for line in text.splitlines():
        label, colon, name = line.partition("NV Power Mode:")
        if colon and not label.strip():
            return name.strip()
    return ""


def power_mode(surroundings: Surroundings) -> str:
    """The power mode's name; empty where it is not told."""
    paths = [surroundings.environ.get("PATH", ""), str(surroundings.root / _TOOLS)]
    tool = shutil.which("nvpmodel", path=":".join(filter(None, paths)))
    if tool is None:
        return ""
    try:
        done = subprocess.run([tool, "-q"], capture_output=True, text=True, errors="replace", timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return parse_power_mode(done.stdout)


def is_highest(mode: str) -> bool:
    """Whether a power mode is the module's highest."""
    return mode.upper().startswith("MAXN")


def read_clocks(root: Path) -> tuple[Clock, ...]:
    """The clocks of GPU, memory and processor, of those that can be read; root alone may read the memory's."""
    gpus = sorted(path for path in (root / "sys/class/devfreq").glob("*") if _GPU_FOLDERS.search(path.name))
    found = [Clock("GPU", _number(gpu / "cur_freq") // 10**6, _number(gpu / "max_freq") // 10**6) for gpu in gpus[:1]]
    memory, cpu = root / _MEMORY_CLOCK, root / _CPU_CLOCK
    found.append(Clock("memory", _number(memory / "rate") // 10**6, _number(memory / "max_rate") // 10**6))
    found.append(Clock("CPU", _number(cpu / "scaling_cur_freq") // 1000, _number(cpu / "cpuinfo_max_freq") // 1000))
    return tuple(clock for clock in found if clock.now)


def conditions(surroundings: Surroundings) -> str:
    """Power mode and clocks as they are now, for beside a figure."""
    mode = power_mode(surroundings)
    told = [mode or "power mode unknown", *(str(clock) for clock in read_clocks(surroundings.root))]
    return ", ".join(told)


def known_board(machine: Machine) -> Board | None:
    """The module in the traffic model's list; None for any other."""
    name, gib = machine.board, machine.memory / _GIB
    if "AGX Orin" in name:
        return Orin.AGX_64.value if gib > 40 else Orin.AGX_32.value
    if "Orin NX" in name:
        return Orin.NX_16.value if gib > 10 else Orin.NX_8.value
    if "Orin Nano" in name and gib > 5:
        return Orin.NANO_8.value
    return None


def read_text(path: Path) -> str:
    """A file's text; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int:
    """The whole number that a file holds; 0 where it does not."""
    text = read_text(path).strip()
    return int(text) if text.isascii() and text.isdigit() else 0

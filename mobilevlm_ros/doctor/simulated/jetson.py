"""A pretended Jetson: the files and the tool in which a real one tells of itself, and the simulated libraries."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from mobilevlm_ros.doctor.check import Surroundings
from mobilevlm_ros.doctor.jetson_site import Nature, Site
from mobilevlm_ros.doctor.simulated.cuda import SimulatedCuda
from mobilevlm_ros.doctor.simulated.libraries import NEWEST, OLDEST, simulated_libraries
from mobilevlm_ros.runtime.tensorrt.library import Libraries, use_instead

_KIB = 1 << 10
_MEMORY = 61 << 30
_NVPMODEL = '#!/bin/sh\n[ "$1" = -q ] && printf "NV Power Mode: MAXN\\n0\\n"\n'

MakeLibraries = Callable[[str, int], tuple[Libraries, SimulatedCuda]]
"""From TensorRT's version and the device's memory in bytes, the libraries and the driver behind them."""


@dataclass(frozen=True)
class JetPack:
    """A release: NVIDIA's Linux for Tegra as its file says it, TensorRT, Python and ROS 2."""

    l4t: str
    tensorrt: str
    python: str
    ros: str


class Pretended(Enum):
    """Which JetPack is pretended, by its first number."""

    SIX = "6"
    SEVEN = "7"

    @property
    def jetpack(self) -> JetPack:
        """What belongs to it."""
        if self is Pretended.SIX:
            return JetPack("# R36 (release), REVISION: 4.3, GCID: 0, BOARD: generic, EABI: aarch64", OLDEST, "3.10.12", "humble")
        return JetPack("# R39 (release), REVISION: 2.0, GCID: 0, BOARD: generic, EABI: aarch64", NEWEST, "3.12.3", "jazzy")


@contextmanager
def pretended_jetson(which: Pretended, make: MakeLibraries = simulated_libraries) -> Iterator[Site]:
    """An AGX Orin of 64 GB whose libraries compute with ONNX Runtime, in the machine's place while the block runs."""
    libraries, cuda = make(which.jetpack.tensorrt, _MEMORY)
    with tempfile.TemporaryDirectory(prefix="jetson-") as folder:
        root = Path(folder)
        _write_system(root, which.jetpack)
        surroundings = Surroundings({"ROS_DISTRO": which.jetpack.ros}, root)
        use_instead(libraries)
        try:
            yield Site(surroundings, lambda: libraries, Nature.SIMULATED, which.jetpack.python, lambda: found_wrong(cuda))
        finally:
            use_instead(None)


def found_wrong(cuda: SimulatedCuda) -> list[str]:
    """What a pretended driver has seen that a real one would not have borne, and what was not given back to it."""
    return [*cuda.problems, *([f"{cuda.live} blocks, streams, events or graphs were not given back"] if cuda.live else [])]


def _write_system(root: Path, jetpack: JetPack) -> None:
    gpu, memory, cpu = (
        "sys/class/devfreq/17000000.gpu",
        "sys/kernel/debug/bpmp/debug/clk/emc",
        "sys/devices/system/cpu/cpu0/cpufreq",
    )
    contents = {
        "etc/nv_tegra_release": jetpack.l4t + "\n",
        "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
        "proc/meminfo": f"MemTotal: {_MEMORY // _KIB} kB\nMemAvailable: {_MEMORY // _KIB * 9 // 10} kB\n",
        "proc/cpuinfo": "Features : asimd asimddp\n",
        f"{gpu}/cur_freq": "1300500000\n",
        f"{gpu}/max_freq": "1300500000\n",
        f"{memory}/rate": "3199000000\n",
        f"{memory}/max_rate": "3199000000\n",
        f"{cpu}/scaling_cur_freq": "2201600\n",
        f"{cpu}/cpuinfo_max_freq": "2201600\n",
        "usr/sbin/nvpmodel": _NVPMODEL,
    }
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")
    (root / "usr/sbin/nvpmodel").chmod(0o755)

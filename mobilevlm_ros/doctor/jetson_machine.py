"""Checks of a Jetson itself: release, libraries, memory, power mode, clocks, and whether Python and ROS 2 belong together."""

from __future__ import annotations

from collections.abc import Iterator

from mobilevlm_ros.doctor.check import Check, Status
from mobilevlm_ros.doctor.jetson_site import Site
from mobilevlm_ros.doctor.jetson_system import is_highest, jetpack_version, known_board, power_mode, read_clocks, read_text
from mobilevlm_ros.machine import Machine, gibibytes
from mobilevlm_ros.runtime.errors import VlmError
from mobilevlm_ros.runtime.tensorrt.builder import FUSED_SINCE, l4t_release
from mobilevlm_ros.runtime.tensorrt.cudart import Cudart
from mobilevlm_ros.runtime.tensorrt.library import Libraries, load_tensorrt, version_numbers

PYTHON_OF_ROS = {"humble": "3.10", "jazzy": "3.12"}
ROS_OF_JETPACK = {"6": "humble", "7": "jazzy"}
ORIN = "8.7"
LEAST_MEMORY = 4 << 30

_NO_JETSON = "nothing to do on a PC; on a Jetson, flash JetPack 6 or later"


def system_checks(site: Site, machine: Machine) -> tuple[Check, ...]:
    """All that needs no TensorRT."""
    return release(site), board(machine), memory(machine), power(site), clocks(site), pairing(site)


def release(site: Site) -> Check:
    """NVIDIA's Linux for Tegra and JetPack."""
    root = site.surroundings.root
    l4t = l4t_release(root / "etc/nv_tegra_release")
    if not l4t:
        return Check("L4T", Status.MISSING, "/etc/nv_tegra_release is not there: this is no Jetson", _NO_JETSON)
    jetpack = jetpack_version(l4t, read_text(root / "var/lib/dpkg/status"))
    return Check("L4T", Status.PASS, f"{l4t}, JetPack {jetpack or 'unknown'}")


def board(machine: Machine) -> Check:
    """The board, and whether anything is predicted for it."""
    if not machine.board:
        return Check("board", Status.MISSING, "/proc/device-tree/model is not there: this is no Jetson", _NO_JETSON)
    known = known_board(machine)
    module = f"predicted as {known.name}" if known else "no figures are predicted for it"
    return Check("board", Status.PASS, f"{machine.board}, {module}")


def memory(machine: Machine) -> Check:
    """Memory that processor and GPU share."""
    detail = f"{gibibytes(machine.memory)}, {gibibytes(machine.available)} free"
    if machine.available < LEAST_MEMORY:
        remedy = "end the desktop and other programs, add swap; see docs/jetson.md"
        return Check("memory", Status.WARN, f"{detail}: a released model needs {gibibytes(LEAST_MEMORY)}", remedy)
    return Check("memory", Status.PASS, detail)


def power(site: Site) -> Check:
    """The power mode."""
    mode = power_mode(site.surroundings)
    if not mode:
        return Check("power mode", Status.MISSING, "nvpmodel is not there or tells none", "figures cannot be compared without")
    if not is_highest(mode):
        remedy = "sudo nvpmodel -m N for the highest of /etc/nvpmodel.conf, where the robot's supply allows it"
        return Check("power mode", Status.WARN, f"{mode}: predictions are for the highest", remedy)
    return Check("power mode", Status.PASS, mode)


def clocks(site: Site) -> Check:
    """The clocks at rest."""
    found = read_clocks(site.surroundings.root)
    if not found:
        return Check("clocks", Status.MISSING, "none can be read", "run as root to read all of them")
    detail = ", ".join(map(str, found))
    if any(clock.slowed for clock in found):
        return Check("clocks", Status.WARN, f"{detail}: they vary with the load", "sudo jetson_clocks holds them at their limits")
    return Check("clocks", Status.PASS, detail)


def pairing(site: Site) -> Check:
    """Python, ROS 2 and JetPack: each ROS 2 is built for one Python, each JetPack has one Ubuntu."""
    name, python = "Python, ROS 2", ".".join(site.python.split(".")[:2])
    ros = site.surroundings.environ.get("ROS_DISTRO", "")
    if not ros:
        return Check(name, Status.MISSING, f"Python {site.python}, no ROS 2 is sourced", "source /opt/ros/<distro>/setup.bash")
    detail = f"Python {site.python}, ROS 2 {ros}"
    wanted = PYTHON_OF_ROS.get(ros)
    if wanted is None:
        return Check(name, Status.WARN, f"{detail}, which is not tried", "use humble on JetPack 6, jazzy on JetPack 7")
    jetpack = jetpack_version(l4t_release(site.surroundings.root / "etc/nv_tegra_release"), "")
    if python != wanted:
        # Elsewhere than on a Jetson, ROS 2 may have come as wheels for another Python.
        status = Status.FAIL if jetpack in ROS_OF_JETPACK else Status.WARN
        return Check(name, status, f"{detail}, which is for Python {wanted}", f"make the environment with python{wanted}")
    usual = ROS_OF_JETPACK.get(jetpack)
    if usual not in (None, ros):
        remedy = f"use {usual}, or a container with TensorRT for its Python"
        return Check(name, Status.WARN, f"{detail} on JetPack {jetpack}, whose Python is ROS 2 {usual}'s", remedy)
    return Check(name, Status.PASS, detail)


def missing_libraries() -> Iterator[Check]:
    """What keeps TensorRT from being used on this machine, a failed check each."""
    for name, load in (("TensorRT", load_tensorrt), ("CUDA", Cudart.load)):
        try:
            load()
        except VlmError as error:
            yield Check(name, Status.FAIL, error.message, "see docs/jetson.md")


def library_checks(libraries: Libraries) -> tuple[Check, ...]:
    """TensorRT, CUDA and the device; raises CudaError."""
    trt = libraries.tensorrt
    fused = version_numbers(str(trt.__version__))[:2] >= FUSED_SINCE
    since = ".".join(map(str, FUSED_SINCE))
    graph = "takes the fused decoder" if fused else f"takes the portable decoder; from {since} on there is a faster one"
    device = libraries.cudart.device()
    shared = "shared with the processor" if device.integrated else "its own"
    told = f"{device.name}, SM {device.compute_capability}, {gibibytes(device.memory)} of memory, {shared}"
    if device.compute_capability != ORIN:
        told += f"; an Orin is SM {ORIN}"
    return (
        Check("TensorRT", Status.PASS, f"{trt.__version__}, {graph}"),
        Check("CUDA", Status.PASS, f"run time {libraries.cudart.version()}"),
        Check("device", Status.PASS, told),
    )

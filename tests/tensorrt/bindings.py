"""Records the names that TensorRT's Python bindings have, version by version, from the real wheels.

The wheels (1.3 MB each, no TensorRT in them) load over libraries of nine empty functions, which is enough to look up names; it
proves names, not what they do. From the shell, with pip and gcc at hand: python -m tests.tensorrt.bindings
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

RECORD = Path(__file__).resolve().parents[1] / "data" / "tensorrt" / "names.txt"
VERSIONS = {
    "10.3.0": "JetPack 6",
    "10.7.0": "JetPack 6",
    "10.13.3.9": "JetPack 7",
    "10.16.1.11": "JetPack 7",
    "11.4.0.106": "JetPack 7.2.2 and later",
}
"""Recorded versions, and which JetPack has them or one beside them."""
_SYMBOLS = {
    "libnvinfer": (
        "createInferBuilder_INTERNAL",
        "createInferRefitter_INTERNAL",
        "createInferRuntime_INTERNAL",
        "getBuilderPluginRegistry",
        "getPluginRegistry",
    ),
    "libnvonnxparser": ("createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getNvOnnxParserVersion"),
    "libnvinfer_plugin": ("initLibNvInferPlugins",),
}
_LIST_NAMES = """
import inspect, json, sys
import tensorrt_bindings.tensorrt as trt
known = {}
for name in dir(trt):
    thing = getattr(trt, name)
    if name.startswith("_"):
        continue
    known[name] = []
    if inspect.isclass(thing):
        for part in dir(thing):
            if not part.startswith("_"):
                known[name].append(part)
            if not part.startswith("_") and inspect.isclass(getattr(thing, part)):
                known[name + "." + part] = [inner for inner in dir(getattr(thing, part)) if not inner.startswith("_")]
json.dump(known, sys.stdout)
"""


def make_stubs(folder: Path, major: int) -> None:
    """Libraries of a major version whose functions do nothing; raises CalledProcessError or FileNotFoundError without gcc."""
    for library, functions in _SYMBOLS.items():
        source = folder / f"{library}.c"
        source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in functions))
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", folder / f"{library}.so.{major}", source], check=True)


def names_of(version: str) -> dict[str, list[str]]:
    """What a version's module and classes are called and have. Downloads the wheel."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        wanted = f"tensorrt-cu12-bindings=={version}"
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, wanted]
        subprocess.run(download, check=True)
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        make_stubs(folder, int(version.split(".")[0]))
        packages = sysconfig.get_paths()["purelib"]
        environment = {"LD_LIBRARY_PATH": scratch, "PYTHONPATH": f"{scratch}:{packages}"}
        listed = subprocess.run([sys.executable, "-c", _LIST_NAMES], check=True, capture_output=True, env=environment, text=True)
        found: dict[str, list[str]] = json.loads(listed.stdout)
        return found


def record(names: Mapping[str, Mapping[str, list[str]]]) -> str:
    """The names by version as text: for each class one line for each set of versions that know the same names."""
    lines: dict[tuple[str, str], list[str]] = {}
    for owner in sorted({owner for known in names.values() for owner in known}):
        lines[owner, "".join("x" if owner in known else "." for known in names.values())] = []
        for part in sorted({part for known in names.values() for part in known.get(owner, [])}):
            versions = "".join("x" if part in known.get(owner, []) else "." for known in names.values())
            lines.setdefault((owner, versions), []).append(part)
    text = "".join(f"{owner} {versions} {' '.join(parts)}".rstrip() + "\n" for (owner, versions), parts in lines.items())
    note = "# Class, which of the versions have what follows, names. Written by python -m tests.tensorrt.bindings"
    return f"{' '.join(names)}\n{note}\n{text}"


def recorded() -> dict[str, frozenset[str]]:
    """By version, names such as `Builder` and `Builder.create_network`."""
    first, _, *lines = RECORD.read_text(encoding="utf-8").splitlines()
    versions = first.split()
    names: dict[str, set[str]] = {version: set() for version in versions}
    for line in lines:
        owner, marks, *parts = line.split()
        for version, mark in zip(versions, marks):
            if mark == "x":
                names[version] |= {owner, *(f"{owner}.{part}" for part in parts)}
    return {version: frozenset(known) for version, known in names.items()}


def main() -> None:
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    RECORD.write_text(record({version: names_of(version) for version in VERSIONS}), encoding="utf-8")


if __name__ == "__main__":
    main()

"""The files that `bench.cpu` measures with: all of the same shapes, with weights made up. Made once and kept."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path

from bench.cpu_stages import BenchError
from mobilevlm_ros.bench.synthetic import Skeleton, synthetic_package
from mobilevlm_ros.checkpoint.config import MobileVlmConfig
from mobilevlm_ros.hub.catalogue import find
from mobilevlm_ros.runtime.manifest import MANIFEST_NAME

CHECKPOINT = "v2-1.7b"
_CURRENT = "ours.txt"
NEEDED = {"llama.cpp": ("llama_cpp", "gguf"), "torch": ("torch", "transformers")}
"""By family of engines, the modules that it needs."""
REMEDY = {
    "llama.cpp": "pip install -r requirements/bench.txt (builds llama.cpp; needs a C++ compiler and CMake)",
    "torch": "pip install -r requirements/convert.txt",
}


def check_installed(engines: Iterable[str]) -> None:
    """Raises BenchError, saying what to install, where an engine's library is missing."""
    for family in dict.fromkeys(engine.partition("-")[0] for engine in engines):
        missing = [name for name in NEEDED.get(family, ()) if importlib.util.find_spec(name) is None]
        if missing:
            raise BenchError(f"{family} needs {', '.join(missing)}: {REMEDY[family]}, or leave it out with --engines")


def make_files(engines: Iterable[str], work: Path, threads: int, told: Callable[[str], None]) -> None:
    """Make what is not there yet below `work`; the package is made from the converter as it is now.

    Raises:
        BenchError: llama.cpp refuses its files.
        OSError: from the file system.
    """
    from bench.skeleton import released_skeleton

    work.mkdir(parents=True, exist_ok=True)
    told("the package")
    keep_package(released_skeleton(), work)
    if any(engine.startswith("llama.cpp") for engine in engines):
        from bench.llama_cpp_files import LanguageForm, VisionForm, language_file, vision_file

        for form in VisionForm:
            told(f"llama.cpp's vision part, {form.value}")
            vision_file(work, released_config(), form)
        for language in LanguageForm:
            told(f"llama.cpp's language model, {language.value}")
            language_file(work, released_config(), language, threads)


def released_config() -> MobileVlmConfig:
    """The sizes of MobileVLM-V2-1.7B."""
    entry = find(CHECKPOINT)
    assert entry is not None
    return entry.config


def our_package(work: Path) -> Path:
    """The package that `make_files` made last.

    Raises:
        BenchError: there is none.
    """
    current = work / _CURRENT
    if not current.is_file():
        raise BenchError(f"{work}: no package here; run python -m bench.cpu")
    return work / current.read_text(encoding="utf-8").strip()


def keep_package(skeleton: Skeleton, work: Path) -> None:
    """Make the skeleton's package the one that is measured; those of older skeletons are removed."""
    package = synthetic_package(skeleton, work)
    (work / _CURRENT).write_text(package.name + "\n", encoding="utf-8")
    for manifest in work.glob(f"{skeleton.manifest.name}-*/{MANIFEST_NAME}"):
        if manifest.parent != package:
            _remove(manifest.parent)


def _remove(package: Path) -> None:
    for file in package.iterdir():
        file.unlink()
    package.rmdir()

"""Where the model packages that ship with mobilevlm_ros are found."""

from __future__ import annotations

import sys
from pathlib import Path

NANO = "nano"


def shipped_package(name: str = NANO) -> Path:
    """The folder of a shipped model package: beside the sources, else in the install's share folder.

    The folder may not exist; opening it says so.
    """
    return shipped_folder(f"{name}/package")


def shipped_folder(name: str) -> Path:
    """A folder of the repository's `models/`, found as `shipped_package` says."""
    below = Path("models") / name
    sources = Path(__file__).resolve().parent.parent / below
    if sources.is_dir():
        return sources
    for prefix in (*Path(__file__).resolve().parents, Path(sys.prefix)):
        installed = prefix / "share" / "mobilevlm_ros" / below
        if installed.is_dir():
            return installed
    return sources

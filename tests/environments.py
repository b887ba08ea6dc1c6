"""Python environments in which libraries are really missing."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_RUN = "import sys; sys.path[:0] = {paths!r}; from mobilevlm_ros.cli import main; sys.exit(main(sys.argv[1:]))"


def run_without(folder: Path, missing: Sequence[str], arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs `mobilevlm` where all that is installed here can be imported, but for the packages that begin with a missing name.

    Args:
        folder: an empty one, for the environment.
        missing: such as "cv2"; "*" leaves nothing but the standard library.
    """
    everything = Path(sysconfig.get_paths()["purelib"])
    for entry in everything.iterdir():
        if "*" not in missing and not entry.name.startswith(tuple(missing)):
            (folder / entry.name).symlink_to(entry)
    code = _RUN.format(paths=[str(ROOT), str(folder)])
    command = [sys.executable, "-S", "-c", code, *arguments]
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", "")}
    return subprocess.run(command, env=environ, capture_output=True, text=True)

"""A folder for large files that are of use only meanwhile. What a killed process has left behind is removed by the next one."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = "jetson-"
_LOCK = ".in-use"


@contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """A new folder below `parent`, removed afterwards.

    Raises:
        OSError: it cannot be made.
    """
    _remove_left_behind(parent)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=parent) as name:
        folder = Path(name)
        with (folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder


def _remove_left_behind(parent: Path) -> None:
    """Remove such folders that no process holds any more, as after a board that went down while it built."""
    for path in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        try:
            with path.open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path.parent, ignore_errors=True)
        except OSError:
            continue  # in use

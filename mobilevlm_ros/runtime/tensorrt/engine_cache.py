"""Where engines are kept: files under a key of everything that matters, whole or not at all.

Knows names and folders, not what an engine is or how it is made.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from mobilevlm_ros.runtime.errors import BackendError

FOLDER_NAME = "engines"
_TURN_S, _TURNS = 0.2, 10
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


class EngineCache:
    """Finds engines in several folders and adds to the first that can be written."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = tuple(folders)

    def find(self, name: str) -> Path | None:
        """The file of an engine; None where there is none."""
        return next((path for path in (self._engine(folder, name) for folder in self._folders) if path.is_file()), None)

    def failure(self, name: str) -> str:
        """Why this engine could not be built when it was last tried; empty where that is not known."""
        for folder in self._folders:
            with suppress(OSError):
                return self._failure(folder, name).read_text(encoding="utf-8")
        return ""

    def note_failure(self, folder: Path, name: str, reason: str) -> None:
        """Keep that this engine cannot be built, so that it is not tried at each start."""
        with suppress(OSError):  # it will be tried again then, no more
            self._failure(folder, name).write_text(reason, encoding="utf-8")

    def forget(self, name: str) -> None:
        """Remove an engine, and that it could not be built, where that can be done."""
        for folder in self._folders:
            for path in (self._engine(folder, name), self._failure(folder, name)):
                with suppress(OSError):
                    path.unlink()

    def writable_folder(self, room: int) -> Path:
        """The first folder that takes new files and has so many bytes free; it is made where it is not there.

        Raises:
            BackendError: there is none; one line that says what each lacks.
        """
        said = []
        for folder in self._folders:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder):
                    pass
                free = _free_bytes(folder)
                if free >= room:
                    return folder
                said.append(f"{folder} has {free / 2**20:.0f} MiB free")
            except OSError as error:
                read_only = error.errno in _READ_ONLY
                said.append(f"{folder} is read-only" if read_only else f"{folder}: {error.strerror or error}")
        wanted = f"an engine of about {room / 2**20:.0f} MiB can be kept nowhere"
        raise BackendError(f"{wanted}: {'; '.join(said)}; name a folder with the parameter 'engine_cache' or --engine-cache")

    @contextmanager
    def adding(self, folder: Path, name: str, on_wait: Callable[[], None] = lambda: None) -> Iterator[Path]:
        """A file to write an engine into, which takes its place at the end and is removed where the body raises.

        Waits until no other process builds in this folder, and calls `on_wait` every 2 s; the engine may be there by then.
        """
        part = self._engine(folder, name).with_suffix(".part")
        with (folder / ".lock").open("w") as lock:
            for turn in itertools.count():
                if _locked(lock):
                    break
                if turn % _TURNS == 0:
                    on_wait()
                time.sleep(_TURN_S)
            try:
                yield part
                if part.is_file():
                    os.replace(part, self._engine(folder, name))
            finally:
                part.unlink(missing_ok=True)

    @staticmethod
    def _engine(folder: Path, name: str) -> Path:
        return folder / f"{name}.engine"

    @staticmethod
    def _failure(folder: Path, name: str) -> Path:
        return folder / f"{name}.failed"


def _locked(lock: IO[str]) -> bool:
    """Takes the lock, which ends with its file, unless somebody has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def default_folders(graph: Path) -> tuple[Path, ...]:
    """Beside the package that the graph is of, else in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return graph.parent / FOLDER_NAME, cache / "mobilevlm_ros" / FOLDER_NAME


def _free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize

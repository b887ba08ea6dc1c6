"""From what a user calls a checkpoint, an adapter or a vision tower to a folder on this machine.

A folder is taken as it is; a catalogue name or a hub id is fetched, or taken from the cache where the hub cannot be asked.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from mobilevlm_ros.hub.catalogue import catalogue, find
from mobilevlm_ros.hub.client import MAIN_BRANCH, UNKNOWN, Snapshot, fetch, from_cache, is_offline, recorded_source
from mobilevlm_ros.hub.errors import HubError, HubUnreachableError

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


@dataclass(frozen=True)
class ResolvedCheckpoint:
    """A checkpoint on this machine: where, what it is called (a hub id or the folder's name), its commit and its licence.

    `revision` and `licence` are "unknown" where nobody wrote them down.
    """

    folder: Path
    checkpoint_name: str
    revision: str
    licence: str

    @property
    def short_name(self) -> str:
        """The name without its owner, for people."""
        return self.checkpoint_name.rpartition("/")[2]


@dataclass(frozen=True)
class Repository:
    """What a name means on the hub: a repository, and the revision to take (None for its main branch)."""

    hub_id: str
    revision: str | None


def resolve_checkpoint(source: str, revision: str | None = None, offline: bool = False) -> ResolvedCheckpoint:
    """The folder that `source` means: a folder that exists, else a catalogue name, else a hub id.

    What is not here yet is downloaded, with a progress bar; with `offline` (or HF_HUB_OFFLINE) only the cache is looked into.
    `revision` is the branch, tag or commit to fetch; for a folder it is what to record. A path that is no folder and cannot be
    a hub id is handed back, so that whoever opens it says what is missing. Raises HubError with one line.
    """
    path = Path(source).expanduser()
    if path.is_dir() or _is_path(source):
        recorded = recorded_source(path)
        if recorded is not None:
            return ResolvedCheckpoint(path, recorded.hub_id, revision or recorded.revision, licence_of(recorded))
        return ResolvedCheckpoint(path, path.resolve().name, revision or UNKNOWN, UNKNOWN)
    repository = find_repository(source)
    hub_id, wanted = repository.hub_id, revision or repository.revision
    snapshot = on_this_machine(hub_id, wanted) if offline or is_offline() else _newest(hub_id, wanted)
    return ResolvedCheckpoint(snapshot.folder, hub_id, snapshot.revision, licence_of(snapshot))


def find_repository(name: str) -> Repository:
    """The repository that a catalogue name or a hub id means. Raises HubError, with the names that there are, for others."""
    entry = find(name)
    if entry is not None and entry.hub_id is None:
        raise HubError(f"{name}: ships with this package as a model package, there is nothing to fetch or convert")
    if entry is not None and entry.hub_id is not None:
        return Repository(entry.hub_id, entry.revision)
    if _HUB_ID.fullmatch(name):
        return Repository(name, None)
    known = [entry.name for entry in catalogue() if entry.hub_id]
    near = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    raise HubError(f"{name}: neither a folder, nor a hub id, nor a known checkpoint; {hint}")


def licence_of(snapshot: Snapshot) -> str:
    """What the catalogue knows of a repository's licence, else what the repository says of itself."""
    entry = find(snapshot.hub_id)
    return snapshot.licence if entry is None else entry.licence


def _newest(hub_id: str, revision: str | None) -> Snapshot:
    """What the hub has; where it does not answer, what is here."""
    try:
        return fetch(hub_id, revision)
    except HubUnreachableError:
        try:
            return on_this_machine(hub_id, revision)
        except HubError:
            pass
        raise


def on_this_machine(hub_id: str, revision: str | None) -> Snapshot:
    """What the cache has of a repository: the revision, and in place of the one that the catalogue names also its main branch.

    Raises HubError if it has neither.
    """
    try:
        return from_cache(hub_id, revision)
    except HubError:
        entry = find(hub_id)
        if entry is not None and revision == entry.revision != MAIN_BRANCH:
            try:
                return from_cache(hub_id, MAIN_BRANCH)
            except HubError:
                pass
        raise


def _is_path(source: str) -> bool:
    """Whether a text that names no folder can only have been meant as a path."""
    return source.startswith((".", "/", "~")) or source.count("/") > 1 or Path(source).exists()

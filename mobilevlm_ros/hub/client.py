"""Brings a repository of the model hub onto this machine, or finds it here, through `huggingface_hub`.

What is fetched lies in that library's cache, where other programs find it too, or in a folder that the caller names. Knows
repositories and their files; knows nothing of what is in them. Sends nothing about this machine to anybody.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from mobilevlm_ros.hub.errors import HubError, HubUnreachableError
from mobilevlm_ros.hub.files import is_convertible, wanted_files

SOURCE_FILE = ".mobilevlm-source.json"
"""In a folder that `fetch` filled: where its files came from."""
UNKNOWN = "unknown"
MAIN_BRANCH = "main"
_ANSWER_SECONDS = 15.0


@dataclass(frozen=True)
class Snapshot:
    """A repository's files on this machine: the folder, the repository, the commit they are of, and the licence it names."""

    folder: Path
    hub_id: str
    revision: str
    licence: str


@dataclass(frozen=True)
class _RemoteFile:
    name: str
    size: int
    sha256: str | None
    """Known for large files only; small ones are checked by the library."""


def fetch(hub_id: str, revision: str | None = None, to: Path | None = None) -> Snapshot:
    """Downloads what a conversion needs of a repository, or what of it is not here yet.

    `revision` is a branch, tag or commit (default: the repository's main branch); `to` a folder to fill instead of the library's
    cache. An interrupted download is gone on with. Raises HubUnreachableError if the hub does not answer, and HubError, with one
    line each.
    """
    if is_offline():
        raise HubUnreachableError(f"{hub_id}: not asked for, because HF_HUB_OFFLINE is set")
    library = _library()
    with _clear_errors(hub_id, revision):
        info = library.HfApi().model_info(hub_id, revision=revision, files_metadata=True, timeout=_ANSWER_SECONDS)
        files = _files(info)
        _check_space(hub_id, files, to)
        for file in files:
            _bring(hub_id, info.sha, file, to)
        folder = library.snapshot_download(
            hub_id,
            revision=revision,
            local_dir=to,
            # A folder's large files are brought already; the library would read each again.
            allow_patterns=[file.name for file in files if to is None or file.sha256 is None],
            tqdm_class=_silent_bar(),
        )
        snapshot = Snapshot(Path(folder), hub_id, info.sha, _licence(info))
        if to is not None:
            text = json.dumps({**asdict(snapshot), "folder": "."}, indent=2, sort_keys=True)
            (to / SOURCE_FILE).write_text(text + "\n", encoding="utf-8")
    return snapshot


def from_cache(hub_id: str, revision: str | None = None) -> Snapshot:
    """The repository as the library's cache has it; asks nobody. Raises HubError if it is not there or not whole."""
    library = _library()
    wanted = revision or MAIN_BRANCH
    try:
        names: Sequence[str] = [file.path for file in library.get_cached_repo_tree(hub_id, revision=wanted)]
        patterns = list(wanted_files(names))
    except (library.errors.CachedRepoTreeNotFoundError, ValueError):
        patterns = None  # put there by another program, which kept no list of what belongs to it
    try:
        folder = Path(library.snapshot_download(hub_id, revision=wanted, local_files_only=True, allow_patterns=patterns))
    except library.errors.IncompleteSnapshotError:
        raise HubError(f"{hub_id}: only a part of it is on this machine; 'mobilevlm fetch {hub_id}' brings the rest") from None
    except library.errors.LocalEntryNotFoundError:
        raise HubError(f"{hub_id}: revision {wanted} is not on this machine; 'mobilevlm fetch {hub_id}' brings it") from None
    except (ValueError, OSError) as error:
        raise HubError(f"{hub_id}: {_first_line(error)}") from None
    if not is_convertible([path.name for path in folder.iterdir()]):
        raise HubError(f"{hub_id}: only a part of it is on this machine; 'mobilevlm fetch {hub_id}' brings the rest")
    return Snapshot(folder, hub_id, folder.name, UNKNOWN)


def recorded_source(folder: Path) -> Snapshot | None:
    """What `fetch` wrote down when it filled this folder; None for any other folder."""
    try:
        raw = json.loads((folder / SOURCE_FILE).read_text(encoding="utf-8"))
        return Snapshot(folder, str(raw["hub_id"]), str(raw["revision"]), str(raw["licence"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def arrived_bytes(hub_id: str) -> int:
    """Bytes of large files of this repository in the library's cache, finished or not; 0 without the library."""
    from mobilevlm_ros.hub.transfer import PARTIAL_SUFFIX

    try:
        blobs = _blobs_folder(hub_id)
    except HubError:
        return 0
    if not blobs.is_dir():
        return 0
    return sum(path.stat().st_size for path in blobs.iterdir() if len(path.name.removesuffix(PARTIAL_SUFFIX)) == 64)


def is_offline() -> bool:
    """Whether the user asked for no network (HF_HUB_OFFLINE)."""
    return bool(_library().constants.HF_HUB_OFFLINE)


def _library() -> ModuleType:
    # The first for a library that is still to be imported, the second for one that transformers brought in already.
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ModuleNotFoundError:
        raise HubError("the model hub needs the Python package huggingface_hub: install mobilevlm_ros[hub]") from None
    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True
    # What it would say beside its exceptions is said here in one line.
    huggingface_hub.utils.logging.set_verbosity_error()
    return huggingface_hub


def _files(info: Any) -> list[_RemoteFile]:
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    if not is_convertible(siblings):
        raise HubError(f"{info.id}: holds no checkpoint and no adapter (a config and weights as .bin or .safetensors)")
    return [
        _RemoteFile(name, siblings[name].size or 0, siblings[name].lfs.sha256 if siblings[name].lfs else None)
        for name in wanted_files(siblings)
    ]


def _bring(hub_id: str, commit: str, file: _RemoteFile, to: Path | None) -> None:
    """Brings one large file to the folder, or into the cache, where the library looks for it."""
    from mobilevlm_ros.hub.transfer import bring

    if file.sha256 is None or (to is not None and _is_in(to, file, commit)):
        return
    cached, place = _place(hub_id, file, None), _place(hub_id, file, to)
    if not cached.exists():
        library = _library()
        url = library.hf_hub_url(hub_id, file.name, revision=commit)
        bring(url, place, file.size, file.sha256, library.utils.build_hf_headers(), file.name)
    elif place != cached:
        place.parent.mkdir(parents=True, exist_ok=True)
        copy = place.with_name(f"{place.name}.copy")
        shutil.copyfile(cached, copy)
        copy.replace(place)


def _is_in(folder: Path, file: _RemoteFile, commit: str) -> bool:
    """Whether a folder that `fetch` fills has this very content; it may be there from an earlier commit, or from elsewhere."""
    from mobilevlm_ros.hub.transfer import file_sha256

    place = folder / file.name
    if not place.is_file() or place.stat().st_size != file.size:
        return False
    recorded = recorded_source(folder)
    return (recorded is not None and recorded.revision == commit) or file_sha256(place, file.name) == file.sha256


def _place(hub_id: str, file: _RemoteFile, to: Path | None) -> Path:
    """Where a large file belongs: in the cache under its SHA-256, else under its name."""
    if to is not None:
        return to / file.name
    assert file.sha256 is not None
    return _blobs_folder(hub_id) / file.sha256


def _blobs_folder(hub_id: str) -> Path:
    cache = Path(_library().constants.HF_HUB_CACHE).expanduser()
    return cache / f"models--{hub_id.replace('/', '--')}" / "blobs"


def _check_space(hub_id: str, files: Sequence[_RemoteFile], to: Path | None) -> None:
    """Raises HubError if what is still to come does not fit on the disk."""
    from mobilevlm_ros.hub.transfer import partial_bytes

    missing = 0
    for file in files:
        if file.sha256 is not None and not _place(hub_id, file, to).exists():
            missing += file.size - partial_bytes(_place(hub_id, file, to))
    place = to or _blobs_folder(hub_id)
    existing = next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if missing > free:
        raise HubError(f"{hub_id}: {missing / 1e9:.2f} GB are to be downloaded, but {existing} has only {free / 1e9:.2f} GB free")


def _licence(info: Any) -> str:
    card = info.card_data
    named = None if card is None else card.get("license")
    return named if isinstance(named, str) else UNKNOWN


def _silent_bar() -> type:
    from mobilevlm_ros.hub.transfer import Silent

    return Silent


@contextmanager
def _clear_errors(hub_id: str, revision: str | None) -> Iterator[None]:
    """Turns what the library raises into one line."""
    errors = _library().errors
    endpoint = _library().constants.ENDPOINT
    try:
        yield
    except HubError:
        raise
    except errors.GatedRepoError:
        where = f"{endpoint}/{hub_id}"
        raise HubError(f"{hub_id}: gated; accept its conditions at {where}, then log in ('hf auth login' or HF_TOKEN)") from None
    except errors.RepositoryNotFoundError:
        raise HubError(
            f"{hub_id}: no such repository at {endpoint}; a private one needs a login ('hf auth login' or HF_TOKEN)"
        ) from None
    except errors.RevisionNotFoundError:
        raise HubError(f"{hub_id}: has no revision '{revision}'") from None
    except errors.HFValidationError:
        raise HubError(f"{hub_id}: not a hub id (owner/name)") from None
    except errors.HfHubHTTPError as error:
        raise HubUnreachableError(f"{hub_id}: {endpoint} answers {error.response.status_code}; try again later") from None
    except errors.LocalEntryNotFoundError as error:
        raise HubUnreachableError(f"{hub_id}: {endpoint} stopped answering ({_first_line(error)})") from None
    except errors.HTTPError as error:
        raise HubUnreachableError(f"{hub_id}: {endpoint} cannot be reached ({_first_line(error)})") from None
    except OSError as error:
        raise HubError(f"{error.filename or hub_id}: {error.strerror or _first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

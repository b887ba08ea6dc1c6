"""Brings one large file from the hub onto the disk, going on where an earlier attempt stopped.

The hub's client library begins anew in each process, which for files of gigabytes is not what a user wants; so the part that
has arrived is kept here, beside the place where the file will stand. Knows URLs and files, not repositories.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from mobilevlm_ros.hub.errors import HubError

PARTIAL_SUFFIX = ".partial"
_BLOCK = 1 << 20
_ATTEMPTS = 6  # in a row that bring nothing new
_PAUSE_SECONDS = 1.0
_BUSY = (408, 429, 500, 502, 503, 504)  # answers after which it is worth asking again
_SHOWN_FROM = 200 << 20  # bytes that take seconds to read


def partial_bytes(target: Path) -> int:
    """How much of the file has arrived already; 0 if nothing."""
    partial = _partial(target)
    return partial.stat().st_size if partial.is_file() else 0


def bring(url: str, target: Path, size: int, sha256: str, headers: Mapping[str, str], name: str) -> None:
    """Downloads `size` bytes from `url` to `target`, which appears only when its SHA-256 is right.

    What has arrived before an error or an interruption stays, and the next call goes on behind it. `name` is what the progress
    bar calls the file. Raises HubError if another process is at it or the content is wrong (it is then thrown away), OSError
    from the disk, and what the library raises for the network.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(target)
    with partial.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HubError(f"{name}: another process is downloading this file") from None
        if os.fstat(file.fileno()).st_size > size:
            file.truncate(0)
        _download(url, file, size, headers, name)
        file.flush()
        os.fsync(file.fileno())
        if file_sha256(partial, name) != sha256:
            partial.unlink()
            raise HubError(f"{name}: what arrived is not what the hub promised (SHA-256) and was thrown away; fetch it again")
        partial.replace(target)


def file_sha256(path: Path, name: str) -> str:
    """SHA-256 of a file's content, in hexadecimal, with a progress bar for a large one that calls it `name`."""
    digest = hashlib.sha256()
    size = path.stat().st_size
    disable = True if size < _SHOWN_FROM else None
    stream: BinaryIO
    with path.open("rb") as stream, tqdm(desc=f"checking {name}", total=size, unit="B", unit_scale=True, disable=disable) as bar:
        while block := stream.read(_BLOCK):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


class Silent(tqdm):
    """A progress bar that shows nothing."""

    def __init__(self, *args: object, **settings: object) -> None:
        settings["disable"] = True
        super().__init__(*args, **settings)


def _download(url: str, file: BinaryIO, size: int, headers: Mapping[str, str], name: str) -> None:
    """Appends to `file` what is missing of `size` bytes, asking again where the connection breaks."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    arrived = os.fstat(file.fileno()).st_size
    failures = 0
    with tqdm(desc=name, total=size, initial=arrived, unit="B", unit_scale=True, disable=None) as bar:
        while arrived < size:
            broken: HTTPError | None = None
            try:
                _append(url, file, arrived, headers, bar)
            except HTTPError as error:
                if isinstance(error, HfHubHTTPError) and error.response.status_code not in _BUSY:
                    raise
                broken = error
            before, arrived = arrived, os.fstat(file.fileno()).st_size
            failures = 0 if arrived > before else failures + 1
            if failures == _ATTEMPTS:
                raise broken or HubError(f"{name}: the hub ends the download after {arrived} of {size} bytes")
            if broken is not None:
                time.sleep(_PAUSE_SECONDS)


def _append(url: str, file: BinaryIO, arrived: int, headers: Mapping[str, str], bar: tqdm) -> None:
    """Appends what one connection gives of the bytes from `arrived` on."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session, hf_raise_for_status

    asked = {**headers, "Accept-Encoding": "identity"}
    if arrived:
        asked["Range"] = f"bytes={arrived}-"
    with get_session().stream("GET", url, headers=asked, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as response:
        hf_raise_for_status(response)
        if arrived and response.status_code != 206:  # the whole file comes, not the rest
            file.truncate(0)
            bar.reset()
        try:
            for block in response.iter_bytes():
                file.write(block)
                bar.update(len(block))
        finally:
            file.flush()


def _partial(target: Path) -> Path:
    return target.with_name(target.name + PARTIAL_SUFFIX)

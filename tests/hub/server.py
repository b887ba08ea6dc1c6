"""A small model hub on this machine: as much of the hub's HTTP interface as `huggingface_hub` needs to download a model.

Large files are redirected to another host name, as the hub does; a test can cut, slow down or refuse their transfer.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LARGE = (".bin", ".safetensors", ".model")
_API = re.compile(r"/api/models/([\w.-]+/[\w.-]+)(?:/(revision|tree)/([^/]+))?")
_RESOLVE = re.compile(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)")
_CDN = re.compile(r"/cdn/([0-9a-f]{64})")
_BLOCK = 1 << 16


@dataclass
class Repository:
    """A repository with one commit, `pinned` or made up. `files` by path; a gated one gives its files only to `token`."""

    files: dict[str, bytes]
    revisions: tuple[str, ...] = ("main",)
    licence: str | None = None
    token: str | None = None
    pinned: str = ""

    @property
    def commit(self) -> str:
        """Forty hexadecimal digits, which depend on the content unless they are pinned."""
        return (
            self.pinned or hashlib.sha1(b"".join(name.encode() + data for name, data in sorted(self.files.items()))).hexdigest()
        )

    @classmethod
    def of_folder(cls, folder: Path, licence: str | None = None, pinned: str = "") -> Repository:
        """The files of a folder, those in its folders too."""
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        return cls(files, licence=licence, pinned=pinned)


@dataclass(frozen=True)
class Request:
    """What a client asked for."""

    method: str
    path: str
    range: str | None
    authorization: str | None
    user_agent: str


@dataclass
class Hub:
    """The hub's state, which a test may change while the server runs.

    `stop_after` is how many bytes of large files are sent before every connection for one is dropped; `pause` seconds lie
    between their blocks. `corrupt` sends zeros in their place; `whole_only` leaves requests for a
    file's rest unheard and sends all of it. `claims` are false sizes of files, by path.
    """

    repositories: dict[str, Repository]
    stop_after: int | None = None
    pause: float = 0.0
    requests: list[Request] = field(default_factory=list)
    sent: int = 0
    address: str = ""
    corrupt: bool = False
    whole_only: bool = False
    claims: dict[str, int] = field(default_factory=dict)

    def asked(self, part: str, method: str = "GET") -> list[Request]:
        """The requests so far whose path holds `part`."""
        return [request for request in self.requests if part in request.path and request.method == method]


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Runs the hub on a free port for as long as the block lasts; `hub.address` then is its URL."""

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def _answer(self) -> None:
        headers = self.headers
        self.hub.requests.append(
            Request(self.command, self.path, headers["Range"], headers["Authorization"], headers["User-Agent"] or "")
        )
        path = self.path.split("?")[0]
        if match := _API.fullmatch(path):
            self._api(match[1], match[2], match[3])
        elif match := _CDN.fullmatch(path):
            self._large(match[1])
        elif match := _RESOLVE.fullmatch(path):
            self._resolve(match[1], match[2], match[3])
        else:
            self._error(404, "EntryNotFound")

    def _repository(self, name: str, revision: str | None) -> Repository | None:
        """The repository, after an error answer None."""
        repository = self.hub.repositories.get(name)
        if repository is None:
            self._error(401, "RepoNotFound")
            return None
        if revision is not None and revision not in (*repository.revisions, repository.commit):
            self._error(404, "RevisionNotFound")
            return None
        return repository

    def _api(self, name: str, kind: str | None, revision: str | None) -> None:
        repository = self._repository(name, revision)
        if repository is None:
            return
        if kind == "tree":
            self._json([_tree_entry(path, data) for path, data in sorted(repository.files.items())])
            return
        card = {} if repository.licence is None else {"license": repository.licence}
        siblings = [_sibling(path, data) for path, data in sorted(repository.files.items())]
        for sibling in siblings:
            sibling["size"] = self.hub.claims.get(str(sibling["rfilename"]), sibling["size"])
        self._json({"id": name, "modelId": name, "sha": repository.commit, "siblings": siblings, "cardData": card})

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repository = self._repository(name, revision)
        if repository is None:
            return
        if repository.token is not None and self.headers["Authorization"] != f"Bearer {repository.token}":
            self._error(403, "GatedRepo")
            return
        if path not in repository.files:
            self._error(404, "EntryNotFound")
            return
        data = repository.files[path]
        facts = {"X-Repo-Commit": repository.commit}
        if path.endswith(LARGE):
            digest = hashlib.sha256(data).hexdigest()
            other_host = self.hub.address.replace("127.0.0.1", "localhost")
            facts |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data)), "Location": f"{other_host}/cdn/{digest}"}
            self._send(302, b"", facts)
        else:
            self._send(200, data, facts | {"ETag": f'"{_blob_id(data)}"'})

    def _large(self, digest: str) -> None:
        contents = [data for repository in self.hub.repositories.values() for data in repository.files.values()]
        data = next(data for data in contents if hashlib.sha256(data).hexdigest() == digest)
        if self.hub.corrupt:
            data = bytes(len(data))
        start = 0
        wanted = None if self.hub.whole_only else self.headers["Range"]
        if wanted:
            start = int(wanted.removeprefix("bytes=").split("-")[0])
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        for position in range(start, len(data), _BLOCK):
            block = data[position : position + _BLOCK]
            limit = self.hub.stop_after
            if limit is not None and self.hub.sent + len(block) > limit:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            try:
                self.wfile.write(block)
            except OSError:
                return  # the client went away
            self.hub.sent += len(block)
            time.sleep(self.hub.pause)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str) -> None:
        self._send(status, b"", {"X-Error-Code": code})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _blob_id(data: bytes) -> str:
    """What git calls a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _large_facts(data: bytes) -> dict[str, object]:
    return {"size": len(data), "pointerSize": 134}


def _sibling(path: str, data: bytes) -> dict[str, object]:
    facts: dict[str, object] = {"rfilename": path, "size": len(data), "blobId": _blob_id(data)}
    if path.endswith(LARGE):
        facts["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), **_large_facts(data)}
    return facts


def _tree_entry(path: str, data: bytes) -> dict[str, object]:
    facts: dict[str, object] = {"type": "file", "path": path, "size": len(data), "oid": _blob_id(data)}
    if path.endswith(LARGE):
        facts["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), **_large_facts(data)}
    return facts

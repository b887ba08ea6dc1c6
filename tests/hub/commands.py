"""Runs the `mobilevlm` command against a hub on this machine: in this process, or in one of its own where that matters."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from mobilevlm_ros.cli.main import main

_PROGRAM = "import sys; from mobilevlm_ros.cli.main import main; sys.exit(main(sys.argv[1:]))"


@dataclass(frozen=True)
class Machine:
    """A user's machine: where its hub is and where it keeps what it fetched."""

    hub: str
    home: Path

    @property
    def cache(self) -> Path:
        """Where `huggingface_hub` keeps repositories."""
        return self.home / "hub"

    def start(self, *arguments: object, **variables: str) -> subprocess.Popen[str]:
        """Starts the command with these arguments and further environment variables."""
        kept = {name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY") and name[:3] != "HF_"}
        return subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *map(str, arguments)],
            env={**kept, "HF_ENDPOINT": self.hub, "HF_HOME": str(self.home), **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Runs the command in this process, which must be `here`."""
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            status = main([str(argument) for argument in arguments])
        return subprocess.CompletedProcess("mobilevlm", status, out.getvalue(), err.getvalue())

    def folder(self, *arguments: object) -> Path:
        """Runs a `fetch` that must succeed and returns the folder that it names."""
        done = self.run("fetch", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return Path(done.stdout.strip())

    def error_line(self, *arguments: object) -> str:
        """Runs a command that must fail with one line, and returns it."""
        done = self.run(*arguments)
        assert (done.returncode, done.stdout) == (1, ""), done
        (line,) = done.stderr.splitlines()
        return line.removeprefix("mobilevlm: ")


@contextmanager
def here(machine: Machine, token: str = "", offline: bool = False) -> Iterator[Machine]:
    """For as long as the block lasts, this process is on that machine, as if it had been started with its environment."""
    from huggingface_hub import constants

    settings = {
        "ENDPOINT": machine.hub,
        "HUGGINGFACE_CO_URL_TEMPLATE": machine.hub + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(machine.cache),
        "HF_TOKEN_PATH": str(machine.home / "token"),
        "HF_STORED_TOKENS_PATH": str(machine.home / "stored_tokens"),
        "HF_HUB_OFFLINE": offline,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setattr(constants, name, value)
        for name in [name for name in os.environ if name.upper().endswith("_PROXY") or name.startswith("HF_")]:
            patch.delenv(name)
        if token:
            patch.setenv("HF_TOKEN", token)
        yield machine

"""Where engines are kept: whole or not at all, one builder at a time, and a clear word where nothing can be kept."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from mobilevlm_ros.runtime.errors import BackendError
from mobilevlm_ros.runtime.tensorrt.engine_cache import EngineCache, default_folders

READ_ONLY = Path("/sys/engines")
"""Nobody may make a folder there, root included."""


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache([tmp_path / "first", tmp_path / "second"])


def add(cache: EngineCache, folder: Path, name: str, content: bytes = b"engine") -> None:
    with cache.adding(folder, name) as part:
        part.write_bytes(content)


def test_an_engine_is_found_in_whichever_folder_it_is(cache: EngineCache, tmp_path: Path) -> None:
    assert cache.find("a") is None
    (tmp_path / "second").mkdir()
    add(cache, tmp_path / "second", "a")
    found = cache.find("a")
    assert found is not None
    assert found.read_bytes() == b"engine"
    assert cache.find("b") is None


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, BackendError])
def test_what_is_interrupted_leaves_nothing(cache: EngineCache, interruption: type[BaseException]) -> None:
    folder = cache.writable_folder(1)
    with pytest.raises(interruption), cache.adding(folder, "a") as part:
        part.write_bytes(b"half")
        raise interruption("now")
    assert cache.find("a") is None
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_two_that_build_at_once_take_turns_and_the_second_finds_what_the_first_made(cache: EngineCache) -> None:
    folder, built = cache.writable_folder(1), []
    waited: list[str] = []

    def build() -> None:
        with cache.adding(folder, "a", lambda: waited.append("waits")) as part:
            time.sleep(0.05)
            if cache.find("a") is None:
                built.append(threading.get_ident())
                part.write_bytes(b"engine")

    threads = [threading.Thread(target=build) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert waited


def test_an_engine_that_cannot_be_built_is_remembered_until_it_is_forgotten(cache: EngineCache) -> None:
    cache.note_failure(cache.writable_folder(1), "a", "no kernel for it")
    assert cache.failure("a") == "no kernel for it"
    assert cache.failure("b") == ""
    cache.forget("a")
    assert cache.failure("a") == ""


def test_the_first_folder_that_can_be_written_is_taken(tmp_path: Path) -> None:
    assert EngineCache([READ_ONLY, tmp_path / "cache"]).writable_folder(1) == tmp_path / "cache"


def test_where_nothing_can_be_kept_each_folder_is_named_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = EngineCache([READ_ONLY, tmp_path / "file" / "engines", tmp_path / "full"])
    with pytest.raises(BackendError) as caught:
        cache.writable_folder(1 << 60)
    said = caught.value.message
    assert "\n" not in said
    assert f"{READ_ONLY} is read-only" in said
    assert f"{tmp_path / 'file' / 'engines'}: Not a directory" in said
    assert f"{tmp_path / 'full'} has" in said
    assert "MiB free" in said
    assert "--engine-cache" in said


def test_engines_lie_beside_the_package_or_in_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/home/me/.cache")
    assert default_folders(Path("/models/one/decoder.trt.onnx")) == (
        Path("/models/one/engines"),
        Path("/home/me/.cache/mobilevlm_ros/engines"),
    )

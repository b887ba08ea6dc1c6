"""Packages with made-up weights: of the shapes that the converter writes, whole, and made without torch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mobilevlm_ros.bench import synthetic
from mobilevlm_ros.bench.synthetic import Place, Skeleton, synthetic_package
from mobilevlm_ros.runtime.engine import Engine, EngineConfig
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.package import PREFILL_DIALECT, ModelPackage
from mobilevlm_ros.runtime.requests import Limits
from mobilevlm_ros.runtime.sampling import SamplingParams

_WITHOUT_CONVERTER = """
import sys
from pathlib import Path
from mobilevlm_ros.bench.synthetic import Skeleton
Skeleton.load().size
sys.exit(any(name in sys.modules for name in ("torch", "onnx", "transformers")))
"""


@pytest.fixture(scope="module")
def tiny() -> Skeleton:
    pytest.importorskip("torch", reason="a skeleton is made by the converter")
    from bench.skeleton import build_skeleton
    from tests.make_checkpoint import tiny_config

    return build_skeleton("tiny", tiny_config(vocab=1000))


def test_the_skeleton_that_ships_is_what_the_converter_writes_now() -> None:
    pytest.importorskip("torch", reason="a skeleton is made by the converter")
    from bench.skeleton import released_skeleton

    assert Skeleton.load().digest == released_skeleton().digest, "run python -m bench.skeleton"


def test_the_skeleton_that_ships_is_of_full_size() -> None:
    skeleton = Skeleton.load()
    decoder = skeleton.manifest.decoder
    assert (decoder.layers, decoder.hidden_size, decoder.vocab_size) == (24, 2048, 32000)
    small = skeleton.without_decoder(PREFILL_DIALECT)
    assert 1.1e9 < small.size < 1.3e9
    assert 1.2e9 < skeleton.size - small.size < 1.4e9


def test_reading_it_needs_no_converter() -> None:
    assert subprocess.run([sys.executable, "-c", _WITHOUT_CONVERTER]).returncode == 0


def test_its_package_is_verified_and_answers(tiny: Skeleton, tmp_path: Path) -> None:
    told: list[int] = []
    tiny.write_package(tmp_path / "package", lambda name, size: told.append(size))
    assert sum(told) == tiny.size
    with Engine.open(tmp_path / "package", EngineConfig(rows=1)) as engine:
        picture = engine.picture(Frame(np.zeros((8, 8, 3), np.uint8)))
        answer = engine.generate(picture, "What?", SamplingParams(3, temperature=0.0), Limits()).result()
    assert 0 <= len(answer.tokens) <= 3
    assert np.isfinite(answer.first_log_probabilities).any()


def test_no_two_weights_are_alike_because_a_runtime_keeps_equal_ones_once(tiny: Skeleton, tmp_path: Path) -> None:
    tiny.write_package(tmp_path / "package")
    for name, places in tiny.weights.items():
        data = (tmp_path / "package" / name).read_bytes()
        large = [data[place.offset : place.offset + place.size] for place in places if place.size >= 256]
        assert len(large) > 10
        assert len(set(large)) == len(large)


def test_a_package_is_made_once(tiny: Skeleton, tmp_path: Path) -> None:
    first = synthetic_package(tiny, tmp_path)
    made = (first / "manifest.json").stat().st_mtime_ns
    assert synthetic_package(tiny, tmp_path) == first
    assert (first / "manifest.json").stat().st_mtime_ns == made


def test_another_skeleton_has_a_package_of_its_own(tiny: Skeleton, tmp_path: Path) -> None:
    (name, places), *_ = tiny.weights.items()
    other = replace(
        tiny, weights={**tiny.weights, name: (*places, Place("more", "<f4", (3,), places[-1].offset + places[-1].size))}
    )
    assert synthetic_package(other, tmp_path) != synthetic_package(tiny, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_it_is_the_same_after_saving_and_archives_are_equal_byte_for_byte(tiny: Skeleton, tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        tiny.save(tmp_path / name)
    assert Skeleton.load(tmp_path / "a.zip") == tiny
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_an_interruption_leaves_nothing_behind(tiny: Skeleton, tmp_path: Path) -> None:
    def interrupt(name: str, size: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny.write_package(tmp_path / "package", interrupt)
    assert list(tmp_path.iterdir()) == []


def test_an_older_package_is_replaced(tiny: Skeleton, tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "left over").write_text("")
    tiny.write_package(tmp_path / "package")
    ModelPackage.open(tmp_path / "package")
    assert not (tmp_path / "package" / "left over").exists()


def test_weights_longer_than_what_is_made_up_repeat_it(tiny: Skeleton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "_BLOCK", 4096)
    tiny.write_package(tmp_path / "package")
    ModelPackage.open(tmp_path / "package")

"""What the gate of standing queries misses and asks in vain, on a part of what `bench.standing_gate` measures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="reading the recording needs rosbags")

from bench.standing_gate import THRESHOLDS, Scene, asked_in_vain, cost_ms, missed, scenes
from mobilevlm_ros.tasks.change_gate import MIN_CHANGE

DEFAULT = THRESHOLDS.index(MIN_CHANGE)


@pytest.fixture(scope="module")
def seen() -> Sequence[Scene]:
    return scenes(every=6)


@pytest.mark.parametrize("camera", ["noise 10", "noise 5, JPEG 75", "noise 5, exposure +-1%"])
def test_a_still_scene_is_not_asked_about_again(seen: Sequence[Scene], camera: str) -> None:
    assert asked_in_vain(seen, camera, np.random.default_rng(0)).shares[DEFAULT] == 0.0


def test_a_very_noisy_camera_needs_a_higher_threshold(seen: Sequence[Scene]) -> None:
    shares = asked_in_vain(seen, "noise 20", np.random.default_rng(0)).shares
    assert (shares[0], shares[-1]) == (1.0, 0.0)


@pytest.mark.parametrize(("side", "contrast", "most"), [(16, 1.0, 0.0), (32, 0.25, 0.05)])
def test_a_thing_that_comes_is_seldom_missed(seen: Sequence[Scene], side: int, contrast: float, most: float) -> None:
    assert missed(seen, side, contrast, np.random.default_rng(0)).shares[DEFAULT] <= most


def test_a_look_costs_little() -> None:
    assert cost_ms(1280, 720, times=10) < 10.0

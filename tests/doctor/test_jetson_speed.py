"""Figures beside predictions: of the full size, from timings that are made up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mobilevlm_ros.bench.roofline import Orin, predict, shape_of
from mobilevlm_ros.bench.synthetic import Skeleton
from mobilevlm_ros.doctor.check import Figure, Status
from mobilevlm_ros.doctor.jetson import int4_gain
from mobilevlm_ros.doctor.jetson_speed import ANSWER, PROMPT, Timing, figures, predicted, prompt_tokens
from mobilevlm_ros.doctor.jetson_subjects import Shipped
from mobilevlm_ros.models import shipped_package
from mobilevlm_ros.runtime.package import ModelPackage

FULL = Skeleton.load(Shipped.FULL_INT4.path).manifest
AGX = Orin.AGX_64.value
TIMING = Timing(encode_ms=20.0, prefill_ms=35.0, tokens_per_s=140.0, conditions="MAXN, GPU 1300 MHz")


def named(name: str, timing: Timing = TIMING) -> Figure:
    found = figures(FULL, AGX, timing, replace(TIMING, tokens_per_s=90.0), 3 << 30)
    return next(figure for figure in found if figure.name == name)


def test_the_full_size_is_predicted_as_the_traffic_model_says() -> None:
    assert prompt_tokens(FULL) == PROMPT
    assert predicted(FULL, AGX) == predict(shape_of(FULL, 4), AGX, PROMPT, ANSWER, 512)
    fp16 = Skeleton.load(Shipped.FULL_FP16.path).manifest
    slower, faster = predicted(fp16, AGX), predicted(FULL, AGX)
    assert slower is not None
    assert faster is not None
    assert slower.decode_tokens_per_s.high < faster.decode_tokens_per_s.low


def test_nothing_is_predicted_for_an_unknown_board_or_size() -> None:
    assert predicted(FULL, None) is None
    assert predicted(ModelPackage.open_unverified(shipped_package()).manifest, AGX) is None
    assert all(figure.predicted is None for figure in figures(FULL, None, TIMING, TIMING, 0))


def test_every_figure_has_its_unit_and_the_conditions_beside_it() -> None:
    found = figures(FULL, AGX, TIMING, TIMING, 3 << 30)
    assert {figure.unit for figure in found} == {"ms", "tokens/s", "MiB"}
    assert all(figure.detail.endswith("(MAXN, GPU 1300 MHz)") for figure in found)
    assert named("memory").value == 3072


def test_decode_tells_its_share_of_the_bandwidth_and_what_was_predicted() -> None:
    share = shape_of(FULL, 4).decode_bytes(512) * 140.0 / AGX.bandwidth
    detail = named("decode").detail
    assert f"140.0 tokens/s, {share:.0%} of the bandwidth of AGX Orin 64 GB; predicted " in detail
    assert 0.5 < share < 1


def test_the_first_answer_takes_its_stages_together() -> None:
    assert named("first answer").value == pytest.approx(20 + 35 + 19e3 / 140, abs=0.01)


def test_what_is_slower_than_predicted_is_a_warning_and_what_is_faster_is_not() -> None:
    slow = Timing(500.0, 900.0, 20.0, "15W")
    for name in ("encode", "prefill", "decode", "first answer"):
        assert named(name, slow).status is Status.WARN, name
        assert "slower than predicted" in named(name, slow).remedy
    fast = Timing(1.0, 1.0, 900.0, "MAXN")
    assert {named(name, fast).status for name in ("encode", "prefill", "decode", "first answer")} == {Status.PASS}


def test_int4_must_be_faster_than_fp16_to_be_worth_it() -> None:
    assert int4_gain(140.0, 50.0).status is Status.PASS
    assert "2.8 times" in int4_gain(140.0, 50.0).detail
    assert int4_gain(50.0, 50.0).status is Status.WARN

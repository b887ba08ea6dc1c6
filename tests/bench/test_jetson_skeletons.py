"""The doctor's archives of full-size and small packages: what the converter writes now, with graphs for TensorRT."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobilevlm_ros.bench.synthetic import Skeleton
from mobilevlm_ros.doctor.jetson_subjects import Shipped
from mobilevlm_ros.runtime.manifest import Precision
from mobilevlm_ros.runtime.package import ModelPackage


def test_they_are_what_the_converter_writes_now() -> None:
    pytest.importorskip("torch", reason="a skeleton is made by the converter")
    from bench.jetson_skeletons import skeletons

    made = {shipped: skeleton.digest for shipped, skeleton in skeletons()}
    found = {shipped: Skeleton.load(shipped.path).digest for shipped in Shipped}
    assert found == made, "run python -m bench.jetson_skeletons"


@pytest.mark.parametrize("shipped", Shipped)
def test_each_has_both_decoders_for_tensorrt(shipped: Shipped) -> None:
    skeleton = Skeleton.load(shipped.path)
    assert {"decoder.trt.onnx", "decoder.trt-portable.onnx", "vision.trt.onnx"} <= skeleton.files.keys()
    assert skeleton.manifest.decoder_precision is (Precision.FP16 if shipped is Shipped.FULL_FP16 else Precision.INT4)


def test_the_small_one_makes_a_package(tmp_path: Path) -> None:
    Skeleton.load(Shipped.SMALL_INT4.path).write_package(tmp_path / "package")
    package = ModelPackage.open(tmp_path / "package")
    assert package.decoder("trt").graph.is_file()
    assert package.vision_trt.graph.is_file()

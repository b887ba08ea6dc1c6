"""The nano model with its graphs for TensorRT beside the CPU's, as the converter writes it now."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest

from mobilevlm_ros.models import shipped_folder, shipped_package
from mobilevlm_ros.runtime.manifest import MANIFEST_NAME, Precision
from mobilevlm_ros.runtime.package import ModelPackage

takes_fused = pytest.mark.skipif(
    tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 24),
    reason="ONNX Runtime, which stands in for TensorRT, is too old here for the fused decoder",
)


def nano_for_tensorrt(folder: Path) -> ModelPackage:
    """Converts the nano checkpoint for every backend into `folder`, with all else as in the package that ships."""
    from mobilevlm_ros.export.convert import ConvertOptions, convert
    from mobilevlm_ros.export.trt_graphs import Target

    options = ConvertOptions(precision=Precision.FP16, target=Target.ALL, verify=False)
    made = ModelPackage.open(convert(shipped_folder("nano/checkpoint"), folder, options).package)
    shipped = ModelPackage.open_unverified(shipped_package()).manifest
    (folder / MANIFEST_NAME).write_text(replace(shipped, files=made.manifest.files).to_json())
    return ModelPackage.open(folder)

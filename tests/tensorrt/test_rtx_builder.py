"""The engine builder's own code over TensorRT-RTX: graphs, profiles, attention without a kernel of its own, progress, errors.

Compiled by TensorRT-RTX, not run, and not on TensorRT; its Python module has the names that the builder uses.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mobilevlm_ros.export.convert import ConvertOptions, convert
from mobilevlm_ros.export.trt_graphs import Target
from mobilevlm_ros.runtime.errors import BackendError
from mobilevlm_ros.runtime.manifest import Precision
from mobilevlm_ros.runtime.package import ModelPackage
from mobilevlm_ros.runtime.tensorrt.build import build
from mobilevlm_ros.runtime.tensorrt.plan import Order, Role, make_order
from tests.make_checkpoint import tiny_config, write_checkpoint
from tests.tensorrt.rtx import REASON

rtx = pytest.importorskip("tensorrt_rtx_bindings", reason=REASON)

# TensorRT-RTX keeps the names, but has no use for a timing cache.
pytestmark = pytest.mark.filterwarnings("ignore:.*Timing cache operations:DeprecationWarning")
MEMORY = 8 << 30


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """With two heads, for which TensorRT-RTX has no fused attention."""
    folder = tmp_path_factory.mktemp("package")
    checkpoint = write_checkpoint(folder / "c", tiny_config(hidden=128, heads=2))
    options = ConvertOptions(precision=Precision.FP16, target=Target.ALL, verify=False)
    return ModelPackage.open(convert(checkpoint, folder / "p", options).package)


def order_for(package: ModelPackage, role: Role) -> Order:
    return make_order(package, role, rows=2, context_length=256, memory=MEMORY)


@pytest.mark.parametrize("role", Role)
def test_every_graph_is_built_with_progress(
    package: ModelPackage, tmp_path: Path, role: Role, capsys: pytest.CaptureFixture[str]
) -> None:
    size = build(rtx, order_for(package, role), tmp_path / "engine", tmp_path / "timing")
    assert size == (tmp_path / "engine").stat().st_size > 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [line["fraction"] for line in said] == sorted(line["fraction"] for line in said) and len(said) > 2


def test_what_tensorrt_does_not_take_is_one_line_in_its_own_words(package: ModelPackage, tmp_path: Path) -> None:
    order = replace(order_for(package, Role.FUSED), positions=0)
    with pytest.raises(BackendError, match="does not take decoder.trt.onnx: .*static sequence length") as caught:
        build(rtx, order, tmp_path / "engine", tmp_path / "timing")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "engine").exists()

"""The ONNX Runtime backend: what it leaves alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import PackageMaker

RUN = """
import sys
from mobilevlm_ros.runtime.engine import Engine
with Engine.open(sys.argv[1]) as engine:
    print(engine.backend_name)
"""


def test_it_does_not_report_to_its_maker(parity_package: PackageMaker, tmp_path: Path) -> None:
    """ONNX Runtime prepares its reports below the home folder, where nothing may appear."""
    environment = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "CI")}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    package = str(parity_package("ldpnetv2"))
    done = subprocess.run([sys.executable, "-c", RUN, package], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "onnxruntime-cpu", done.stderr
    assert list(tmp_path.rglob("*onnxruntime*")) == []

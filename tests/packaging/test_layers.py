"""That the layers' arrows point one way: what each part of the package may import, read from its sources."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "mobilevlm_ros"

# For each layer: layers of this package, and packages from elsewhere, that it may import.
ALLOWED: dict[str, tuple[set[str], set[str]]] = {
    "runtime": (set(), {"llguidance", "numpy", "onnxruntime", "sentencepiece", "PIL"}),
    "tasks": ({"runtime"}, {"numpy"}),
    "pictures": ({"runtime"}, {"numpy", "PIL", "cv2", "rosbags"}),
    "space": ({"runtime", "pictures"}, {"numpy"}),
    "bench": ({"runtime", "machine", "__version__"}, {"numpy", "onnxruntime"}),
    "doctor": ({"runtime", "tasks", "pictures", "hub", "bench", "machine", "models"}, {"numpy", "onnxruntime"}),
    "client": ({"runtime"}, {"rclpy", "mobilevlm_msgs", "builtin_interfaces", "lifecycle_msgs", "std_msgs", "typing_extensions"}),
    "checkpoint": ({"runtime"}, {"numpy", "torch", "transformers", "safetensors", "sentencepiece", "huggingface_hub", "peft"}),
    "hub": ({"runtime", "checkpoint"}, {"huggingface_hub", "tqdm"}),
    "export": (
        {"runtime", "checkpoint", "hub", "pictures", "models"},
        {"numpy", "torch", "onnx", "onnxruntime", "neural_compressor", "sentencepiece", "tqdm", "ml_dtypes", "PIL"},
    ),
    "finetune": (
        {"runtime", "checkpoint", "hub", "machine", "pictures"},
        {"numpy", "torch", "transformers", "peft", "safetensors", "tqdm", "PIL"},
    ),
}
ROS = {
    "rclpy", "sensor_msgs", "std_msgs", "geometry_msgs", "mobilevlm_msgs", "cv_bridge", "launch", "launch_ros",
    "tf2_ros", "vision_msgs", "visualization_msgs",
}  # fmt: skip


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import in a source file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


@pytest.mark.parametrize("layer", sorted(ALLOWED))
def test_a_layer_imports_only_what_lies_below_it(layer: str) -> None:
    own, foreign = ALLOWED[layer]
    wrong = []
    for path in (PACKAGE / layer).rglob("*.py"):
        for line, name in imports(path):
            parts = name.split(".")
            if parts[0] == "mobilevlm_ros":
                fine = len(parts) > 1 and parts[1] in {layer, *own}
            else:
                fine = parts[0] in sys.stdlib_module_names or parts[0] in foreign
            if not fine:
                wrong.append(f"{path.relative_to(PACKAGE)}:{line}: {name}")
    assert wrong == []


def test_only_the_ros_part_and_the_client_and_the_demo_know_ros() -> None:
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] not in ("ros", "client", "demo"):
            wrong += [f"{path.relative_to(PACKAGE)}:{line}" for line, name in imports(path) if name.split(".")[0] in ROS]
    assert wrong == []

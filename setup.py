"""Packaging of mobilevlm_ros, for colcon and for pip. What package.xml says is read from there."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from setuptools import find_packages, setup

NAME = "mobilevlm_ros"
ROOT = Path(__file__).resolve().parent
SHARE = f"share/{NAME}"
MANIFEST = ElementTree.parse(ROOT / "package.xml").getroot()


def said(tag: str) -> str:
    """The text of one of package.xml's elements."""
    return (MANIFEST.findtext(tag) or "").strip()


def shipped(folder: str) -> list[tuple[str, list[str]]]:
    """The files below a folder of the repository, each for the same place under share/."""
    files = sorted(path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return [(f"{SHARE}/{path.relative_to(ROOT).parent.as_posix()}", [path.relative_to(ROOT).as_posix()]) for path in files]


HUB = ["huggingface-hub", "tqdm"]
CONVERT = [*HUB, "neural-compressor-pt", "onnx", "safetensors", "torch", "transformers"]
FINETUNE = [*CONVERT, "accelerate", "peft"]
EVALUATE = ["tqdm"]
TEST = ["pytest", "pytest-timeout", "hypothesis", "rosbags", "rosbags-image"]

setup(
    name=NAME,
    version=said("version"),
    description=said("description"),
    license=said("license"),
    maintainer=said("maintainer"),
    maintainer_email=MANIFEST.findall("maintainer")[0].attrib["email"],
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={
        NAME: ["py.typed"],
        f"{NAME}.bench": ["*.zip"],
        f"{NAME}.demo": ["*.mcap", "*.json"],
        f"{NAME}.doctor": ["*.jpg", "*.zip"],
        f"{NAME}.hub": ["*.json"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (SHARE, ["package.xml"]),
        *shipped("launch"),
        *shipped("config"),
        *shipped("models/nano/package"),
        *shipped("models/nano/calibration"),
    ],
    python_requires=">=3.10",
    # Nothing here names an ONNX Runtime: its CPU and GPU builds exclude each other, so a user asks for the one that he wants.
    install_requires=["setuptools", "llguidance", "numpy", "pillow", "sentencepiece"],
    extras_require={
        "cpu": ["onnxruntime"],
        "gpu": ["onnxruntime-gpu"],
        "tensorrt": ["tensorrt>=10.3", "cuda-bindings"],
        "convert": CONVERT,
        "finetune": FINETUNE,
        "hub": HUB,
        "media": ["opencv-python-headless", "rosbags"],
        "demo": ["rosbags"],
        "eval": EVALUATE,
        "test": TEST,
        "dev": [*TEST, "codespell", "mypy", "ruff"],
    },
    entry_points={
        "console_scripts": [
            "mobilevlm = mobilevlm_ros.cli:main",
            "mobilevlm_node = mobilevlm_ros.ros.node:main",
        ],
    },
    zip_safe=False,
)

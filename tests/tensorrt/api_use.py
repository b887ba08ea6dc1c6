"""Which names of TensorRT's Python module this project uses, read from its sources.

What an object is shows in what it is called there: `builder.create_network` is a name of the class Builder.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.tensorrt.bindings import recorded

PACKAGE = Path(__file__).resolve().parents[2] / "mobilevlm_ros"
SIMULATED = PACKAGE / "doctor" / "simulated"
MODULE = "trt"
HOLDERS = {
    "builder": "Builder",
    "config": "IBuilderConfig",
    "context": "IExecutionContext",
    "engine": "ICudaEngine",
    "made": "IExecutionContext",
    "measured": "ITimingCache",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "runtime": "Runtime",
    "serialized": "IHostMemory",
    "tensor": "ITensor",
}
"""Classes by the names of variables and attributes, without a leading underscore."""


@dataclass(frozen=True)
class Use:
    """A name such as `Builder.create_network`, where it stands, and whether the source asks before whether it is there."""

    name: str
    where: str
    asked: bool


def all_uses() -> list[Use]:
    """The names of TensorRT that the package uses, but for its stand-in.

    Its own classes are called like TensorRT's; what they define counts only where TensorRT has the name too.
    """
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}
    texts = {path: text for path, text in texts.items() if "tensorrt" in text and not path.is_relative_to(SIMULATED)}
    own = {node.name for text in texts.values() for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)}
    known = frozenset[str]().union(*recorded().values())
    found = [use for path, text in texts.items() for use in uses(text, path.name)]
    return [use for use in found if use.name in known or use.name.split(".")[-1] not in own]


def uses(source: str, file: str) -> Iterator[Use]:
    """The names of TensorRT that a source uses."""
    tree = ast.parse(source)
    if not _knows_tensorrt(tree):
        return
    asked = set(_asked(tree))
    for node in ast.walk(tree):
        name = _name(node)
        last = "_" if name is None else name.split(".")[-1]
        if name is not None and not last.startswith("_"):
            yield Use(name, f"{file}:{getattr(node, 'lineno', 0)}", last in asked)


def _knows_tensorrt(tree: ast.AST) -> bool:
    """Whether the module stands in the source, which calls it `trt` or keeps it as `_trt`."""
    return any(
        (isinstance(node, ast.arg) and node.arg == MODULE) or (isinstance(node, ast.Attribute) and node.attr == f"_{MODULE}")
        for node in ast.walk(tree)
    )


def _asked(tree: ast.AST) -> Iterator[str]:
    """Names given to hasattr, or to getattr with a value for when they are missing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            enough = {"hasattr": 2, "getattr": 3}.get(node.func.id)
            if enough == len(node.args) and isinstance(node.args[1], ast.Constant) and isinstance(node.args[1].value, str):
                yield node.args[1].value


def _name(node: ast.AST) -> str | None:
    """The name of TensorRT that an expression, an attribute or a question for one, stands for."""
    if isinstance(node, ast.Attribute):
        owner = _owner(node.value)
        return None if owner is None else f"{owner}{node.attr}"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
        owner = _owner(node.args[0])
        if owner is not None and isinstance(node.args[1], ast.Constant) and isinstance(node.args[1].value, str):
            return f"{owner}{node.args[1].value}"
    return None


def _owner(node: ast.AST) -> str | None:
    """What stands before an attribute's name: "" for the module, "Builder." for a builder; None for all else."""
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    plain = name.lstrip("_")
    if plain in HOLDERS:
        return f"{HOLDERS[plain]}."
    if plain == MODULE:
        return ""
    if isinstance(node, ast.Attribute) and (before := _owner(node.value)) is not None:
        return f"{before}{node.attr}."
    return None

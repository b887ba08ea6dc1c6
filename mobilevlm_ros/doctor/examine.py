"""All checks, in the order in which a newcomer needs them."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Iterator

from mobilevlm_ros.doctor import hardware
from mobilevlm_ros.doctor.check import Check, Group, Status, Surroundings
from mobilevlm_ros.doctor.imports import imported, installed
from mobilevlm_ros.doctor.models import catalogue_checks, proof_of_life
from mobilevlm_ros.doctor.ros import ros_checks
from mobilevlm_ros.machine import read_machine

OLDEST_PYTHON = (3, 10)
_REINSTALL = "tools/setup demo, or pip install mobilevlm_ros[cpu]"
_MEDIA = "only for videos and bags: pip install mobilevlm_ros[media]"
_CONVERT = "only to convert checkpoints: tools/setup demo convert, or pip install mobilevlm_ros[convert]"
_INT4 = "only to convert to int4 with error compensation: pip install mobilevlm_ros[convert]"
_FETCH = "only to download checkpoints: pip install mobilevlm_ros[hub]"
_FINETUNE = "only to fine-tune: pip install mobilevlm_ros[finetune]"
_VERSION = "__import__('importlib.metadata').metadata.version('{}')"


def examine(surroundings: Surroundings | None = None) -> Iterator[Group]:
    """Look at everything, group by group; takes some seconds, because libraries are imported."""
    surroundings = surroundings or Surroundings()
    machine = read_machine(surroundings.root)
    yield Group(
        "machine",
        (
            hardware.processor(machine),
            hardware.instructions(machine),
            hardware.memory(machine),
            hardware.disk(surroundings),
            hardware.gpu(machine, surroundings),
            hardware.tensorrt(),
        ),
    )
    yield Group("answering", (python(), *runtime_libraries(), proof_of_life()))
    yield Group("ROS 2", ros_checks(surroundings))
    yield Group("videos, bags", media_libraries())
    yield Group("fetch, convert", convert_libraries())
    yield Group("finetune", (installed("peft", ["peft"], Status.MISSING, _FINETUNE),))
    yield Group("models", catalogue_checks(machine))


def healthy(groups: Iterable[Group]) -> bool:
    """Whether what is needed to answer works."""
    return all(check.status is not Status.FAIL for group in groups for check in group.checks)


def python() -> Check:
    """This Python."""
    detail = f"{platform.python_version()}, {sys.executable}"
    if sys.version_info < OLDEST_PYTHON:
        return Check("python", Status.FAIL, detail, "install Python 3.10 or later")
    return Check("python", Status.PASS, detail)


def runtime_libraries() -> tuple[Check, ...]:
    """What answering needs."""
    providers = "m.__version__ + ', ' + ' '.join(p.removesuffix('ExecutionProvider') for p in m.get_available_providers())"
    return (
        imported("onnxruntime", "onnxruntime", Status.FAIL, _REINSTALL, providers),
        imported("llguidance", "llguidance", Status.FAIL, _REINSTALL, _VERSION.format("llguidance")),
        imported("numpy", "numpy", Status.FAIL, _REINSTALL),
        imported("PIL", "pillow", Status.FAIL, _REINSTALL),
        imported("sentencepiece", "sentencepiece", Status.FAIL, _REINSTALL),
    )


def media_libraries() -> tuple[Check, ...]:
    """What reads videos and bags."""
    return (
        imported("cv2", "opencv", Status.MISSING, _MEDIA),
        installed("rosbags", ["rosbags"], Status.MISSING, _MEDIA),
    )


def convert_libraries() -> tuple[Check, ...]:
    """What downloads checkpoints and makes model packages of them."""
    return (
        installed("huggingface_hub", ["huggingface_hub"], Status.MISSING, _FETCH),
        installed("torch", ["torch"], Status.MISSING, _CONVERT),
        installed("transformers", ["transformers"], Status.MISSING, _CONVERT),
        installed("onnx", ["onnx"], Status.MISSING, _CONVERT),
        installed("neural_compressor", ["neural-compressor-pt"], Status.MISSING, _INT4),
    )

"""The loaded model as the node uses it: the engine and the tasks on it.

The node's only door to `runtime` engines and `tasks`; knows no messages, topics or cameras.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mobilevlm_ros import tasks
from mobilevlm_ros.models import NANO, shipped_package
from mobilevlm_ros.ros.parameters import NodeOptions
from mobilevlm_ros.runtime.engine import Engine, EngineConfig
from mobilevlm_ros.runtime.errors import PackageError, VlmError
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.geometry import Box
from mobilevlm_ros.runtime.package import ModelPackage
from mobilevlm_ros.runtime.prompt import Turn
from mobilevlm_ros.tasks import Answer, Classification, Grounding, Settings

OnText = Callable[[str], None]


@dataclass(frozen=True)
class ModelStats:
    """What is told of a model: its backend, the fields of `runtime.engine.EngineStats`, and the backend's notice."""

    backend: str
    waiting: int
    running: int
    prefix_cache_bytes: int
    busy: bool = False
    steps: int = 0
    lost: str = ""
    notice: str = ""


class Model(Protocol):
    """The tasks of a loaded model. Each call blocks its caller; any thread may call."""

    @property
    def name(self) -> str:
        """The model package's name, as results carry it."""
        ...

    def stats(self) -> ModelStats:
        """A snapshot for diagnostics."""
        ...

    def close(self) -> None:
        """Ends every request with CANCELLED and frees the model."""
        ...

    def give_up(self, error: VlmError) -> None:
        """Ends every request with `error`, although the model does not come back; `close` does nothing afterwards."""
        ...

    def ask(self, frame: Frame, question: str, settings: Settings) -> Answer: ...

    def chat(self, frame: Frame, history: Sequence[Turn], message: str, settings: Settings, on_text: OnText) -> Answer: ...

    def ground(self, frame: Frame, expression: str, settings: Settings, max_regions: int) -> Grounding: ...

    def describe_region(self, frame: Frame, box: Box, settings: Settings) -> Answer: ...

    def classify(self, frame: Frame, question: str, labels: Sequence[str], settings: Settings) -> Classification: ...


class EngineModel:
    """A model package on the runtime's engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def name(self) -> str:
        return self._engine.manifest.name

    def stats(self) -> ModelStats:
        stats = self._engine.stats()
        return ModelStats(
            self._engine.backend_name,
            stats.waiting,
            stats.running,
            stats.prefix_cache_bytes,
            stats.busy,
            stats.steps,
            stats.lost,
            self._engine.notice,
        )

    def close(self) -> None:
        self._engine.close()

    def give_up(self, error: VlmError) -> None:
        self._engine.give_up(error)

    def ask(self, frame: Frame, question: str, settings: Settings) -> Answer:
        return tasks.ask(self._engine, frame, question, settings)

    def chat(self, frame: Frame, history: Sequence[Turn], message: str, settings: Settings, on_text: OnText) -> Answer:
        return tasks.chat(self._engine, frame, history, message, settings, on_text)

    def ground(self, frame: Frame, expression: str, settings: Settings, max_regions: int) -> Grounding:
        return tasks.ground(self._engine, frame, expression, settings, max_regions)

    def describe_region(self, frame: Frame, box: Box, settings: Settings) -> Answer:
        return tasks.describe_region(self._engine, frame, box, settings)

    def classify(self, frame: Frame, question: str, labels: Sequence[str], settings: Settings) -> Classification:
        return tasks.classify(self._engine, frame, question, labels, settings)


def load(options: NodeOptions, report: Callable[[str], None] = lambda line: None) -> Model:
    """Verifies and loads the model package that the parameters name; `report` is told, line by line, what takes long.

    Raises:
        VlmError: one line with the path, what was expected and what was found.
    """
    if not options.model:
        raise PackageError("the parameter 'model' is empty: set it to the folder of a model package")
    config = EngineConfig(
        threads=options.threads,
        cpu_affinity=options.cpu_affinity,
        rows=options.rows,
        context_length=options.context_length,
        queue_size=options.max_requests + options.rows,  # room for whom the gate lets in, standing questions too
        prefix_cache_mb=options.prefix_cache_mb,
        backend=options.backend,
        backend_fallback=options.backend_fallback,
        engine_cache=options.engine_cache,
    )
    engine = Engine.open(_folder(options.model), config, report)
    engine.warm_up()
    return EngineModel(engine)


def name_of(package: str) -> str:
    """The name of the model package in a folder, whose files are there in their sizes; raises VlmError with one line."""
    return ModelPackage.open_unverified(_folder(package)).manifest.name


def _folder(package: str) -> str | Path:
    return shipped_package() if package == NANO else package

"""Which model answers: the one that the node was configured with, or another that was selected while it runs.

A selected model is loaded beside the one that answers, takes its place for the next request, and the one before is freed when its
last request has ended: at most two are in memory. Knows no messages, services or cameras.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from mobilevlm_ros.ros.desk import Desk
from mobilevlm_ros.ros.memory import give_back_free_memory
from mobilevlm_ros.ros.model import Model
from mobilevlm_ros.ros.parameters import NodeOptions
from mobilevlm_ros.runtime.errors import ErrorCode, PackageError, VlmError

SHOWN = 80
"""Characters of a name that a client sent which are repeated in messages and in the log."""


@dataclass(frozen=True)
class Choice:
    """The model that answers, empty where none is loaded, and every name that can be selected, the configured one's first."""

    active: str
    available: tuple[str, ...]


class Selection:
    """Loads, exchanges and frees models. Safe to use from any thread."""

    def __init__(self, desk: Desk, load: Callable[[NodeOptions], Model], name_of: Callable[[str], str]) -> None:
        """
        Args:
            desk: is told which model serves.
            load: makes the model of the options' package.
            name_of: tells the name of a package in a folder. Both raise VlmError.
        """
        self._desk = desk
        self._load = load
        self._name_of = name_of
        self._lock = threading.Lock()
        self._selecting = threading.Lock()
        self._options: Mapping[str, NodeOptions] = {}
        self._active = ""
        self._model: Model | None = None
        self._before: Model | None = None
        self._retiring: threading.Thread | None = None
        # The C library keeps freed memory for the thread that had asked for it, so one thread asks for every model's.
        self._loader = ThreadPoolExecutor(1, "mobilevlm-load")

    @property
    def model(self) -> Model | None:
        """The model that answers."""
        return self._model

    @property
    def loaded(self) -> tuple[Model, ...]:
        """Every model in memory: the one that answers, and the one before while it still has requests."""
        return tuple(model for model in (self._model, self._before) if model is not None)

    def choice(self) -> Choice:
        """What answers and what could."""
        with self._lock:
            return Choice(self._active, tuple(self._options))

    def configure(self, options: NodeOptions) -> Model:
        """Loads the configured model and learns the names of the others.

        Raises:
            VlmError: a package is not there or broken, or two have the same name. Nothing is loaded then.
        """
        others = [(self._name_of(folder), replace(options, model=folder)) for folder in options.adapters]
        model = self._loader.submit(self._load, options).result()
        names = [model.name, *(name for name, _ in others)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            model.close()
            raise PackageError(f"two of the packages in the parameters 'model' and 'adapters' are called '{twice}'")
        with self._lock:
            self._options = dict(zip(names, [options, *(changed for _, changed in others)]))
            self._active, self._model = model.name, model
            self._desk.attach(model)
        return model

    def select(self, name: str) -> None:
        """Lets the named model, the configured one for an empty name, answer from the next request on.

        Raises:
            VlmError: BAD_REQUEST for a name that is not there, BUSY while another selection is on its way, NOT_ACTIVE where no
                model is loaded; else as loading does. The model before goes on answering then.
        """
        if not self._selecting.acquire(blocking=False):
            raise VlmError(ErrorCode.BUSY, "another model is being loaded already")
        try:
            with self._lock:
                known, active, retiring = self._options, self._active, self._retiring
            chosen = _chosen(known, name)
            if chosen == active:
                return
            if retiring is not None:
                retiring.join()
            self._exchange(known, chosen, self._loader.submit(self._load, known[chosen]).result())
        finally:
            self._selecting.release()

    def give_up(self, error: VlmError) -> None:
        """Ends every request with `error`, although a model does not come back."""
        for model in self.loaded:
            model.give_up(error)

    def unload(self) -> None:
        """Frees every model; what a selection loads meanwhile is freed as soon as it is there."""
        with self._lock:
            model, before, retiring = self._model, self._before, self._retiring
            self._active, self._model, self._options = "", None, {}
            self._desk.attach(None)
        for loaded in (model, before):
            if loaded is not None:
                loaded.close()
        if retiring is not None:
            retiring.join()

    def _exchange(self, known: Mapping[str, NodeOptions], name: str, model: Model) -> None:
        """Puts a model in the place of the one before, unless the node was cleaned up since it knew `known`."""
        with self._lock:
            before = self._model
            if before is not None and self._options is known:
                self._active, self._model, self._before = name, model, before
                self._desk.attach(model)
                self._retiring = threading.Thread(target=self._retire, args=(before,), name="mobilevlm-retire", daemon=True)
                self._retiring.start()
                return
        model.close()
        raise VlmError(ErrorCode.NOT_ACTIVE, "the node was cleaned up while the model was being loaded")

    def _retire(self, model: Model) -> None:
        self._desk.wait_until_unused(model)
        model.close()
        with self._lock:
            self._before = None
        del model
        give_back_free_memory()


def _chosen(options: Mapping[str, NodeOptions], name: str) -> str:
    """The name that is meant; raises VlmError where there is none."""
    if not options:
        raise VlmError(ErrorCode.NOT_ACTIVE, "no model is loaded: the node is not configured")
    if name and name not in options:
        raise VlmError(ErrorCode.BAD_REQUEST, f"there is no model '{name[:SHOWN]}'; there are: {', '.join(options)}")
    return name or next(iter(options))

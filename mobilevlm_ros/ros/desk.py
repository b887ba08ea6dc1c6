"""What every request passes through: admission, its camera's frame, its deadline, the model, and one outcome whatever happens.

A request blocks the thread that serves it and no other. Knows the options message; knows no services, actions or topics.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from mobilevlm_msgs.msg import RequestOptions

from mobilevlm_ros.ros.admission import Entrant, Gate
from mobilevlm_ros.ros.camera import Cameras, FramePolicy, Snapshot, Times
from mobilevlm_ros.ros.messages import NOWHERE, Outcome, Source, seconds
from mobilevlm_ros.ros.model import Model
from mobilevlm_ros.ros.parameters import NodeOptions
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.requests import CancelToken, Priority
from mobilevlm_ros.runtime.sampling import SamplingParams
from mobilevlm_ros.tasks import Settings
from mobilevlm_ros.tasks.results import Result

R = TypeVar("R", bound=Result)

Report = Callable[[Outcome[Result]], None]
"""Told of every outcome: for the log and for diagnostics."""


@dataclass(frozen=True)
class Wishes:
    """A request's options, checked and completed from the node's parameters.

    Attributes:
        max_age: seconds that the frame may be old.
        deadline: `time.monotonic` seconds.
        asked_ns: the request's arrival on the node's clock.
    """

    camera: str
    policy: FramePolicy
    max_age: float
    deadline: float
    asked_ns: int
    priority: Priority
    sampling: SamplingParams


@dataclass
class Job:
    """A request on its way: what a task needs, filled in as it becomes known. Its `report` goes in the place of the desk's."""

    entrant: Entrant = Entrant.REQUEST
    report: Report | None = None
    cancel: CancelToken = field(default_factory=CancelToken)
    same: Snapshot | None = None
    snapshot: Snapshot | None = None


Task = Callable[[Model, Snapshot, Settings], R]


class Desk:
    """Serves requests. Safe to use from any thread."""

    def __init__(
        self, gate: Gate, cameras: Cameras, options: Callable[[], NodeOptions], clock: Callable[[], Times], report: Report
    ) -> None:
        self._gate = gate
        self._cameras = cameras
        self._options = options
        self._clock = clock
        self._report = report
        self._model: Model | None = None
        self._in_use: list[Model] = []
        self._changed = threading.Condition()

    def attach(self, model: Model | None) -> None:
        """Serve with this model from now on; requests on their way end on the one before. With none, a request is NOT_ACTIVE."""
        with self._changed:
            self._model = model

    def wait_until_unused(self, model: Model) -> None:
        """Waits until no request is on its way with a model that is attached no longer."""
        with self._changed:
            self._changed.wait_for(lambda: model not in self._in_use)

    def serve(self, options: RequestOptions, task: Task[R], job: Job | None = None) -> Outcome[R]:
        """Runs one request to its end in the calling thread.

        Args:
            options: as the client sent them.
            task: the part with the model, called with the model, the picture and the settings.
            job: carries the cancel token in and the picture out.

        Returns:
            The outcome. Nothing is raised: an error of any kind is an outcome with its code.
        """
        job = job or Job()
        source = NOWHERE
        try:
            with self._gate.enter(job.cancel, job.entrant):
                wishes = self._wishes(options)
                job.snapshot = self._take(wishes, job)
                frame = job.snapshot.frame
                with self._borrow() as model:
                    source = Source(job.snapshot.header, job.snapshot.camera, model.name, frame.width, frame.height)
                    outcome = Outcome.of(task(model, job.snapshot, self._settings(wishes, job)), source)
        except VlmError as error:
            outcome = Outcome(None, error.code, error.message, source)
        except MemoryError:
            outcome = Outcome(None, ErrorCode.OUT_OF_MEMORY, "the machine has no memory left for this request", source)
        except Exception as error:  # noqa: BLE001 - a defect must end this request and nothing else
            outcome = Outcome(None, ErrorCode.MODEL_ERROR, f"{type(error).__name__}: {error}", source)
        (job.report or self._report)(outcome)
        return outcome

    @contextmanager
    def _borrow(self) -> Iterator[Model]:
        """The attached model, which is in use for as long as the block runs."""
        with self._changed:
            model = self._model
            if model is None:
                raise VlmError(ErrorCode.NOT_ACTIVE, "no model is loaded")
            self._in_use.append(model)
        try:
            yield model
        finally:
            with self._changed:
                self._in_use.remove(model)
                self._changed.notify_all()

    def _take(self, wishes: Wishes, job: Job) -> Snapshot:
        slot = self._cameras.find(wishes.camera)
        if wishes.policy is FramePolicy.SAME and job.same is not None:
            return job.same
        if wishes.policy is FramePolicy.NEXT:
            return slot.take_next(wishes.asked_ns, wishes.deadline, job.cancel)
        return slot.take_newest(wishes.max_age, wishes.deadline, job.cancel)

    def _settings(self, wishes: Wishes, job: Job) -> Settings:
        timeout = wishes.deadline - time.monotonic()
        if timeout <= 0:
            raise VlmError(ErrorCode.DEADLINE_EXCEEDED, "the deadline passed before the model was asked")
        return Settings(wishes.sampling, wishes.priority, timeout, job.cancel)

    def _wishes(self, message: RequestOptions) -> Wishes:
        """Checks the options; raises VlmError(BAD_REQUEST) with the field's name."""
        options = self._options()
        timeout = seconds(message.timeout) or options.request_timeout
        max_age = seconds(message.max_age) or options.max_image_age
        if timeout < 0 or max_age < 0:
            raise VlmError(ErrorCode.BAD_REQUEST, "options.timeout and options.max_age must not be negative")
        return Wishes(
            camera=message.camera,
            policy=_choice(FramePolicy, message.frame_policy, "frame_policy"),
            max_age=max_age,
            deadline=time.monotonic() + timeout,
            asked_ns=self._clock().now_ns,
            priority=_choice(Priority, message.priority, "priority"),
            sampling=SamplingParams(
                max_tokens=message.max_tokens or options.max_tokens,
                temperature=options.temperature if message.temperature < 0 else message.temperature,
                top_p=options.top_p,
                seed=options.seed if options.seed >= 0 else None,
            ),
        )


C = TypeVar("C", FramePolicy, Priority)


def _choice(kind: type[C], value: int, name: str) -> C:
    try:
        return kind(value)
    except ValueError:
        allowed = ", ".join(f"{choice.value} ({choice.name})" for choice in kind)
        raise VlmError(ErrorCode.BAD_REQUEST, f"options.{name} is {value}, it must be one of {allowed}") from None

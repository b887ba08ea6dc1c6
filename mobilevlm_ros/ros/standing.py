"""Standing queries: questions that the node asks a camera's pictures by itself, again and again, while it is active.

One thread looks whose turn it is and whether the picture has changed; a few others wait for the model. A query is never in line
twice: a turn that comes while the node is busy is lost and counted. Knows no topics or services; what is found out is handed on.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol

from mobilevlm_msgs.msg import Regions, RequestOptions, StandingAnswer

from mobilevlm_ros.ros.admission import Entrant
from mobilevlm_ros.ros.camera import Cameras, FramePolicy, Snapshot, Times
from mobilevlm_ros.ros.desk import Desk, Job, Task
from mobilevlm_ros.ros.messages import Outcome
from mobilevlm_ros.ros.parameters import NodeOptions
from mobilevlm_ros.ros.standing_change import Finding
from mobilevlm_ros.ros.standing_messages import result_message
from mobilevlm_ros.ros.standing_query import MOST_QUERIES, Kind, Publish, StandingQuery, short
from mobilevlm_ros.ros.standing_watch import Counts, Due, Moment, Watch
from mobilevlm_ros.runtime.engine import as_vlm_error
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.tasks import change_gate
from mobilevlm_ros.tasks.change_gate import Sight
from mobilevlm_ros.tasks.ground import AS_EXPRESSED
from mobilevlm_ros.tasks.results import Result

TICK = 0.02
"""Seconds between two looks whose turn it is."""

_LOST = (ErrorCode.BUSY, ErrorCode.CANCELLED, ErrorCode.NOT_ACTIVE)
"""Ends of a turn that say that the node has other things to do."""


class Look(Protocol):
    """One grounding's way to its positions (see `space.py`)."""

    def at(self, snapshot: Snapshot) -> Snapshot: ...

    def place(self, regions: Regions) -> None: ...


@dataclass(frozen=True)
class Around:
    """What standing queries need of the node.

    Attributes:
        options: the node's parameters, as they are now.
        clock: the time on the node's clock.
        model: the name of the model that answers now.
        publish: hands an answer on.
        look: what gives the regions of a camera's grounding their positions.
        warn: puts a line into the log, one for many with the same cause.
        inform: puts a line into the log.
    """

    desk: Desk
    cameras: Cameras
    options: Callable[[], NodeOptions]
    clock: Callable[[], Times]
    model: Callable[[], str]
    publish: Callable[[StandingAnswer], None]
    look: Callable[[str], Look]
    warn: Callable[[Hashable, str], object]
    inform: Callable[[str], object]


@dataclass(frozen=True)
class Standing:
    """A query as it stands: how its turns went, its last answer, and the trouble that lasts, empty for none."""

    query: StandingQuery
    counts: Counts
    last: StandingAnswer
    trouble: str


class StandingQueries:
    """Keeps the queries and asks them. Safe to use from any thread."""

    def __init__(self, around: Around) -> None:
        self._around = around
        self._changed = threading.Condition()
        self._kept = False
        self._watches: dict[str, Watch] = {}
        self._last: dict[str, StandingAnswer] = {}
        self._sights: dict[str, tuple[weakref.ref[Snapshot], Sight]] = {}  # used by the thread that looks alone
        self._holds: dict[str, ExitStack] = {}
        self._at_once = 1
        self._on_their_way = 0
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._open = False
        # For all activations, because the C library keeps freed memory for the thread that had asked for it. It starts a thread
        # only where none is idle, so `_at_once` bounds them.
        self._pool = ThreadPoolExecutor(MOST_QUERIES, "mobilevlm-standing")

    def keep(self, queries: Iterable[StandingQuery]) -> None:
        """From now on queries are kept: first these, in the place of all before."""
        with self._changed:
            self._watches = {query.name: Watch(query) for query in queries}
            self._last.clear()
            self._kept = True

    def forget(self) -> None:
        """Forgets all queries and keeps none until `keep`; call `close` before."""
        with self._changed:
            self._watches = {}
            self._last.clear()
            self._kept = False

    def add(self, query: StandingQuery) -> None:
        """Keeps one more query; its first turn is now.

        Raises:
            VlmError: BAD_REQUEST for a name that is taken or a camera that is not there, BUSY where there are MOST_QUERIES,
                NOT_ACTIVE while none are kept.
        """
        self._around.cameras.find(query.camera)
        with self._changed:
            if not self._kept:
                raise VlmError(ErrorCode.NOT_ACTIVE, "the node is not configured")
            if query.name in self._watches:
                raise VlmError(ErrorCode.BAD_REQUEST, f"there is a standing query '{query.name}' already: remove it first")
            if len(self._watches) >= MOST_QUERIES:
                raise VlmError(ErrorCode.BUSY, f"{MOST_QUERIES} standing queries are kept already")
            self._watches[query.name] = Watch(query)
            self._hold_cameras()
            self._changed.notify_all()

    def remove(self, name: str) -> None:
        """Forgets a query, and takes it back where it is being asked; raises VlmError(BAD_REQUEST) where there is none."""
        with self._changed:
            watch = self._watches.pop(name, None)
            if watch is None:
                known = ", ".join(self._watches) or "none"
                raise VlmError(ErrorCode.BAD_REQUEST, f"there is no standing query '{short(name)}'; there are: {known}")
            self._last.pop(name, None)
            if watch.running is not None:
                watch.running.cancel()
            self._hold_cameras()

    def overview(self) -> list[Standing]:
        """Returns how all stand, in the order in which they were added."""
        with self._changed:
            return [
                Standing(
                    watch.query,
                    Counts(**vars(watch.counts)),
                    self._last.get(name, StandingAnswer()),
                    watch.trouble.message if watch.trouble else "",
                )
                for name, watch in self._watches.items()
            ]

    def open(self, rows: int) -> None:
        """Begins to ask. `rows`: requests that the model answers together; one of several is left free."""
        with self._changed:
            for watch in self._watches.values():
                watch.reset()
            self._at_once = max(1, rows - 1)
            self._stop = threading.Event()
            self._open = True
            self._thread = threading.Thread(target=self._work, args=(self._stop,), name="mobilevlm-turns", daemon=True)
            self._thread.start()
            self._hold_cameras()

    def pause(self) -> None:
        """Lets no more turns begin; those on their way end as soon as their requests do."""
        with self._changed:
            thread, self._thread = self._thread, None
            self._stop.set()
            self._changed.notify_all()
        if thread is not None:
            thread.join()

    def close(self, timeout: float) -> None:
        """Stops to ask, and waits up to `timeout` seconds for the turns on their way: take their requests back before."""
        self.pause()
        with self._changed:
            self._open = False
            self._hold_cameras()
            self._changed.wait_for(lambda: not self._on_their_way, timeout)

    def _hold_cameras(self) -> None:
        """Keeps exactly the cameras of the queries listened to, while they are asked. With the lock held."""
        cameras = self._around.cameras
        wanted = {cameras.find(watch.query.camera).name for watch in self._watches.values()} if self._open else set()
        for name in set(self._holds) - wanted:
            self._holds.pop(name).close()
        for name in wanted - set(self._holds):
            self._holds[name] = ExitStack()
            self._holds[name].enter_context(cameras.find(name).demand.hold())

    def _work(self, stop: threading.Event) -> None:
        while not stop.wait(TICK):
            with self._changed:
                self._changed.wait_for(lambda: self._watches or stop.is_set())
                watches = list(self._watches.values())
            for watch in sorted(watches, key=lambda watch: watch.turn.now_ns if watch.turn else 0):
                if not stop.is_set():
                    self._visit(watch)

    def _visit(self, watch: Watch) -> None:
        """Gives a query its turn if it is due and can be asked now."""
        slot = self._around.cameras.find(watch.query.camera)
        now = Moment(self._around.clock().now_ns, slot.received)
        with self._changed:
            due = watch.due(now)
            if due is Due.NO:
                return
            if due is Due.TURN and watch.running is not None:
                watch.take_turn(now)
                watch.counts.busy += 1
                return
            if self._on_their_way >= self._at_once:
                return  # it stays due, and goes first when there is room
            if due is Due.TURN:
                watch.take_turn(now)
            else:
                watch.looked()
        places = self._around.look(watch.query.camera)
        try:
            snapshot = slot.take_newest(self._around.options().max_image_age)
            if due is Due.TURN:
                self._ask_if_changed(_Turn(watch, snapshot, self._see(snapshot), now, places))
        except Exception as error:  # noqa: BLE001 - whatever it is, the other queries have their turns
            self._fail(watch, as_vlm_error(error), now)

    def _see(self, snapshot: Snapshot) -> Sight:
        """The picture as the gate sees it, worked out once for all queries."""
        known = self._sights.get(snapshot.camera)
        if known is None or known[0]() is not snapshot:
            known = self._sights[snapshot.camera] = (weakref.ref(snapshot), change_gate.look(snapshot.frame))
        return known[1]

    def _ask_if_changed(self, turn: _Turn) -> None:
        model, min_change = self._around.model(), self._around.options().standing_min_change
        watch = turn.watch
        with self._changed:
            if not watch.wants(turn.sight, turn.now.now_ns, model, min_change):
                watch.counts.unchanged += 1
            elif self._open and self._watches.get(turn.query.name) is watch:
                job = Job(entrant=Entrant.STANDING, report=_unreported, same=turn.snapshot)
                watch.running = job.cancel
                self._on_their_way += 1
                self._pool.submit(self._ask, turn, job)

    def _ask(self, turn: _Turn, job: Job) -> None:
        """Asks one query about one picture, in a thread of the pool."""
        try:
            self._take(turn, self._around.desk.serve(_options(turn.query), _task(turn), job))
        except Exception as error:  # noqa: BLE001 - likewise
            self._fail(turn.watch, as_vlm_error(error), turn.now)
        finally:
            with self._changed:
                turn.watch.running = None
                self._on_their_way -= 1
                self._changed.notify_all()

    def _take(self, turn: _Turn, outcome: Outcome[Result]) -> None:
        """Notes how a turn ended, and tells what is to be told."""
        if outcome.error in _LOST:
            with self._changed:
                turn.watch.lost(turn.now.now_ns)
        elif outcome.result is None or outcome.error not in (ErrorCode.NONE, ErrorCode.NO_GROUNDING):
            self._fail(turn.watch, VlmError(outcome.error, outcome.error_msg), turn.now)
        else:
            message = result_message(turn.query, outcome)
            turn.places.place(message.regions)
            self._answer(turn, message, Finding.of(outcome.result), outcome.source.model)

    def _answer(self, turn: _Turn, message: StandingAnswer, finding: Finding, model: str) -> None:
        watch, name = turn.watch, turn.query.name
        message.value = finding.value
        with self._changed:
            before, trouble = watch.answered(finding, turn.sight, turn.now.now_ns, model)
            watch.counts.latency_ms = (time.monotonic() - turn.began) * 1e3
            message.previous = before.value if before else ""
            message.changed = watch.finding is not before
            is_kept = self._watches.get(name) is watch
            if is_kept:
                self._last[name] = message
        recovered = trouble is not None and trouble.told is not None
        if recovered:
            self._around.inform(f"the standing query '{name}' is answered again")
        if is_kept and (message.changed or recovered or turn.query.publish is Publish.ALWAYS):
            self._around.publish(message)

    def _fail(self, watch: Watch, error: VlmError, now: Moment) -> None:
        with self._changed:
            tell = watch.failed(error, now.now_ns) and self._watches.get(watch.query.name) is watch
            value = watch.finding.value if watch.finding else ""
        if tell:
            cause = ("standing query", watch.query.camera, error.code)
            self._around.warn(cause, f"the standing query '{watch.query.name}' ends with {error.code.name}: {error.message}")
            message = StandingAnswer(name=watch.query.name, previous=value, error_code=int(error.code), error_msg=error.message)
            self._around.publish(message)


@dataclass(frozen=True)
class _Turn:
    """A query whose turn it is: its picture, how the gate sees it, when it began, and the way to regions' positions."""

    watch: Watch
    snapshot: Snapshot
    sight: Sight
    now: Moment
    places: Look
    began: float = field(default_factory=time.monotonic)

    @property
    def query(self) -> StandingQuery:
        return self.watch.query


def _unreported(outcome: Outcome[Result]) -> None:
    """The counts of a query's turns tell of them."""


def _options(query: StandingQuery) -> RequestOptions:
    return RequestOptions(
        camera=query.camera,
        frame_policy=int(FramePolicy.SAME),
        priority=RequestOptions.PRIORITY_LOW,
        max_tokens=query.max_tokens,
        temperature=0.0,  # a draw would change the answer where nothing else did
    )


def _task(turn: _Turn) -> Task[Result]:
    query, places = turn.query, turn.places
    if query.kind is Kind.GROUND:
        return lambda model, snapshot, settings: model.ground(places.at(snapshot).frame, query.text, settings, AS_EXPRESSED)
    if query.labels:
        return lambda model, snapshot, settings: model.classify(snapshot.frame, query.text, query.labels, settings)
    return lambda model, snapshot, settings: model.ask(snapshot.frame, query.text, settings)

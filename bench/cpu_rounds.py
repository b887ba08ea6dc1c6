"""Takes the measurements of `bench.cpu`: engine by engine in turn, round after round, so that a machine whose speed drifts slows
all of them alike.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.cpu_process import EngineProcess, Memory
from bench.cpu_stages import Stage
from mobilevlm_ros.bench.bandwidth import MemoryReader

OURS = "ours"
OURS_INT8_PREFILL = "ours-int8-prefill"
"""The same package with its decoder for prompts."""
_OFFICIAL = "torch"
_IN_TURN = (
    (Stage.ENCODE,),
    (Stage.PREFILL,),
    (Stage.DECODE,),
    (Stage.FIRST_QUESTION, Stage.FOLLOW_UP),
    (Stage.FOUR_AT_ONCE,),
)
"""What an engine does before it is the next one's turn; a follow-up belongs to the question before it."""
_NOT_OFFICIAL = (Stage.FOLLOW_UP, Stage.FOUR_AT_ONCE)
_REST_SECONDS = 0.3
"""Before each measurement: threads that wait for more work by spinning have gone to sleep by then."""

Told = Callable[[str], None]
Times = Mapping[tuple[str, Stage], list[float]]
"""Milliseconds by engine and stage, in the order of the rounds."""


@dataclass(frozen=True)
class Group:
    """Engines that are held in memory together and take turns, and how many rounds they go."""

    engines: tuple[str, ...]
    rounds: int


@dataclass(frozen=True)
class Plan:
    """What is measured: groups of engines, and how often each engine is started afresh."""

    groups: tuple[Group, ...]
    starts: int
    threads: int
    work: Path

    @property
    def steps(self) -> int:
        """How many times `take` tells of its progress."""
        engines = {engine for group in self.groups for engine in group.engines}
        rounds = sum((group.rounds + 1) * len(stages_of(engine)) for group in self.groups for engine in group.engines)
        return len(engines) * self.starts + rounds


@dataclass(frozen=True)
class Start:
    """A fresh process that loaded an engine and answered a question, a follow-up and four at once, its files in memory already.

    Attributes:
        load_ms: loading alone, Python's start and imports left out.
        ready_s: from the process's start until it could be asked.
        answered_s: from there to the end of its first answer too.
        one_at_a_time: the most memory that it had before the four at once.
        memory: the most that it had.
    """

    load_ms: float
    ready_s: float
    answered_s: float
    one_at_a_time: Memory
    memory: Memory


@dataclass(frozen=True)
class Measured:
    """What was measured of a group.

    Attributes:
        times: by engine and stage.
        bytes_per_token: by engine, as in `Subject`.
        idle_share: by engine, processor time taken while there was nothing to do, as a share of that time.
        bandwidth: gigabytes a second that the memory gave, round by round.
    """

    times: Times
    bytes_per_token: Mapping[str, int]
    idle_share: Mapping[str, float]
    bandwidth: tuple[float, ...]

    def median(self, engine: str, stage: Stage) -> float | None:
        """Milliseconds; None for what the engine does not do."""
        found = self.times.get((engine, stage))
        return statistics.median(found) if found else None


def take(plan: Plan, reader: MemoryReader, told: Told) -> tuple[Mapping[str, list[Start]], list[Measured]]:
    """Measure; returns the fresh starts by engine, and what was measured of each group.

    Raises:
        BenchError: an engine does not load, or died.
    """
    seeds = itertools.count()
    starts: dict[str, list[Start]] = {engine: [] for group in plan.groups for engine in group.engines}
    for _ in range(plan.starts):
        for engine, found in starts.items():
            told(f"{engine}: start")
            found.append(_start(engine, plan, seeds))
    return starts, [_take_group(group, plan, reader, seeds, told) for group in plan.groups]


def stages_of(engine: str) -> tuple[Stage, ...]:
    """What an engine does."""
    official = engine.startswith(_OFFICIAL)
    return tuple(stage for stage in Stage if not (official and stage in _NOT_OFFICIAL))


def _take_group(group: Group, plan: Plan, reader: MemoryReader, seeds: Iterator[int], told: Told) -> Measured:
    times: dict[tuple[str, Stage], list[float]] = {}
    bandwidth = []
    with ExitStack() as stack:
        processes = [stack.enter_context(EngineProcess(engine, plan.work, plan.threads)) for engine in group.engines]
        for number in range(group.rounds + 1):
            first = number % len(processes)
            found = _round(processes[first:] + processes[:first], seeds, told)
            speed = reader.read()
            if number > 0:  # the round before warms up
                bandwidth.append(speed)
                for key, spent in found.items():
                    times.setdefault(key, []).append(spent)
        idle = {process.engine: _idle_share(process) for process in processes}
    return Measured(times, {process.engine: process.bytes_per_token for process in processes}, idle, tuple(bandwidth))


def _round(processes: list[EngineProcess], seeds: Iterator[int], told: Told) -> dict[tuple[str, Stage], float]:
    """Each stage of each engine once."""
    times = {}
    for stages in _IN_TURN:
        for process in processes:
            seed = next(seeds)
            for stage in stages:
                if stage in stages_of(process.engine):
                    told(f"{process.engine}: {stage.value}")
                    time.sleep(_REST_SECONDS)
                    times[process.engine, stage] = process.run(stage, seed)
    return times


def _start(engine: str, plan: Plan, seeds: Iterator[int]) -> Start:
    with EngineProcess(engine, plan.work, plan.threads) as process:
        ready = process.since_start
        before = process.memory
        for stages in _IN_TURN[3:]:
            seed = next(seeds)
            for stage in stages:
                if stage in stages_of(engine):
                    process.run(stage, seed)
                if stage is Stage.FIRST_QUESTION:
                    answered = process.since_start
                if stage is not Stage.FOUR_AT_ONCE:
                    before = process.memory
        return Start(process.load_ms, ready, answered, before, process.memory)


def _idle_share(process: EngineProcess) -> float:
    time.sleep(_REST_SECONDS)
    before, start = process.processor_seconds(), time.perf_counter()
    time.sleep(1.0)
    return (process.processor_seconds() - before) / (time.perf_counter() - start)

"""Times the stages of a model package on this machine, through the engine as every caller uses it.

Each run shows a picture never seen before, so that nothing of it is kept from earlier; the pictures are noise, because how fast
a model answers does not depend on what it sees. Answers have a fixed length.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobilevlm_ros.bench.bandwidth import MemoryReader
from mobilevlm_ros.bench.unending import Unending
from mobilevlm_ros.machine import physical_cores, read_machine
from mobilevlm_ros.runtime.engine import Engine, EngineConfig
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.manifest import Manifest
from mobilevlm_ros.runtime.package import ModelPackage
from mobilevlm_ros.runtime.prompt import PromptBuilder
from mobilevlm_ros.runtime.requests import Generated, Generation, Limits
from mobilevlm_ros.runtime.sampling import SamplingParams

AT_ONCE = 4
_READS = 3
ANSWER_TOKENS = 20
PICTURE_SIZE = (640, 480)
QUESTIONS = (
    "What is next to the robot?",
    "Where can the robot go now?",
    "How many red cubes are there to the left of the bowl?",
    "Is there a bowl to the left of the red cube on the table?",
)
"""As many as are asked at once. The tokenizer of the model that ships makes equally many tokens of each."""
FOLLOW_UP = "Is the way free?"
_CONTEXT = 512
"""Enough for the prompts; a longer context would only reserve memory."""


@dataclass(frozen=True)
class BenchOptions:
    """How it is measured.

    Attributes:
        threads: processor threads; 0 takes one per physical core.
        runs: measured times of every stage but loading, 1 or more.
        warm_up: unmeasured times before, 0 or more.

    Raises:
        VlmError: BAD_REQUEST if a value is out of its range.
    """

    threads: int = 0
    runs: int = 5
    warm_up: int = 1

    def __post_init__(self) -> None:
        if self.runs < 1 or self.warm_up < 0:
            raise VlmError(ErrorCode.BAD_REQUEST, "--runs must be at least 1 and --warm-up at least 0")


@dataclass(frozen=True)
class Stage:
    """What was measured of a stage; `name` ends in its unit."""

    name: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle of the measured values."""
        return statistics.median(self.values)


@dataclass(frozen=True)
class Measurement:
    """A package's figures.

    Attributes:
        prompt_tokens: length of the first question's prompt, the picture's tokens included.
        kept_tokens: how many of them stand before the picture and are computed once for all prompts.
        weight_bytes: the decoder's weights, which each decoded token reads.
        bandwidth: gigabytes (10^9) a second that the machine's memory gave to as many threads, right after the runs.
    """

    manifest: Manifest
    backend: str
    prompt_tokens: int
    kept_tokens: int
    weight_bytes: int
    bandwidth: float
    stages: tuple[Stage, ...]

    def median(self, name: str) -> float:
        """The median of the stage with that name."""
        return next(stage.median for stage in self.stages if stage.name == name)

    @property
    def bandwidth_share(self) -> float:
        """What decoding reads of weights, as a share of what the memory gives; a model that fits the caches can be above 1."""
        return self.weight_bytes / 1e9 * self.median("decode_tokens_per_s") / self.bandwidth


def measure(package: Path, options: BenchOptions, on_step: Callable[[str], None] = lambda step: None) -> Measurement:
    """Load a package and time it.

    Args:
        on_step: told the name of each step before it is done; there are `steps(options)`.

    Raises:
        PackageError: the package cannot be loaded.
        VlmError: whatever a request can raise.
    """
    on_step("load")
    start = time.perf_counter()
    config = EngineConfig(threads=options.threads, rows=AT_ONCE, context_length=_CONTEXT, queue_size=AT_ONCE)
    with Engine.open(package, config) as engine:
        load_ms = _since(start)
        rounds = [_round(engine, number, on_step) for number in range(options.warm_up + options.runs)][options.warm_up :]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        manifest, backend = engine.manifest, engine.backend_name
        kept = len(PromptBuilder(manifest.prompt, manifest.tokens, engine.tokenizer).build(FOLLOW_UP).head)
    on_step("memory")
    stages = (
        Stage("load_ms", (load_ms,)),
        Stage("encode_ms", tuple(one.first.timing.encode_ms for one in rounds)),
        Stage("prefill_ms", tuple(one.first.timing.prefill_ms for one in rounds)),
        Stage("prefill_tokens_per_s", tuple(_prefill_rate(one.first, kept) for one in rounds)),
        Stage("decode_tokens_per_s", tuple(_decode_rate(one.first) for one in rounds)),
        Stage("first_question_ms", tuple(one.first_ms for one in rounds)),
        Stage("follow_up_ms", tuple(one.follow_up_ms for one in rounds)),
        Stage("four_at_once_ms", tuple(one.at_once_ms for one in rounds)),
        Stage("peak_memory_mib", (peak,)),
    )
    prompt = rounds[0].first.prompt_tokens
    return Measurement(manifest, backend, prompt, kept, _weight_bytes(package), _bandwidth(options.threads), stages)


def steps(options: BenchOptions) -> int:
    """How many steps `measure` takes."""
    return 2 + 3 * (options.warm_up + options.runs)


@dataclass(frozen=True)
class _Round:
    """One time through all stages: the first question's answer, and milliseconds until answers were whole."""

    first: Generated
    first_ms: float
    follow_up_ms: float
    at_once_ms: float


def _round(engine: Engine, number: int, on_step: Callable[[str], None]) -> _Round:
    asked, shared = _noise(2 * number), _noise(2 * number + 1)
    on_step("first question")
    start = time.perf_counter()
    first = _ask(engine, asked, QUESTIONS[0]).result()
    first_ms = _since(start)
    on_step("follow-up question")
    start = time.perf_counter()
    _ask(engine, asked, FOLLOW_UP).result()
    follow_up_ms = _since(start)
    on_step("four at once")
    start = time.perf_counter()
    for generation in [_ask(engine, shared, question) for question in QUESTIONS]:
        generation.result()
    return _Round(first, first_ms, follow_up_ms, _since(start))


def _ask(engine: Engine, frame: Frame, question: str) -> Generation:
    sampling = SamplingParams(ANSWER_TOKENS, temperature=0.0)
    return engine.generate(engine.picture(frame), question, sampling, Limits(), constraint=Unending(engine.manifest))


def _decode_rate(answer: Generated) -> float:
    """Tokens a second after the first, which prefill gives."""
    return (len(answer.tokens) - 1) / (answer.timing.decode_ms / 1e3)


def _prefill_rate(answer: Generated, kept: int) -> float:
    """Tokens a second, of those that were computed for this prompt."""
    return (answer.prompt_tokens - kept) / (answer.timing.prefill_ms / 1e3)


def _bandwidth(threads: int) -> float:
    reader = MemoryReader(threads or physical_cores(), read_machine().available)
    return statistics.median(reader.read() for _ in range(_READS))


def _weight_bytes(package: Path) -> int:
    files = ModelPackage.open_unverified(package).decoder("cpu")
    shared = (files.weights_folder / f"{files.graph.name}.data").stat().st_size
    return shared + (0 if files.own_weights is None else files.own_weights.stat().st_size)


def _noise(seed: int) -> Frame:
    width, height = PICTURE_SIZE
    return Frame(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def _since(start: float) -> float:
    return (time.perf_counter() - start) * 1e3

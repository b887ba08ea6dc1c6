"""The engine: one thread that owns the model and serves every request.

Requests wait in a bounded line; as rows of the KV cache get free they are prefilled, and all that run decode as one batch,
joining and leaving between tokens. A picture is encoded once however many ask about it. Knows pictures, prompts and tokens;
knows no tasks, no ROS and no backend's insides.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from weakref import WeakKeyDictionary

from mobilevlm_ros.runtime.backend import Backend
from mobilevlm_ros.runtime.constraint import Constraint, ConstraintCompiler
from mobilevlm_ros.runtime.errors import BackendError, ErrorCode, VlmError
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.geometry import letterbox
from mobilevlm_ros.runtime.kv_cache import KVCache, PrefixCache
from mobilevlm_ros.runtime.manifest import Manifest
from mobilevlm_ros.runtime.ort_backend import OrtBackend
from mobilevlm_ros.runtime.package import ModelPackage
from mobilevlm_ros.runtime.prefill import Prefiller
from mobilevlm_ros.runtime.prompt import Prompt, PromptBuilder, Turn
from mobilevlm_ros.runtime.requests import FinishReason, Generation, Limits, Picture, Scoring
from mobilevlm_ros.runtime.running import GenerateJob, Job, ScoreJob
from mobilevlm_ros.runtime.sampling import SamplingParams
from mobilevlm_ros.runtime.tokenizer import Tokenizer
from mobilevlm_ros.runtime.waiting_line import WaitingLine


@dataclass(frozen=True)
class EngineConfig:
    """How a model is run.

    Attributes:
        threads: processor threads for the model; 0 takes one per physical core.
        rows: requests that decode at once, 1 to 32.
        context_length: longest prompt and answer together, in tokens; the model's own limit holds too. 0 means 2048.
        queue_size: requests that may wait, 1 to 1024; one more is refused with BUSY.
        prefix_cache_mb: memory for the keys and values of recent pictures, in MiB; 0 keeps none.

    Raises:
        VlmError: BAD_REQUEST if a value is out of its range.
    """

    threads: int = 0
    rows: int = 4
    context_length: int = 0
    queue_size: int = 8
    prefix_cache_mb: int = 256

    def __post_init__(self) -> None:
        ranges = {
            "threads": (self.threads, 0, 1024),
            "rows": (self.rows, 1, 32),
            "context_length": (self.context_length, 0, 1 << 20),
            "queue_size": (self.queue_size, 1, 1024),
            "prefix_cache_mb": (self.prefix_cache_mb, 0, 1 << 20),
        }
        for name, (value, low, high) in ranges.items():
            if not low <= value <= high:
                raise VlmError(ErrorCode.BAD_REQUEST, f"{name} is {value}, it must be {low} to {high}")


DEFAULT_CONTEXT = 2048


@dataclass(frozen=True)
class EngineStats:
    """What the engine is doing: requests that wait and run, and bytes of kept prefixes."""

    waiting: int
    running: int
    prefix_cache_bytes: int


class Engine:
    """Serves requests about pictures with one model. Safe to use from any thread; a context manager."""

    def __init__(self, manifest: Manifest, tokenizer: Tokenizer, backend: Backend, config: EngineConfig) -> None:
        """Serve with a backend that is loaded already; most callers want `Engine.open`."""
        self.manifest = manifest
        self.tokenizer = tokenizer
        self._backend = backend
        self._prompts = PromptBuilder(manifest.prompt, manifest.tokens, tokenizer)
        self._constraints = ConstraintCompiler(tokenizer, manifest.tokens, manifest.decoder.vocab_size)
        longest = manifest.decoder.max_positions
        self.context_length = min(config.context_length or DEFAULT_CONTEXT, longest)
        self._line: WaitingLine[Job] = WaitingLine(config.queue_size)
        self._cache: KVCache = backend.new_cache(config.rows, self.context_length)
        self._prefixes = PrefixCache(config.prefix_cache_mb << 20)
        self._prefiller = Prefiller(backend, self._cache, self._prefixes)
        self._running: dict[int, GenerateJob] = {}
        self._pictures: WeakKeyDictionary[Frame, Picture] = WeakKeyDictionary()
        self._thread = threading.Thread(target=self._serve, name="mobilevlm-engine", daemon=True)
        self._thread.start()

    @staticmethod
    def open(package: str | Path, config: EngineConfig | None = None) -> Engine:
        """Verify and load a model package.

        Raises:
            PackageError: the package is missing or damaged, or a graph does not load.
        """
        config = config or EngineConfig()
        opened = ModelPackage.open(package)
        tokenizer = Tokenizer(opened.tokenizer)
        return Engine(opened.manifest, tokenizer, OrtBackend(opened, config.threads), config)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def backend_name(self) -> str:
        """Which backend runs the model."""
        return self._backend.name

    @property
    def constraints(self) -> ConstraintCompiler:
        """Makes forms for answers."""
        return self._constraints

    def stats(self) -> EngineStats:
        """A snapshot for diagnostics."""
        return EngineStats(len(self._line), len(self._running), self._prefixes.nbytes)

    def picture(self, frame: Frame) -> Picture:
        """Letterbox a frame in the calling thread, so that the engine's thread need not; once for each frame."""
        known = self._pictures.get(frame)
        if known is None:
            vision = self.manifest.vision
            pixels = letterbox(frame, vision.image_size, vision.pad_color)
            known = Picture(pixels, hashlib.blake2b(pixels.tobytes(), digest_size=16).digest())
            self._pictures[frame] = known
        return known

    def generate(
        self,
        picture: Picture,
        question: str,
        sampling: SamplingParams,
        limits: Limits,
        history: Sequence[Turn] = (),
        constraint: Constraint | None = None,
    ) -> Generation:
        """Start an answer.

        Args:
            history: earlier turns about the same picture.
            constraint: a form that the answer must have, from `constraints`; used up by this answer.

        Raises:
            VlmError: BAD_REQUEST, PROMPT_TOO_LONG, BUSY or NOT_ACTIVE; nothing was started.
        """
        prompt = self._prompt(question, history, room=1)
        job = GenerateJob(picture, prompt, limits, sampling, constraint, self.manifest.tokens.eos, self.context_length)
        self._line.put(job)
        return job.generation

    def score(self, picture: Picture, question: str, options: Sequence[str], limits: Limits) -> Scoring:
        """Start to score texts as whole answers to a question.

        Raises:
            VlmError: as for `generate`.
        """
        eos = self.manifest.tokens.eos
        answers = tuple((*self.tokenizer.encode(option), eos) for option in options)
        prompt = self._prompt(question, (), room=max(map(len, answers)))
        job = ScoreJob(picture, prompt, limits, answers)
        self._line.put(job)
        return job.scoring

    def close(self) -> None:
        """End every request with CANCELLED and free the model. May be called more than once."""
        if self._line.closed:
            return
        for job in self._line.close():
            job.fail(VlmError(ErrorCode.CANCELLED, "the model was unloaded"))
        self._thread.join()
        self._backend.close()

    def _prompt(self, question: str, history: Sequence[Turn], room: int) -> Prompt:
        prompt = self._prompts.build(question, history)
        visual = self.manifest.vision.tokens
        length = len(prompt.head) + visual + len(prompt.tail)
        if length + room > self.context_length:
            raise VlmError(
                ErrorCode.PROMPT_TOO_LONG,
                f"the prompt has {length} tokens, {visual} of them the picture's; the context of {self.context_length} "
                f"leaves room for {self.context_length - room}",
            )
        return prompt

    def _serve(self) -> None:
        while self._running or self._line.wait():
            if self._line.closed:
                break
            for job in self._line.take_ended():
                job.end_unstarted()
            if len(self._running) < self._cache.rows:
                self._admit()
            self._decode()
        for job in self._running.values():
            job.end(FinishReason.CANCELLED)
        self._running.clear()

    def _admit(self) -> None:
        """Prefill one waiting request; one a turn, so that running answers keep flowing."""
        job = self._line.take()
        if job is None:
            return
        if job.limits.ended():
            job.end_unstarted()
            return
        row = next(row for row in range(self._cache.rows) if row not in self._running)
        try:
            job.start(self._prefiller, row)
        except Exception as error:  # noqa: BLE001 - whatever a backend raises ends this request, not the engine
            job.fail(as_vlm_error(error))
            return
        if isinstance(job, GenerateJob) and not job.done:
            self._running[row] = job

    def _decode(self) -> None:
        """One more choice for every running request."""
        self._leave_ended()
        for row, job in self._running.items():
            if len(job.pending) > 1:
                self._take_in_forced(row, job)
        self._leave_ended()
        if not self._running:
            return
        pad = self.manifest.tokens.pad
        tokens = [pad] * (max(self._running) + 1)
        for row in range(len(tokens)):
            if row in self._running:
                tokens[row] = self._running[row].pending[-1]
            else:
                self._cache.lengths[row] = 0  # a free row between busy ones computes along, unheeded
        try:
            logits = self._backend.decode(self._cache, tokens)
        except Exception as error:  # noqa: BLE001 - likewise
            for job in self._running.values():
                job.fail(as_vlm_error(error))
            self._running.clear()
            return
        for row, job in self._running.items():
            job.advance(logits[row])
        self._leave_ended()

    def _take_in_forced(self, row: int, job: GenerateJob) -> None:
        """Bring all pending tokens but the last into the cache at once; the last goes with the batch."""
        *forced, last = job.pending
        try:
            self._backend.prefill(self._cache, row, self._backend.embed(forced), [len(forced) - 1])
        except Exception as error:  # noqa: BLE001 - likewise
            job.fail(as_vlm_error(error))
        job.pending = [last]

    def _leave_ended(self) -> None:
        for job in self._running.values():
            job.check_limits()
        self._running = {row: job for row, job in self._running.items() if not job.done}


def as_vlm_error(error: Exception) -> VlmError:
    """Give any exception of a model run its code."""
    if isinstance(error, VlmError):
        return error
    if isinstance(error, MemoryError):
        return BackendError("no memory left for the request", ErrorCode.OUT_OF_MEMORY)
    return BackendError(f"{type(error).__name__}: {error}")

"""The engine: one thread that owns the model and serves every request.

Requests wait in a bounded line; as rows of the KV cache get free they are prefilled, and all that run decode as one batch,
joining and leaving between tokens. A picture is encoded once however many ask about it. Knows pictures, prompts and tokens;
knows no tasks, no ROS and no backend's insides.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from weakref import WeakKeyDictionary

import numpy as np

from mobilevlm_ros.runtime.backend import Backend
from mobilevlm_ros.runtime.backends import Report, open_backend
from mobilevlm_ros.runtime.constraint import Constraint, ConstraintCompiler
from mobilevlm_ros.runtime.engine_config import EngineConfig as EngineConfig
from mobilevlm_ros.runtime.errors import BackendError, BackendLostError, ErrorCode, VlmError
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.geometry import letterbox
from mobilevlm_ros.runtime.kv_cache import Cache, PrefixCache
from mobilevlm_ros.runtime.manifest import Manifest
from mobilevlm_ros.runtime.package import ModelPackage
from mobilevlm_ros.runtime.prefill import Prefiller
from mobilevlm_ros.runtime.processors import parse_processors, pin
from mobilevlm_ros.runtime.prompt import Prompt, PromptBuilder, Turn
from mobilevlm_ros.runtime.requests import Cost, FinishReason, Generation, Limits, Picture, Scoring
from mobilevlm_ros.runtime.running import GenerateJob, Job, ScoreJob, WarmUpJob
from mobilevlm_ros.runtime.sampling import SamplingParams
from mobilevlm_ros.runtime.tokenizer import Tokenizer
from mobilevlm_ros.runtime.waiting_line import WaitingLine


@dataclass(frozen=True)
class EngineStats:
    """What the engine is doing.

    Attributes:
        waiting, running: requests.
        prefix_cache_bytes: memory that kept prefixes take.
        busy: whether the engine's thread has work.
        steps: parts of its work that it has finished since it was made. While it is busy, these grow, or it hangs.
        lost: why the backend cannot go on in this process; empty where it can.
    """

    waiting: int
    running: int
    prefix_cache_bytes: int
    busy: bool = False
    steps: int = 0
    lost: str = ""


class Engine:
    """Serves requests about pictures with one model. Safe to use from any thread; a context manager."""

    def __init__(self, manifest: Manifest, tokenizer: Tokenizer, backend: Backend, config: EngineConfig) -> None:
        """Serve with a backend that is loaded already; most callers want `Engine.open`."""
        self.manifest = manifest
        self.tokenizer = tokenizer
        self._backend = backend
        self._prompts = PromptBuilder(manifest.prompt, manifest.tokens, tokenizer)
        self._constraints = ConstraintCompiler(tokenizer, manifest.tokens, manifest.decoder.vocab_size)
        self.context_length = config.context_for(manifest.decoder.max_positions)
        self._line: WaitingLine[Job] = WaitingLine(config.queue_size)
        self._cache: Cache = backend.new_cache(config.rows, self.context_length)
        self._prefixes = PrefixCache(config.prefix_cache_mb << 20)
        self._prefiller = Prefiller(backend, self._cache, self._prefixes)
        self._running: dict[int, GenerateJob] = {}
        self._admitting: Job | None = None
        self._busy = False
        self._turns = 0
        self._lost = ""
        self._pictures: WeakKeyDictionary[Frame, Picture] = WeakKeyDictionary()
        processors = parse_processors(config.cpu_affinity)
        self._thread = threading.Thread(target=self._run, args=(processors,), name="mobilevlm-engine", daemon=True)
        self._thread.start()

    @staticmethod
    def open(package: str | Path, config: EngineConfig | None = None, report: Report = lambda line: None) -> Engine:
        """Verify and load a model package.

        Args:
            report: is told, line by line, what takes long.

        Raises:
            PackageError: the package is missing or damaged, or a graph does not load.
            BackendError: the backend that was chosen cannot be had, and no other was allowed.
        """
        config = config or EngineConfig()
        opened = ModelPackage.open(package)
        tokenizer = Tokenizer(opened.tokenizer)
        backend = open_backend(opened, config.backend_options(opened.manifest.decoder.max_positions), report)
        return Engine(opened.manifest, tokenizer, backend, config)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def backend_name(self) -> str:
        """Which backend runs the model."""
        return self._backend.name

    @property
    def notice(self) -> str:
        """What a user should know of how the model runs; empty where there is nothing."""
        return self._backend.notice

    @property
    def constraints(self) -> ConstraintCompiler:
        """Makes forms for answers."""
        return self._constraints

    def stats(self) -> EngineStats:
        """A snapshot for diagnostics."""
        steps = self._turns + self._prefiller.steps
        return EngineStats(len(self._line), len(self._running), self._prefixes.nbytes, self._busy, steps, self._lost)

    def picture(self, frame: Frame) -> Picture:
        """Letterbox a frame in the calling thread, so that the engine's thread need not; once for each frame."""
        known = self._pictures.get(frame)
        if known is None:
            vision = self.manifest.vision
            start = time.perf_counter()
            pixels = letterbox(frame, vision.image_size, vision.pad_color)
            digest = hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()
            known = Picture(pixels, digest, Cost((time.perf_counter() - start) * 1e3))
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
        room: int = 1,
        keep_turn: bool = False,
    ) -> Generation:
        """Start an answer.

        Args:
            history: earlier turns about the same picture.
            constraint: a form that the answer must have, from `constraints`; used up by this answer.
            room: tokens of the context that the prompt must leave to the answer, at least 1.
            keep_turn: keep what was computed for a next turn, whose history begins with this one's and this turn.

        Raises:
            VlmError: BAD_REQUEST, PROMPT_TOO_LONG, BUSY or NOT_ACTIVE; nothing was started.
        """
        prompt = self._prompt(question, history, room)
        eos = self.manifest.tokens.eos
        job = GenerateJob(picture, prompt, limits, sampling, constraint, eos, self.context_length, keep_turn)
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

    def warm_up(self) -> None:
        """Let the engine's thread compute in advance what else the first request would wait for. Returns at once."""
        size = self.manifest.vision.image_size
        blank = Picture(np.zeros((size, size, 3), np.uint8), b"", Cost(0.0))
        with suppress(VlmError):  # somebody asks already
            self._line.put(WarmUpJob(blank, self._prompts.build("?", ()), Limits()))

    def close(self) -> None:
        """End every request with CANCELLED and free the model. May be called more than once."""
        if self._line.closed:
            return
        for job in self._line.close():
            job.fail(VlmError(ErrorCode.CANCELLED, "the model was unloaded"))
        self._thread.join()
        self._backend.close()

    def give_up(self, error: VlmError) -> None:
        """End every request with `error` and take no more, although the engine's thread does not come back.

        A call into a backend cannot be ended from outside, so the thread and the model stay until the process ends.
        """
        waiting = self._line.close()
        for job in (*waiting, *list(self._running.values()), self._admitting):
            if job is not None:
                job.fail(error)

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

    def _run(self, processors: frozenset[int]) -> None:
        pin(processors)
        self._serve()

    def _serve(self) -> None:
        while self._work_came():
            if self._line.closed:
                break
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001 - a defect ends the requests that run, not the thread that serves the next
                self._fail_running(error)
            self._turns += 1
        for job in self._running.values():
            job.end(FinishReason.CANCELLED)
        self._running.clear()

    def _work_came(self) -> bool:
        """Wait for something to do; False once the engine is closed."""
        if self._running:
            return True
        self._busy = False
        came = self._line.wait()
        self._busy = True
        return came

    def _turn(self) -> None:
        for job in self._line.take_ended():
            job.end_unstarted()
        if len(self._running) < self._cache.rows:
            self._admit()
        self._decode()

    def _fail_running(self, error: Exception) -> None:
        for job in self._running.values():
            job.fail(as_vlm_error(error))
        self._running.clear()
        self._distrust(error)

    def _distrust(self, error: Exception) -> None:
        """Forget what was kept of earlier runs, where the model has failed: what it wrote last may be spoilt."""
        if isinstance(error, BackendLostError):
            self._lost = error.message
        if isinstance(as_vlm_error(error), BackendError):
            self._prefiller.forget()

    def _admit(self) -> None:
        """Prefill one waiting request; one a turn, so that running answers keep flowing."""
        job = self._line.take()
        if job is None:
            return
        if job.limits.ended():
            job.end_unstarted()
            return
        row = next(row for row in range(self._cache.rows) if row not in self._running)
        self._admitting = job
        try:
            job.start(self._prefiller, row)
        except Exception as error:  # noqa: BLE001 - whatever a backend raises ends this request, not the engine
            job.fail(as_vlm_error(error))
            self._distrust(error)
            return
        finally:
            self._admitting = None
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
            self._fail_running(error)
            return
        for row, job in self._running.items():
            try:
                job.advance(logits[row])
            except Exception as error:  # noqa: BLE001 - likewise
                job.fail(as_vlm_error(error))
                self._distrust(error)
        self._leave_ended()

    def _take_in_forced(self, row: int, job: GenerateJob) -> None:
        """Bring all pending tokens but the last into the cache at once; the last goes with the batch."""
        *forced, last = job.pending
        try:
            self._backend.prefill(self._cache, row, self._backend.embed(forced), [len(forced) - 1])
        except Exception as error:  # noqa: BLE001 - likewise
            job.fail(as_vlm_error(error))
            self._distrust(error)
        self._turns += 1
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

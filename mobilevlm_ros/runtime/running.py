"""A request on its way through the engine: waiting, started, one token after the other, ended.

Only the engine's thread calls these methods; the handles that clients hold stand in `requests.py`.
"""

from __future__ import annotations

import time
from contextlib import suppress

import numpy as np

from mobilevlm_ros.runtime.constraint import Constraint
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.prefill import Prefiller
from mobilevlm_ros.runtime.prefix_tree import groups, prefix_tree
from mobilevlm_ros.runtime.prompt import Prompt
from mobilevlm_ros.runtime.requests import FinishReason, Generated, Generation, Limits, Picture, Scored, Scoring, Timing
from mobilevlm_ros.runtime.sampling import Alternatives, Sampler, SamplingParams, likeliest, log_softmax

MOST_NODES = 64
"""Tokens of options that are read at once: enough to keep the processor busy, and soon over where the request is taken back."""


class Job:
    """What generating and scoring have in common."""

    def __init__(self, picture: Picture, prompt: Prompt, limits: Limits) -> None:
        self.picture = picture
        self.prompt = prompt
        self.limits = limits
        self._prepare_ms = picture.cost.claim()
        self._submitted = time.perf_counter()

    def start(self, prefiller: Prefiller, row: int) -> None:
        """Bring the prompt into `row` and go on as far as one prefill allows. Whatever it raises fails this request only."""
        raise NotImplementedError

    def fail(self, error: VlmError) -> None:
        """End with an error."""
        raise NotImplementedError

    def end_unstarted(self) -> None:
        """End because the limits were reached while the request waited."""
        self.fail(limit_error(self.limits.ended(), "before the request's turn came"))

    def _waited_ms(self) -> float:
        return (time.perf_counter() - self._submitted) * 1e3


class GenerateJob(Job):
    """An answer being made."""

    def __init__(
        self,
        picture: Picture,
        prompt: Prompt,
        limits: Limits,
        sampling: SamplingParams,
        constraint: Constraint | None,
        eos: int,
        context_length: int,
        keep_turn: bool = False,
    ) -> None:
        super().__init__(picture, prompt, limits)
        self.generation = Generation()
        self.done = False
        self.pending: list[int] = []
        """Tokens of the answer that the model has not taken in yet: the last chosen one and those that its form forced."""
        self._constraint = constraint
        self._sampler = Sampler(sampling)
        self._eos = eos
        self._max_tokens = sampling.max_tokens
        self._context_length = context_length
        self._keep_turn = keep_turn
        self._place: tuple[Prefiller, int] | None = None
        self._prompt_tokens = 0
        self._tokens: list[int] = []
        self._probabilities: list[float] = []
        self._keep = sampling.alternatives
        self._alternatives: list[Alternatives] = []
        self._first = np.empty(0)
        self._timing = Timing()
        self._decode_start = 0.0

    def start(self, prefiller: Prefiller, row: int) -> None:
        waited = self._waited_ms()
        filled = prefiller.fill(row, self.picture, self.prompt)
        self._place = prefiller, row
        self._prompt_tokens = filled.length
        self._timing = Timing(waited, self._prepare_ms + filled.encode_ms, filled.prefill_ms)
        self._max_tokens = min(self._max_tokens, self._context_length - filled.length)
        self._decode_start = time.perf_counter()
        self.advance(filled.logits)

    def advance(self, logits: np.ndarray) -> None:
        """Choose the next token from logits float32 [vocab]; ends the answer where it ends.

        Raises:
            BackendError: a logit is NaN or infinite.
        """
        allowed = self._constraint.allowed() if self._constraint else None
        choice = self._sampler.choose(logits, allowed)
        if not self._tokens:
            self._first = choice.log_probabilities
        if self._keep:
            self._alternatives.append(likeliest(choice.log_probabilities, allowed, self._keep, len(self._tokens)))
        if choice.token == self._eos:
            self.end(FinishReason.STOP)
            return
        self._probabilities.append(choice.probability)
        self.pending = [choice.token, *self._follow_form(choice.token)][: self._max_tokens - len(self._tokens)]
        for token in self.pending:
            self._tokens.append(token)
            self.generation.push(token)
        if self._constraint and self._constraint.finished:
            self.end(FinishReason.STOP)
        elif len(self._tokens) >= self._max_tokens:
            self.end(FinishReason.LENGTH)

    def _follow_form(self, chosen: int) -> list[int]:
        """The tokens that the answer's form forces after the chosen one."""
        if self._constraint is None:
            return []
        self._constraint.accept(chosen)
        forced = self._constraint.forced()
        for token in forced:
            self._constraint.accept(token)
        return forced

    def check_limits(self) -> None:
        """End if the request was taken back or its deadline passed."""
        reason = self.limits.ended()
        if reason is not None and not self.done:
            self.end(reason)

    def end(self, reason: FinishReason) -> None:
        """End with what was made so far."""
        decode_ms = (time.perf_counter() - self._decode_start) * 1e3
        timing = self._timing + Timing(decode_ms=decode_ms)
        self.done = True
        self.generation.finish(
            Generated(
                tuple(self._tokens),
                tuple(self._probabilities),
                self._first,
                reason,
                self._prompt_tokens,
                timing,
                tuple(self._alternatives),
            )
        )
        if self._keep_turn and self._place is not None:
            prefiller, row = self._place
            with suppress(VlmError):  # the answer is whole; only the next turn takes longer
                prefiller.keep_turn(row, self.picture, [*self.prompt.tail, *self._tokens])

    def fail(self, error: VlmError) -> None:
        self.done = True
        self.generation.finish(error)


class ScoreJob(Job):
    """Options being scored after one prompt. Done within one turn of the engine."""

    def __init__(self, picture: Picture, prompt: Prompt, limits: Limits, answers: tuple[tuple[int, ...], ...]) -> None:
        super().__init__(picture, prompt, limits)
        self.scoring = Scoring()
        self._answers = answers

    def start(self, prefiller: Prefiller, row: int) -> None:
        waited = self._waited_ms()
        filled = prefiller.fill(row, self.picture, self.prompt)
        start = time.perf_counter()
        scores: list[float] = []
        for answers in groups(self._answers, min(MOST_NODES, prefiller.room(filled))):
            if reason := self.limits.ended():
                raise limit_error(reason, "while options were scored")
            tree = prefix_tree(answers)
            chosen = log_softmax(prefiller.tree_logits(filled, tree))
            scores += [float(chosen[list(path), list(answer)].sum()) for path, answer in zip(tree.paths, answers)]
        decode_ms = (time.perf_counter() - start) * 1e3
        timing = Timing(waited, self._prepare_ms + filled.encode_ms, filled.prefill_ms, decode_ms)
        self.scoring.finish(Scored(tuple(scores), filled.length, timing))

    def fail(self, error: VlmError) -> None:
        self.scoring.finish(error)


class WarmUpJob(Job):
    """What the first request would wait for, computed in advance. Nobody waits for it."""

    def start(self, prefiller: Prefiller, row: int) -> None:
        prefiller.warm_up(row, self.picture, self.prompt)

    def fail(self, error: VlmError) -> None:
        """Say nothing: a request that meets the same error tells of it."""


def limit_error(reason: FinishReason | None, when: str) -> VlmError:
    """The error for a request that ended at a limit."""
    if reason is FinishReason.CANCELLED:
        return VlmError(ErrorCode.CANCELLED, f"taken back {when}")
    return VlmError(ErrorCode.DEADLINE_EXCEEDED, f"the deadline passed {when}")

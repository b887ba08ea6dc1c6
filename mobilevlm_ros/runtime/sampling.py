"""From logits to the next token. Pure arithmetic on arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mobilevlm_ros.runtime.errors import BackendError, ErrorCode, VlmError


@dataclass(frozen=True)
class SamplingParams:
    """How an answer's tokens are chosen.

    Attributes:
        max_tokens: longest answer, at least 1.
        temperature: 0 takes the likeliest token (greedy); up to 5. The official inference uses 0.2.
        top_p: smallest probability mass to sample from, over 0 to 1.
        seed: makes sampling repeatable.
        alternatives: how many of the likeliest tokens to keep with each choice, the chosen one among them or not; 0 keeps none,
            which costs nothing.

    Raises:
        VlmError: BAD_REQUEST if a value is out of its range.
    """

    max_tokens: int = 128
    temperature: float = 0.2
    top_p: float = 1.0
    seed: int | None = None
    alternatives: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise VlmError(ErrorCode.BAD_REQUEST, f"max_tokens is {self.max_tokens}, it must be at least 1")
        if not 0.0 <= self.temperature <= 5.0:
            raise VlmError(ErrorCode.BAD_REQUEST, f"temperature is {self.temperature}, it must be 0 to 5")
        if not 0.0 < self.top_p <= 1.0:
            raise VlmError(ErrorCode.BAD_REQUEST, f"top_p is {self.top_p}, it must be over 0 and at most 1")
        if self.alternatives < 0:
            raise VlmError(ErrorCode.BAD_REQUEST, f"alternatives is {self.alternatives}, it must be at least 0")


GREEDY = SamplingParams(temperature=0.0)


@dataclass(frozen=True, eq=False)
class Alternatives:
    """What could have stood at one place of an answer.

    Attributes:
        position: the place among the answer's tokens; one past the last where the answer's end was chosen.
        tokens: int [n], the likeliest that were allowed there, best first.
        log_probabilities: float64 [n], theirs in the model's own distribution (temperature 1, nothing forbidden).
    """

    position: int
    tokens: np.ndarray
    log_probabilities: np.ndarray


@dataclass(frozen=True, eq=False)
class Choice:
    """A chosen token, with the model's own distribution (temperature 1) as logarithms, float64 [vocab]."""

    token: int
    log_probabilities: np.ndarray

    @property
    def probability(self) -> float:
        """The model's probability for the chosen token."""
        return float(np.exp(self.log_probabilities[self.token]))


class Sampler:
    """Chooses the tokens of one answer."""

    def __init__(self, params: SamplingParams) -> None:
        self._params = params
        self._random = np.random.default_rng(params.seed)

    def choose(self, logits: np.ndarray, allowed: np.ndarray | None = None) -> Choice:
        """Choose the next token.

        Args:
            logits: float32 [vocab].
            allowed: bool [vocab], which tokens may be chosen, at least one; None allows all.

        Raises:
            BackendError: a logit is NaN or infinite.
        """
        log_probabilities = log_softmax(logits)
        scores = log_probabilities if allowed is None else np.where(allowed, log_probabilities, -np.inf)
        token = int(np.argmax(scores)) if self._params.temperature == 0.0 else self._sample(scores)
        return Choice(token, log_probabilities)

    def _sample(self, scores: np.ndarray) -> int:
        probabilities = np.exp((scores - scores.max()) / self._params.temperature)
        probabilities /= probabilities.sum()
        if self._params.top_p < 1.0:
            order = np.argsort(-probabilities, kind="stable")
            before = np.cumsum(probabilities[order]) - probabilities[order]
            probabilities[order[before >= self._params.top_p]] = 0.0
        return int(self._random.choice(len(probabilities), p=probabilities / probabilities.sum()))


def likeliest(log_probabilities: np.ndarray, allowed: np.ndarray | None, count: int, position: int) -> Alternatives:
    """The `count` likeliest allowed tokens, or as many as are allowed, of a distribution float64 [vocab]."""
    candidates = np.arange(len(log_probabilities)) if allowed is None else np.flatnonzero(allowed)
    if len(candidates) > count:
        best = np.argpartition(-log_probabilities[candidates], count - 1)[:count]
        candidates = candidates[best]
    tokens = candidates[np.argsort(-log_probabilities[candidates], kind="stable")]
    return Alternatives(position, tokens, log_probabilities[tokens])


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the probabilities along the last axis, in float64.

    Raises:
        BackendError: a logit is NaN or infinite.
    """
    values = logits.astype(np.float64)
    if not np.isfinite(values).all():
        raise BackendError("the model returned a logit that is no finite number")
    shifted = values - values.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))

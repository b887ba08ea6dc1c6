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

    Raises:
        VlmError: BAD_REQUEST if a value is out of its range.
    """

    max_tokens: int = 128
    temperature: float = 0.2
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise VlmError(ErrorCode.BAD_REQUEST, f"max_tokens is {self.max_tokens}, it must be at least 1")
        if not 0.0 <= self.temperature <= 5.0:
            raise VlmError(ErrorCode.BAD_REQUEST, f"temperature is {self.temperature}, it must be 0 to 5")
        if not 0.0 < self.top_p <= 1.0:
            raise VlmError(ErrorCode.BAD_REQUEST, f"top_p is {self.top_p}, it must be over 0 and at most 1")


GREEDY = SamplingParams(temperature=0.0)


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

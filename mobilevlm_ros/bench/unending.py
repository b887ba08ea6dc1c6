"""Answers of a length that is known beforehand, so that models and machines can be compared."""

from __future__ import annotations

import numpy as np

from mobilevlm_ros.runtime.constraint import Constraint
from mobilevlm_ros.runtime.manifest import Manifest


class Unending(Constraint):
    """A form that any words have, but which never ends: the answer goes on to its longest length."""

    def __init__(self, manifest: Manifest) -> None:
        self._allowed = np.ones(manifest.decoder.vocab_size, bool)
        self._allowed[manifest.tokens.eos] = False

    def allowed(self) -> np.ndarray:
        return self._allowed

    def accept(self, token: int) -> None:
        pass

    def forced(self) -> list[int]:
        return []

    @property
    def finished(self) -> bool:
        return False

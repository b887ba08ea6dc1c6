"""Holds a freshly written model package against the checkpoint it was made from.

One picture of noise and random token ids pass through PyTorch and through the runtime's backend: a prefill in two parts and some
single steps, so that the cache is checked too. Knows both sides; changes neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mobilevlm_ros.checkpoint.config import MobileVlmConfig
from mobilevlm_ros.checkpoint.model import MobileVLM, normalise
from mobilevlm_ros.checkpoint.reader import Tensors, load_model
from mobilevlm_ros.export.errors import ExportError
from mobilevlm_ros.runtime.manifest import Precision
from mobilevlm_ros.runtime.ort_backend import OrtBackend
from mobilevlm_ros.runtime.package import ModelPackage

TOLERANCE = {Precision.FP32: 1e-4, Precision.FP16: 1e-2}
"""Largest allowed difference as a share of the largest value."""

_HEAD, _TAIL, _STEPS = 7, 5, 3


@dataclass(frozen=True)
class Agreement:
    """Largest differences between package and PyTorch, as shares of the largest value, and what was allowed."""

    features: float
    logits: float
    tolerance: float


def verify(package: ModelPackage, tensors: Tensors, config: MobileVlmConfig) -> Agreement:
    """Compares visual tokens and logits; raises ExportError in one line if they differ by more than the precision allows."""
    random = np.random.default_rng(0)
    size = config.vision.image_size
    pixels = random.integers(0, 256, (1, size, size, 3), np.uint8)
    ids = random.integers(0, config.vocab_size, _HEAD + _TAIL + _STEPS)
    expected_features, expected_logits = _run_torch(load_model(tensors, config), pixels, ids)
    features, logits = _run_package(package, pixels, ids.tolist())
    tolerance = TOLERANCE[package.manifest.decoder_precision]
    agreement = Agreement(difference(features, expected_features), difference(logits, expected_logits), tolerance)
    for what, found in (("visual tokens", agreement.features), ("logits", agreement.logits)):
        # Written so that a NaN fails.
        if not found <= tolerance:
            raise ExportError(f"{what} of the converted model differ from PyTorch by {found:.2e}, allowed are {tolerance:.0e}")
    return agreement


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest absolute difference as a share of the largest expected value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@torch.no_grad()
def _run_torch(model: MobileVLM, pixels: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Visual tokens, and logits from the tail's first token on."""
    features = model.encode_images(normalise(torch.from_numpy(pixels), model.config.vision))
    head, rest = model.embed(torch.from_numpy(ids[None, :_HEAD])), model.embed(torch.from_numpy(ids[None, _HEAD:]))
    logits = model.language(inputs_embeds=torch.cat([head, features, rest], dim=1), use_cache=False).logits
    return features.numpy(), logits[0, -(_TAIL + _STEPS) :].numpy()


def _run_package(package: ModelPackage, pixels: np.ndarray, ids: list[int]) -> tuple[np.ndarray, np.ndarray]:
    backend = OrtBackend(package, threads=0)
    try:
        features = backend.encode(pixels)
        cache = backend.new_cache(1, _HEAD + features.shape[1] + _TAIL + _STEPS)
        backend.prefill(cache, 0, np.concatenate([backend.embed(ids[:_HEAD]), features[0]]), [0])
        tail = backend.prefill(cache, 0, backend.embed(ids[_HEAD : _HEAD + _TAIL]), range(_TAIL))
        steps = [backend.decode(cache, [token])[0].copy() for token in ids[_HEAD + _TAIL :]]
        return features, np.concatenate([tail, steps])
    finally:
        backend.close()

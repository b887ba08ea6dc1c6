"""Holds a freshly written model package against the checkpoint it was made from.

One picture of noise and random token ids pass through PyTorch and through the runtime's backend: a prefill in two parts and some
single steps, so that the cache is checked too. PyTorch reads the model layer by layer, so that memory holds no more than one.
Knows both sides; changes neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mobilevlm_ros.checkpoint.config import MobileVlmConfig
from mobilevlm_ros.checkpoint.layerwise import LayerwiseDecoder, LayerwiseVision
from mobilevlm_ros.checkpoint.reader import Tensors
from mobilevlm_ros.export.errors import ExportError
from mobilevlm_ros.runtime.manifest import Manifest, Precision
from mobilevlm_ros.runtime.ort_backend import OrtBackend, WeightMemory
from mobilevlm_ros.runtime.package import ModelPackage

TOLERANCE = {Precision.FP32: 1e-4, Precision.FP16: 1e-2}
"""Largest allowed difference as a share of the largest value."""

LARGE = 2_000_000_000
"""Bytes of a package from which on it is run from its files: fully loaded, it could take more memory than there is."""

_HEAD, _TAIL, _STEPS = 7, 5, 3


@dataclass(frozen=True)
class Agreement:
    """Largest differences between package and PyTorch, as shares of the largest value, and what was allowed."""

    features: float
    logits: float
    tolerance: float


@dataclass(frozen=True, eq=False)
class Sample:
    """What is run: a picture uint8 [1, size, size, 3], and token ids before it, behind it, and one by one after those."""

    pixels: np.ndarray
    head: list[int]
    tail: list[int]
    steps: list[int]

    @staticmethod
    def of(manifest: Manifest) -> Sample:
        """Noise that fits a model; always the same."""
        random = np.random.default_rng(0)
        size = manifest.vision.image_size
        pixels = random.integers(0, 256, (1, size, size, 3), np.uint8)
        ids = random.integers(0, manifest.decoder.vocab_size, _HEAD + _TAIL + _STEPS).tolist()
        return Sample(pixels, ids[:_HEAD], ids[_HEAD : _HEAD + _TAIL], ids[_HEAD + _TAIL :])


def verify(package: ModelPackage, tensors: Tensors, config: MobileVlmConfig) -> Agreement:
    """Compares visual tokens and logits; raises ExportError in one line if they differ by more than the precision allows."""
    tolerance = TOLERANCE[package.manifest.decoder_precision]
    agreement = Agreement(*differences(package, tensors, config), tolerance)
    check(agreement)
    return agreement


def check(agreement: Agreement) -> None:
    """Raises ExportError in one line if more differs than is allowed."""
    for what, found in (("visual tokens", agreement.features), ("logits", agreement.logits)):
        # Written so that a NaN fails.
        if not found <= agreement.tolerance:
            allowed = f"allowed are {agreement.tolerance:.0e}"
            raise ExportError(f"{what} of the converted model differ from PyTorch by {found:.2e}, {allowed}")


def differences(package: ModelPackage, tensors: Tensors, config: MobileVlmConfig) -> tuple[float, float]:
    """The largest differences between package and PyTorch in visual tokens and logits, as shares of the largest value."""
    sample = Sample.of(package.manifest)
    expected_features, expected_logits = _run_torch(tensors, config, sample)
    features, logits = run_package(package, sample)
    return difference(features, expected_features), difference(logits, expected_logits)


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest absolute difference as a share of the largest expected value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def _run_torch(tensors: Tensors, config: MobileVlmConfig, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Visual tokens, and logits from the tail's first token on."""
    head, rest = torch.tensor(sample.head), torch.tensor([*sample.tail, *sample.steps])
    vision, decoder = LayerwiseVision(tensors, config), LayerwiseDecoder(tensors, config)
    hidden = vision.embed(torch.from_numpy(sample.pixels))
    for layer in vision.layers():
        hidden = layer(hidden)
    features = vision.project(hidden)
    hidden = torch.cat([decoder.embed(head), features[0], decoder.embed(rest)])[None]
    for layer in decoder.layers():
        hidden = layer(hidden)
    logits = decoder.norm(hidden)[0, -len(rest) :] @ decoder.head().T
    return features.numpy(), logits.numpy()


def run_package(package: ModelPackage, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """What `_run_torch` gives, of the package's graphs for the CPU."""
    memory = WeightMemory.MAPPED if package.size > LARGE else WeightMemory.PACKED
    backend = OrtBackend(package, threads=0, memory=memory)
    try:
        features = backend.encode(sample.pixels)
        cache = backend.new_cache(1, _HEAD + features.shape[1] + _TAIL + _STEPS)
        backend.prefill(cache, 0, np.concatenate([backend.embed(sample.head), features[0]]), [0])
        tail = backend.prefill(cache, 0, backend.embed(sample.tail), range(_TAIL))
        steps = [backend.decode(cache, [token])[0].copy() for token in sample.steps]
        return features, np.concatenate([tail, steps])
    finally:
        backend.close()

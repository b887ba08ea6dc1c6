"""Measures what storing a model in fewer bits did to it, and says so in a file of the package.

The package's own graphs run on the calibration's held-back examples: their visual tokens and logits are held against those of the
float32 model, which `quantization.py` has worked out. Knows the runtime's backend; changes nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mobilevlm_ros.export.calibration import Calibration, Example
from mobilevlm_ros.export.errors import ExportError
from mobilevlm_ros.export.quantization import LinearError, Quantized, Rounding
from mobilevlm_ros.runtime.ort_backend import OrtBackend
from mobilevlm_ros.runtime.package import PREFILL_DIALECT, ModelPackage
from mobilevlm_ros.runtime.sampling import log_softmax

REPORT_NAME = "quantization.json"
IMPLEMENTATION_LIMIT = 0.3
"""Root mean square difference allowed between the package's logits and those of its rounded weights in PyTorch, as a share of the
latter's. The inputs of products are rounded to 8 bits in the package only, which makes up to a tenth on random weights; a weight
in the wrong place makes one and more."""
_WORST = 5


@dataclass(frozen=True)
class PromptFidelity:
    """What is different where prompts are read with a decoder of their own; the figures are as `FidelityReport`'s."""

    divergence_mean: float
    divergence_max: float
    greedy_agreement: float


@dataclass(frozen=True)
class FidelityReport:
    """What quantisation did, measured on examples that it did not learn from.

    Attributes:
        calibration: the name of the calibration's folder or file.
        learned, measured: examples.
        rounding: how 4-bit weights were rounded.
        positions: places in the measured examples' text at which next tokens are compared.
        features_cosine: least cosine between a picture's visual tokens and those in float32.
        features_error: root mean square change of visual tokens as a share of their root mean square.
        divergence_mean, divergence_max: Kullback-Leibler divergence, in nats, of the next token's distribution from the float32
            model's.
        greedy_agreement: share of positions with the same likeliest next token.
        implementation_error: see IMPLEMENTATION_LIMIT.
        linears: each linear map's stored form and error.
        prefill: of the package as it runs, where it has a decoder for prompts; the other figures are without that.
    """

    calibration: str
    learned: int
    measured: int
    rounding: Rounding
    positions: int
    features_cosine: float
    features_error: float
    divergence_mean: float
    divergence_max: float
    greedy_agreement: float
    implementation_error: float
    linears: tuple[LinearError, ...]
    prefill: PromptFidelity | None

    def to_json(self) -> str:
        """The report as JSON text with a fixed key order; figures are cut to what repeats from machine to machine."""
        return json.dumps(asdict(self), indent=1, sort_keys=True, default=str) + "\n"

    def lines(self) -> list[str]:
        """The report for a person."""
        forms = Counter(linear.form for linear in self.linears)
        worst = sorted(self.linears, key=lambda linear: -linear.error)[:_WORST]
        lines = [
            f"stored as {', '.join(f'{form} ({count} maps)' for form, count in forms.items())}; the rest in float16",
            f"calibrated on {self.learned} examples of {self.calibration}, measured on {self.measured} others,"
            f" {self.positions} positions:",
            f"  visual tokens: cosine at least {self.features_cosine:.5f}, relative change {self.features_error:.4f}",
            f"  next token: same likeliest one at {100 * self.greedy_agreement:.1f}%,"
            f" divergence {self.divergence_mean:.4f} nats on average, {self.divergence_max:.3f} at most",
            f"  graph against rounded weights: {self.implementation_error:.4f}",
            "  largest changes of a map's output: " + ", ".join(f"{linear.name} {linear.error:.3f}" for linear in worst),
        ]
        if self.prefill is not None:
            worse = self.prefill.divergence_mean > self.divergence_mean
            advice = "; more than the 4 bits lose: convert without --prefill int8" if worse else ""
            found = self.prefill
            lines.append(
                f"  prompts read in 8 bits: same likeliest token at {100 * found.greedy_agreement:.1f}%,"
                f" divergence {found.divergence_mean:.4f} nats on average, {found.divergence_max:.3f} at most{advice}"
            )
        return lines


def measure(package: ModelPackage, calibration: Calibration, rounding: Rounding, quantized: Quantized) -> FidelityReport:
    """Runs the package on the held-back examples.

    Raises ExportError in one line if the graphs do not compute what the rounded weights say.
    """
    prefill = _measure_prefill(package, calibration, quantized) if package.has_decoder(PREFILL_DIALECT) else None
    backend = OrtBackend(package.without_decoder(PREFILL_DIALECT), threads=0)
    examples = list(zip(calibration.measure, quantized.features, quantized.expected, quantized.reference))
    seen, compared, squares = [], [], np.zeros(2)
    try:
        # One example at a time: logits over a large vocabulary fill memory.
        for example, features, expected, reference in examples:
            seen.append(backend.encode(example.pixels[None])[0])
            compared.append(compare(_logits(backend, example, seen[-1]), reference))
            change = _logits(backend, example, features) - expected
            squares += [np.square(change, dtype=np.float64).sum(), np.square(expected, dtype=np.float64).sum()]
    finally:
        backend.close()
    implementation = float(np.sqrt(squares[0] / squares[1]))
    # Written so that a NaN fails.
    if not implementation <= IMPLEMENTATION_LIMIT:
        raise ExportError(
            f"logits of the converted model differ from its rounded weights in PyTorch by {implementation:.2e},"
            f" allowed are {IMPLEMENTATION_LIMIT:.0e}"
        )
    divergences, agreements = (np.concatenate(parts) for parts in zip(*compared))
    return FidelityReport(
        calibration=calibration.source,
        learned=len(calibration.learn),
        measured=len(calibration.measure),
        rounding=rounding,
        positions=len(divergences),
        features_cosine=_rounded(min(cosine(a, b) for a, b in zip(seen, quantized.features))),
        features_error=_rounded(relative_error(np.stack(seen), np.stack(quantized.features))),
        divergence_mean=_rounded(divergences.mean()),
        divergence_max=_rounded(divergences.max()),
        greedy_agreement=_rounded(agreements.mean()),
        implementation_error=_rounded(implementation),
        linears=tuple(LinearError(linear.name, linear.form, _rounded(linear.error)) for linear in quantized.errors),
        prefill=prefill,
    )


def _measure_prefill(package: ModelPackage, calibration: Calibration, quantized: Quantized) -> PromptFidelity:
    """The package as it runs, on visual tokens of its own too."""
    backend = OrtBackend(package, threads=0)
    try:
        compared = [
            compare(_logits(backend, example, backend.encode(example.pixels[None])[0]), reference)
            for example, reference in zip(calibration.measure, quantized.reference)
        ]
    finally:
        backend.close()
    divergences, agreements = (np.concatenate(parts) for parts in zip(*compared))
    return PromptFidelity(*map(_rounded, (divergences.mean(), divergences.max(), agreements.mean())))


def compare(found: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits [T, vocab] against the reference's: KL divergences float64 [T] in nats, and whether the likeliest token agrees."""
    ours, theirs = log_softmax(found), log_softmax(reference)
    divergences = (np.exp(theirs) * (theirs - ours)).sum(axis=1)
    return np.maximum(divergences, 0.0), ours.argmax(axis=1) == theirs.argmax(axis=1)


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Root mean square difference as a share of the expected values' root mean square."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def cosine(found: np.ndarray, expected: np.ndarray) -> float:
    """The cosine between two arrays of the same shape."""
    return float((found * expected).sum() / (np.linalg.norm(found) * np.linalg.norm(expected)))


def _logits(backend: OrtBackend, example: Example, features: np.ndarray) -> np.ndarray:
    """Logits [T, vocab] over an example's tail."""
    tail: Sequence[int] = example.tail
    cache = backend.new_cache(1, len(example.head) + len(features) + len(tail))
    backend.prefill(cache, 0, np.concatenate([backend.embed(example.head), features]), [0])
    return backend.prefill(cache, 0, backend.embed(tail), range(len(tail)))


def _rounded(value: float) -> float:
    """To four figures: less than what differs from processor to processor."""
    return float(f"{float(value):.4g}")

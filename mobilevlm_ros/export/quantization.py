"""Decides in how many bits each linear map of a checkpoint is stored, rounds it, and measures what that does.

The tower and the decoder are run layer by layer on the calibration's pictures. A map whose rounded form changes its output by
more than a limit goes to the next better form. The decoder's layers see what the rounded layers before them give, so that errors
do not go unnoticed; a second stream of activations stays in float32 and is the reference of all measurements.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch import Tensor

from mobilevlm_ros.checkpoint.config import MobileVlmConfig
from mobilevlm_ros.checkpoint.layerwise import LayerwiseDecoder, LayerwiseVision
from mobilevlm_ros.checkpoint.model import EMBEDDING_NAME, HEAD_NAME, VISION_PREFIX, expected_shapes
from mobilevlm_ros.export.calibration import Calibration, Example
from mobilevlm_ros.export.gptq import compensated
from mobilevlm_ros.export.linear_weights import ChannelWeight, LinearWeight, takes_channels, to_blocks, to_channels
from mobilevlm_ros.runtime.manifest import Precision

CHANNEL_LIMIT = 0.05
"""Above this relative error of a tower map's output, block scales take the place of one scale for a channel."""
INT4_LIMIT = 0.25
"""Above this relative error of a decoder map's output, it keeps 8 bits."""
HEAD_MAPS = (HEAD_NAME, EMBEDDING_NAME)
"""The vocabulary's matrix, which keeps 8 bits by default: it decides between words at once. `bench/quantization.py` measures what
else might be worth it."""
VISION_PICTURES = 8
"""Pictures on which the tower's maps are measured; their weights do not depend on them."""


class Rounding(str, Enum):
    """How a matrix is brought to 4 bits: with error compensation (GPTQ), or each value to the nearest."""

    GPTQ = "gptq"
    NEAREST = "nearest"


@dataclass(frozen=True)
class Scheme:
    """How a checkpoint's maps are to be stored.

    `precision` is int8 or int4, `rounding` how 4 bits are come by, and `keep` names the decoder's maps (or patterns with * as in
    file names) that keep 8 bits.
    """

    precision: Precision
    rounding: Rounding
    keep: tuple[str, ...] = HEAD_MAPS

    def bits(self, name: str) -> int:
        """Bits wanted for a map of the decoder."""
        return 8 if self.precision is Precision.INT8 or any(fnmatchcase(name, pattern) for pattern in self.keep) else 4


@dataclass(frozen=True)
class LinearError:
    """A linear map's stored form, and how far that moves its output on the calibration's inputs.

    `error` is the root mean square change as a share of the output's root mean square; the inputs are rounded as they are at run
    time where the form does so by the channel.
    """

    name: str
    form: str
    error: float


@dataclass(frozen=True, eq=False)
class Quantized:
    """What becomes of a checkpoint's linear maps, and what is to be expected of the package that they make.

    Attributes:
        weights: by released names; maps that are missing here stay in float16.
        errors: one entry for each of `weights`, in the order of computation.
        features: visual tokens of the measured examples in float32, [tokens, hidden] each.
        reference: the float32 model's logits [T, vocab] over each measured example's tail.
        expected: likewise of the rounded weights, on the same visual tokens.
    """

    weights: Mapping[str, LinearWeight]
    errors: tuple[LinearError, ...]
    features: tuple[np.ndarray, ...]
    reference: tuple[np.ndarray, ...]
    expected: tuple[np.ndarray, ...]


Progress = Callable[[str, int], None]


def quantize(
    tensors: Mapping[str, Tensor],
    config: MobileVlmConfig,
    calibration: Calibration,
    scheme: Scheme,
    progress: Progress,
) -> Quantized:
    """Rounds a checkpoint's linear maps, telling `progress` of each layer and its bytes in float32.

    Raises ExportError where the quantiser's library is missing or activations are not finite.
    """
    examples = (*calibration.learn, *calibration.measure)
    tower = _Tower(LayerwiseVision(tensors, config), progress)
    features = tower.run(torch.from_numpy(np.stack([example.pixels for example in examples])))
    split = len(calibration.learn)
    decoder = _Decoder(LayerwiseDecoder(tensors, config), scheme, progress)
    reference, expected = decoder.run(examples, features, split)
    return Quantized(
        weights={**tower.weights, **decoder.weights},
        errors=(*tower.errors, *decoder.errors),
        features=tuple(seen.numpy() for seen in features[split:]),
        reference=reference,
        expected=expected,
    )


def quantized_bytes(config: MobileVlmConfig) -> int:
    """What `quantize` tells its progress of in all."""
    prefixes = [f"{VISION_PREFIX}encoder.layers.{number}." for number in range(config.vision_layers_used)]
    prefixes += ["model.layers.", EMBEDDING_NAME if config.tie_word_embeddings else HEAD_NAME]
    shapes = [shape for name, shape in expected_shapes(config).items() if name.startswith(tuple(prefixes))]
    return 4 * sum(math.prod(shape) for shape in shapes)


class _Tower:
    """Rounds the tower's maps and encodes the pictures, in float32."""

    def __init__(self, model: LayerwiseVision, progress: Progress) -> None:
        self.weights: dict[str, LinearWeight] = {}
        self.errors: list[LinearError] = []
        self._model = model
        self._progress = progress

    def run(self, pixels: Tensor) -> Tensor:
        """Pictures uint8 [N, S, S, 3] to visual tokens [N, tokens, hidden]."""
        hidden = self._model.embed(pixels)
        for layer in self._model.layers():
            changes = {name: _Change(linear.weight) for name, linear in layer.linears().items()}
            observer = _Observer(changes)
            rows = [layer.observe(row[None], observer.add) for row in hidden[:VISION_PICTURES]]
            hidden = torch.cat([*rows, *(layer(row[None]) for row in hidden[VISION_PICTURES:])])
            for name, change in changes.items():
                self._keep(name, change)
            self._progress(layer.prefix, layer.size)
        return self._model.project(hidden)

    def _keep(self, name: str, change: _Change) -> None:
        weight, error, form = change.best()
        self.weights[name] = weight
        self.errors.append(LinearError(name, form, error))


class _Change:
    """What rounding one of the tower's matrices does to its output, picture by picture."""

    def __init__(self, matrix: Tensor) -> None:
        self._matrix = matrix.detach()
        self._channel = to_channels(self._matrix.numpy())
        self._block = to_blocks(self._matrix.numpy(), 8)
        self._rounded = [torch.from_numpy(weight.values()) for weight in (self._channel, self._block)]
        self._squares = np.zeros(3)

    def add(self, inputs: Tensor) -> None:
        """`inputs` [1, T, in] of one picture, whose range is that of the picture at run time too."""
        output = inputs @ self._matrix.T
        products = (_rounded_inputs(inputs) @ self._rounded[0].T, inputs @ self._rounded[1].T)
        self._squares += [float(found.square().sum()) for found in (products[0] - output, products[1] - output, output)]

    def best(self) -> tuple[LinearWeight, float, str]:
        """The form to keep, its error and its name."""
        channel, block = np.sqrt(self._squares[:2] / max(self._squares[2], 1e-30))
        if channel <= CHANNEL_LIMIT and takes_channels(len(self._matrix)):
            return self._channel, float(channel), form_name(self._channel)
        return self._block, float(block), form_name(self._block)


@dataclass(frozen=True)
class _Observer:
    """Tells each of a layer's maps of its inputs."""

    changes: Mapping[str, _Change]

    def add(self, name: str, inputs: Tensor) -> None:
        self.changes[name].add(inputs)


def _rounded_inputs(inputs: Tensor) -> Tensor:
    """What ONNX's DynamicQuantizeLinear makes of a tensor: 256 steps over its range, which includes zero."""
    low, high = min(float(inputs.min()), 0.0), max(float(inputs.max()), 0.0)
    step = (high - low) / 255 or 1.0
    zero = round(-low / step)
    return (torch.clamp(torch.round(inputs / step) + zero, 0, 255) - zero) * step


class _Decoder:
    """Rounds the decoder's maps, each layer on what the rounded ones before it give."""

    def __init__(self, model: LayerwiseDecoder, scheme: Scheme, progress: Progress) -> None:
        self.weights: dict[str, LinearWeight] = {}
        self.errors: list[LinearError] = []
        self._model = model
        self._scheme = scheme
        self._progress = progress

    def run(
        self, examples: tuple[Example, ...], features: Tensor, split: int
    ) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
        """Learns from the examples before `split`; returns the others' logits [T, vocab] in float32, and those expected."""
        rounded = [self._embed(example, seen) for example, seen in zip(examples, features)]
        reference = rounded[split:]
        for layer in self._model.layers():
            reference = [layer(hidden) for hidden in reference]
            moments = _Moments()
            for hidden in rounded[:split]:
                layer.observe(hidden, moments.add)
            for name, linear in layer.linears().items():
                self._round(name, linear.weight.detach(), moments.of(name))
                with torch.no_grad():
                    linear.weight.copy_(torch.from_numpy(self.weights[name].values()))
            rounded = [layer(hidden) for hidden in rounded]
            self._progress(layer.prefix, layer.size)
        head = self._model.head()
        name = self._model.head_name
        moments = _Moments()
        for hidden in rounded[:split]:
            moments.add(name, self._model.norm(hidden))
        self._round(name, head, moments.of(name))
        self._progress(name, head.numel() * 4)
        lengths = [len(example.tail) for example in examples[split:]]
        return (
            self._logits(reference, lengths, head),
            self._logits(rounded[split:], lengths, torch.from_numpy(self.weights[name].values())),
        )

    def _embed(self, example: Example, features: Tensor) -> Tensor:
        """Embeddings [1, T, hidden] of an example, its picture's visual tokens in their place."""
        words = [self._model.embed(torch.tensor(ids)) for ids in (example.head, example.tail)]
        return torch.cat([words[0], features, words[1]])[None]

    def _logits(self, states: list[Tensor], lengths: list[int], head: Tensor) -> tuple[np.ndarray, ...]:
        return tuple((self._model.norm(hidden)[0, -length:] @ head.T).numpy() for hidden, length in zip(states, lengths))

    def _round(self, name: str, matrix: Tensor, moments: Tensor) -> None:
        weight, error = None, math.inf
        if self._scheme.bits(name) == 4:
            nearest = self._scheme.rounding is Rounding.NEAREST
            weight = to_blocks(matrix.numpy(), 4) if nearest else compensated(matrix, moments)
            error = _output_error(matrix, weight, moments)
        if weight is None or error > INT4_LIMIT:
            weight = to_blocks(matrix.numpy(), 8)
            error = _output_error(matrix, weight, moments)
        self.weights[name] = weight
        self.errors.append(LinearError(name, form_name(weight), error))


class _Moments:
    """Sums of x x^T over the inputs of linear maps; maps with the same input share them."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._shared: dict[str, str] = {}
        self._last: tuple[str, Tensor] | None = None

    def add(self, name: str, inputs: Tensor) -> None:
        """`inputs` [..., in]."""
        if self._last is not None and inputs is self._last[1]:
            self._shared[name] = self._last[0]
            return
        self._last = (name, inputs)
        self._shared[name] = name
        rows = inputs.detach().reshape(-1, inputs.shape[-1])
        known = self._sums.get(name)
        self._sums[name] = rows.T @ rows if known is None else known.addmm_(rows.T, rows)

    def of(self, name: str) -> Tensor:
        """The sum float32 [in, in] for a map."""
        return self._sums[self._shared[name]]


def _output_error(matrix: Tensor, weight: LinearWeight, moments: Tensor) -> float:
    change = torch.from_numpy(weight.values()) - matrix
    squares = [float(((rows @ moments) * rows).sum()) for rows in (change, matrix)]
    return float(np.sqrt(max(squares[0], 0.0) / max(squares[1], 1e-30)))


def form_name(weight: LinearWeight) -> str:
    """How a report calls a stored form."""
    return "int8 channels" if isinstance(weight, ChannelWeight) else f"int{weight.bits} blocks"

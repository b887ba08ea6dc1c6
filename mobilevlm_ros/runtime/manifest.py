"""The manifest of a model package: what the model is, how it wants to be asked, and which files it consists of.

Values and their JSON form, nothing else: this module opens no file. `runtime/package.py` reads a package, `export/` writes one.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from enum import Enum
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from mobilevlm_ros.runtime.errors import PackageError

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"


class Precision(str, Enum):
    """How a graph's weights are stored. `fp16` computes in float32 where the processor has no float16 arithmetic."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"


class BoxFrame(str, Enum):
    """What the 0..1 coordinates of a box in the model's words are relative to.

    LLaVA's data, on which MobileVLM was tuned, means the padded square (LLaVA issues 606 and 1833).
    """

    PADDED_SQUARE = "padded_square"
    IMAGE = "image"


@dataclass(frozen=True)
class VisionSpec:
    """The encoder and projector: a square picture of `image_size` pixels becomes `tokens` visual tokens."""

    image_size: int
    patch_size: int
    tokens: int
    projector: str
    pad_color: tuple[int, int, int]


@dataclass(frozen=True)
class DecoderSpec:
    """The language decoder's sizes.

    `head_dim` is a head's width in the KV cache; `max_positions` is the longest prompt and answer together.
    """

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    max_positions: int
    rms_norm_eps: float
    rope_theta: float


@dataclass(frozen=True)
class PromptSpec:
    """The conversation template.

    A conversation reads `system` `separator` `user` ": " <image> "\\n" question `separator` `assistant` ":" answer `stop`, and a
    later turn begins with `separator` after the answer's stop token.
    """

    template: str
    system: str
    user: str
    assistant: str
    separator: str
    stop: str


@dataclass(frozen=True)
class SpecialTokens:
    """Token ids with a meaning of their own."""

    bos: int
    eos: int
    pad: int


@dataclass(frozen=True)
class Phrasings:
    """The sentences in which this checkpoint was taught its tasks.

    `{expression}` stands for a referring expression and `{box}` for a box in the model's own notation. The defaults are those of
    LLaVA's training mix, which MobileVLM saw.
    """

    ground: str = "Please provide the bounding box coordinate of the region this sentence describes: {expression}."
    describe_region: str = "Please provide a short description for this region: {box}."
    presence: str = "Is there {expression} in the image? Answer the question using a single word or phrase."
    classify: str = "Which of these fits the image best: {labels}? Answer the question using a single word or phrase."


@dataclass(frozen=True)
class ScoreCalibration:
    """How a region's score follows from the model's own probability: 1 / (1 + exp(-(`scale` x logit + `offset`))).

    The defaults leave the probability as it is. `mobilevlm eval refcoco` measures both for a package that has the defaults.
    """

    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class FileEntry:
    """A file of the package: its size in bytes and the SHA-256 of its content in hexadecimal."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Source:
    """Where the weights came from: a hub id or a folder's name, its revision where known, and a digest over the weights."""

    checkpoint: str
    revision: str
    weights_sha256: str


@dataclass(frozen=True)
class BaseRef:
    """The package that an adapter package builds on.

    `path` leads from the adapter package's folder to the base's; `manifest_sha256`, in hexadecimal, is that of the base's
    manifest, which in turn holds the hashes of the base's files.
    """

    path: str
    manifest_sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything a run needs to know about a model package beside its files' content.

    `base` is None for a whole package. An adapter package, which has one, holds only the files in which it differs.
    """

    name: str
    source: Source
    licence: str
    vision: VisionSpec
    decoder: DecoderSpec
    prompt: PromptSpec
    tokens: SpecialTokens
    vision_precision: Precision
    decoder_precision: Precision
    box_frame: BoxFrame = BoxFrame.PADDED_SQUARE
    phrasings: Phrasings = field(default_factory=Phrasings)
    score_calibration: ScoreCalibration = field(default_factory=ScoreCalibration)
    files: dict[str, FileEntry] = field(default_factory=dict)
    base: BaseRef | None = None
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> str:
        """The manifest as JSON text with a fixed key order, so that equal manifests are equal byte for byte."""
        values = dataclasses.asdict(self)
        if self.base is None:
            del values["base"]
        return json.dumps(values, indent=2, ensure_ascii=False, sort_keys=True) + "\n"

    @staticmethod
    def from_json(text: str) -> Manifest:
        """Read a manifest.

        Raises:
            PackageError: the text is not JSON, of another schema version, or a field is missing or of the wrong type.
        """
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise PackageError(f"{MANIFEST_NAME} is not JSON: {error}") from error
        if not isinstance(raw, dict):
            raise PackageError(f"{MANIFEST_NAME} holds no JSON object")
        version = raw.get("schema_version")
        if version != SCHEMA_VERSION:
            raise PackageError(
                f"{MANIFEST_NAME} has schema_version {version!r}; wanted {SCHEMA_VERSION}: convert the checkpoint again"
            )
        return _read(Manifest, raw, MANIFEST_NAME)


T = TypeVar("T")


def _read(kind: type[T], raw: Any, where: str) -> T:
    """Build the dataclass `kind` from parsed JSON, checking every field against its annotation."""
    if not isinstance(raw, dict):
        raise PackageError(f"{where}: expected an object, found {type(raw).__name__}")
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for spec in dataclasses.fields(kind):  # type: ignore[arg-type]
        if spec.name in raw:
            values[spec.name] = _read_value(hints[spec.name], raw[spec.name], f"{where}: {spec.name}")
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise PackageError(f"{where}: {spec.name} is missing")
    return kind(**values)


def _read_value(kind: Any, raw: Any, where: str) -> Any:
    if get_origin(kind) in (Union, UnionType):  # the only one here is "or None"
        return None if raw is None else _read_value(get_args(kind)[0], raw, where)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _read(kind, raw, where)
    if isinstance(kind, type) and issubclass(kind, Enum):
        try:
            return kind(raw)
        except ValueError as error:
            raise PackageError(f"{where}: {raw!r} is none of {', '.join(repr(m.value) for m in kind)}") from error
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        if not isinstance(raw, list) or len(raw) != len(parts):
            raise PackageError(f"{where}: expected {len(parts)} values, found {raw!r}")
        return tuple(_read_value(part, value, where) for part, value in zip(parts, raw))
    if get_origin(kind) is dict:
        if not isinstance(raw, dict):
            raise PackageError(f"{where}: expected an object, found {raw!r}")
        return {str(key): _read_value(get_args(kind)[1], value, f"{where}: {key}") for key, value in raw.items()}
    if kind is float and isinstance(raw, int) and not isinstance(raw, bool):
        return float(raw)
    if not isinstance(raw, kind) or (kind is int and isinstance(raw, bool)):
        raise PackageError(f"{where}: expected {kind.__name__}, found {raw!r}")
    return raw

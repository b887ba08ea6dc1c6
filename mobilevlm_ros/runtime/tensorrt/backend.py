"""The model package on TensorRT.

Keys and values stay on the device. What goes to it and comes back lies in memory that both sides see, and is not copied.
Knows the graphs' inputs and outputs, not what the tokens mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

import numpy as np

from mobilevlm_ros.runtime.errors import BackendError, PackageError
from mobilevlm_ros.runtime.package import ModelPackage
from mobilevlm_ros.runtime.tensorrt.builder import EngineBuilder, EngineNeeds, Engines, Report
from mobilevlm_ros.runtime.tensorrt.cudart import CudaError
from mobilevlm_ros.runtime.tensorrt.device_cache import CacheShape, DeviceKVCache, Staging
from mobilevlm_ros.runtime.tensorrt.execution import Context, LoadedEngine, Replay
from mobilevlm_ros.runtime.tensorrt.library import Libraries
from mobilevlm_ros.runtime.tensorrt.memory import MappedArray, Memory, aligned

PREFILL, DECODE = 0, 1
"""The decoder's profiles."""


class DecodeMode(Enum):
    """How a decode step reaches the device."""

    CAPTURED = "captured"
    """As a CUDA graph, launched with one call."""
    PLAIN = "plain"
    """Kernel by kernel."""


class TensorRtBackend:
    """Implements `Backend` on a CUDA device.

    Attributes:
        engines: what it runs.
        stream: where all of its work goes.
    """

    def __init__(
        self,
        libraries: Libraries,
        package: ModelPackage,
        needs: EngineNeeds,
        report: Report,
        mode: DecodeMode = DecodeMode.CAPTURED,
    ) -> None:
        """Build the engines where they are not in the cache yet, and load them.

        Raises:
            PackageError: the package has no graphs for TensorRT.
            BackendError: an engine cannot be built, kept or loaded; OUT_OF_MEMORY where it does not fit.
        """
        self.engines: Engines = EngineBuilder(libraries, package, needs, report).engines()
        self.name = f"tensorrt-{libraries.tensorrt.__version__}-{self.engines.decoder.role.value}"
        self._spec = package.manifest.decoder
        self._visual = (package.manifest.vision.tokens, self._spec.hidden_size)
        self._embeddings = package.embeddings()
        self._cudart = libraries.cudart
        self._memory = Memory(libraries.cudart)
        self._mode = mode
        self._steps: dict[tuple[int, int], _Step] = {}
        self.stream, self._event = self._cudart.create_stream(), self._cudart.create_event()
        try:
            self._load(libraries)
        except BaseException:
            self.close()
            raise

    @property
    def notice(self) -> str:
        """Why it is not the best that there could be, empty where it is."""
        refused = next((step.replay.refusal for step in tuple(self._steps.values()) if step.replay.refusal), "")
        without = refused and f"decode runs without a CUDA graph: {refused}"
        return "; ".join(filter(None, (self.engines.notice, without)))

    @property
    def device_bytes(self) -> int:
        """Device memory that was asked for: caches, prefixes and workspace, without the engines' weights."""
        return self._memory.nbytes

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        features = np.empty((len(pixels), *self._visual), np.float32)
        for index, picture in enumerate(pixels):
            self._pixels.array[...] = picture
            self._encoder.enqueue(self.stream)
            self._finish("encoding the picture")
            features[index] = self._features.array[0]
        return features

    def embed(self, tokens: Sequence[int]) -> np.ndarray:
        return self._embeddings[np.asarray(tokens, np.int64)].astype(np.float32)

    def new_cache(self, rows: int, capacity: int) -> DeviceKVCache:
        """Buffers for keys and values on the device; raises CudaError where memory does not suffice."""
        if rows > self._rows or capacity > self._positions:
            built = f"{self._rows} rows of {self._positions} tokens"
            raise BackendError(f"the engine was built for {built}, not for {rows} of {capacity}")
        shape = CacheShape(2 * self._spec.layers, rows, self._heads, self._positions, self._head_bytes)
        return DeviceKVCache(self._cudart, self._memory, self.stream, shape, capacity)

    def prefill(self, cache: DeviceKVCache, row: int, embeddings: np.ndarray, logits_at: Sequence[int]) -> np.ndarray:
        cache.check_room(row, len(embeddings))
        logits = np.empty((len(logits_at), self._spec.vocab_size), np.float32)
        for chunk in chunks(len(embeddings), logits_at, len(self._chunk.embeddings.array), len(self._chunk.wanted.array)):
            given = self._run_chunk(cache, row, embeddings[chunk.start : chunk.end], [at - chunk.start for at in chunk.wanted])
            for place, at in enumerate(logits_at):
                if chunk.start <= at < chunk.end:
                    logits[place] = given[chunk.wanted.index(at)]
        return logits

    def decode(self, cache: DeviceKVCache, tokens: Sequence[int]) -> np.ndarray:
        batch = len(tokens)
        for row in range(batch):
            cache.check_room(row, 1)
        self._each.embeddings.array[:batch] = self.embed(tokens)
        self._each.positions.array[:batch] = cache.lengths[:batch]
        self._step(cache, batch).replay.run()
        if self._staging is not None:
            for row in range(batch):
                cache.take(row, self._staging.planes(row, batch, 1), 1)
        self._finish("decode")
        for row in range(batch):
            cache.lengths[row] += 1
        return self._each.logits.array[:batch]

    def close(self) -> None:
        """Free everything; whatever the device says to that, as after a failure it may refuse."""
        # Contexts before engines, and both before the memory that they use.
        while self._steps:
            with suppress(CudaError):
                self._steps.popitem()[1].replay.close()
        for name in ("_encoder", "_prefiller", "_pixels", "_features", "_chunk", "_each"):
            self.__dict__.pop(name, None)
        for name in ("_decoder", "_vision"):
            engine: LoadedEngine | None = self.__dict__.pop(name, None)
            if engine is not None:
                engine.close()
        with suppress(CudaError):
            self._memory.close()
        with suppress(CudaError):
            self._cudart.destroy_event(self._event)
        with suppress(CudaError):
            self._cudart.destroy_stream(self.stream)

    def _load(self, libraries: Libraries) -> None:
        self._vision = LoadedEngine(libraries, self.engines.vision.path)
        self._decoder = LoadedEngine(libraries, self.engines.decoder.path)
        self._check_tensors()
        self._rows = self._decoder.limits("inputs_embeds", DECODE)[1][0]
        _, self._heads, self._positions, head_dim = self._decoder.tensors["past_key_0"].shape
        self._head_bytes = head_dim * self._decoder.tensors["past_key_0"].kind.itemsize
        size = aligned(max(self._vision.workspace, self._decoder.workspace))
        self._workspace = self._memory.allocate(size, "the engines' workspace")
        self._allocate()
        self._encoder = self._vision.context(0, self._workspace, self.stream)
        self._encoder.bind(
            {"pixels": self._pixels.address, "features": self._features.address}, {"pixels": self._pixels.array.shape}
        )
        self._prefiller = self._decoder.context(PREFILL, self._workspace, self.stream)

    def _allocate(self) -> None:
        """What goes to the engines and comes back."""
        pixels = self._vision.tensors["pixels"]
        self._pixels = self._memory.map((1, *pixels.shape[1:]), pixels.kind, "pixels")
        self._features = self._memory.map((1, *self._visual), np.dtype(np.float32), "visual tokens")
        chunk = self._decoder.limits("inputs_embeds", PREFILL)[1][1]
        wanted = self._decoder.limits("logits_at", PREFILL)[1][1]
        self._chunk = self._new_arrays(chunk, wanted, "prefill")
        self._each = self._new_arrays(self._rows, self._rows, "decode")
        self._staging: Staging | None = None
        if "new_key_0" in self._decoder.tensors:
            shape = CacheShape(2 * self._spec.layers, self._rows, self._heads, self._positions, self._head_bytes)
            self._staging = Staging(self._memory, shape, max(chunk, self._rows))

    def _new_arrays(self, tokens: int, wanted: int, purpose: str) -> _Arrays:
        hidden, vocabulary = self._spec.hidden_size, self._spec.vocab_size
        return _Arrays(
            embeddings=self._memory.map((tokens, hidden), np.dtype(np.float32), f"{purpose}: embeddings"),
            positions=self._memory.map((tokens,), np.dtype(np.int64), f"{purpose}: positions"),
            wanted=self._memory.map((wanted,), np.dtype(np.int64), f"{purpose}: places of logits"),
            logits=self._memory.map((wanted, vocabulary), np.dtype(np.float32), f"{purpose}: logits"),
        )

    def _run_chunk(self, cache: DeviceKVCache, row: int, embeddings: np.ndarray, wanted: Sequence[int]) -> np.ndarray:
        """One prefill run; returns float32 [len(wanted), vocab], valid until the next."""
        length, past = len(embeddings), cache.lengths[row]
        arrays = self._chunk
        arrays.embeddings.array[:length] = embeddings
        arrays.positions.array[:length] = np.arange(past, past + length)
        arrays.wanted.array[: len(wanted)] = wanted
        self._bind(self._prefiller, cache, _Run(row, 1, length, len(wanted)), arrays)
        self._prefiller.enqueue(self.stream)
        if self._staging is not None:
            cache.take(row, self._staging.planes(0, 1, length), length)
        self._finish("prefill")
        cache.lengths[row] = past + length
        return arrays.logits.array[: len(wanted)]

    def _step(self, cache: DeviceKVCache, batch: int) -> _Step:
        """A context for each batch size, because a captured graph lasts only while its context is left alone."""
        key = (id(cache), batch)
        if key not in self._steps:
            context = self._decoder.context(DECODE, self._workspace, self.stream)
            self._bind(context, cache, _Run(0, batch, 1, 1), self._each)
            replay = Replay(self._cudart, context, self.stream, self._mode is DecodeMode.CAPTURED)
            self._steps[key] = _Step(cache, replay)
        return self._steps[key]

    def _bind(self, context: Context, cache: DeviceKVCache, run: _Run, arrays: _Arrays) -> None:
        shapes = {
            "inputs_embeds": (run.batch, run.length, self._spec.hidden_size),
            "position_ids": (run.batch, run.length),
            "logits_at": (run.batch, run.wanted),
        }
        addresses = {
            "inputs_embeds": arrays.embeddings.address,
            "position_ids": arrays.positions.address,
            "logits_at": arrays.wanted.address,
            "logits": arrays.logits.address,
        }
        past = (run.batch, *self._decoder.tensors["past_key_0"].shape[1:])
        for tensor in range(2 * self._spec.layers):
            kind = f"{('key', 'value')[tensor % 2]}_{tensor // 2}"
            shapes[f"past_{kind}"] = past
            addresses[f"past_{kind}"] = cache.address(tensor, run.row)
            if self._staging is None:
                addresses[f"present_{kind}"] = cache.address(tensor, run.row)
            else:
                addresses[f"new_{kind}"] = self._staging.address(tensor, run.batch, run.length)
        context.bind(addresses, shapes)

    def _finish(self, stage: str) -> None:
        try:
            self._cudart.finish(self.stream, self._event)
        except CudaError as error:
            raise type(error)(f"{stage} failed: {error.message}", error.status) from error

    def _check_tensors(self) -> None:
        """Raises PackageError where an engine is not the one of the manifest."""
        tensors, layers = self._decoder.tensors, self._spec.layers
        outputs = "new" if "new_key_0" in tensors else "present"
        expected = {"inputs_embeds", "position_ids", "logits_at", "logits"}
        expected |= {f"{part}_{kind}_{i}" for part in ("past", outputs) for kind in ("key", "value") for i in range(layers)}
        if set(tensors) != expected:
            odd = sorted(set(tensors) ^ expected)[0]
            raise PackageError(f"{self.engines.decoder.path}: {odd} does not fit the {layers} layers that the manifest says")
        kinds = {"inputs_embeds": "f4", "logits": "f4", "position_ids": "i8", "logits_at": "i8"}
        for name, kind in kinds.items():
            if tensors[name].kind != np.dtype(kind):
                raise PackageError(f"{self.engines.decoder.path}: {name} is {tensors[name].kind}, wanted {np.dtype(kind)}")
        for name in tensors:
            wanted = name.replace("present", "past") if outputs == "present" and name.startswith("present_") else None
            told = self._decoder.aliased_input(name) if name not in self._decoder.inputs else None
            if told is not None and told != wanted:
                raise PackageError(f"{self.engines.decoder.path}: {name} is to share the memory of {told}")
        features = self._vision.tensors.get("features")
        if features is None or features.shape[1:] != self._visual:
            found = None if features is None else features.shape[1:]
            raise PackageError(f"{self.engines.vision.path}: features of shape {found}, the manifest says {self._visual}")


@dataclass(frozen=True, eq=False)
class _Arrays:
    """What one kind of run reads and writes: embeddings [T, hidden], positions [T], places of logits [K], logits [K, vocab]."""

    embeddings: MappedArray
    positions: MappedArray
    wanted: MappedArray
    logits: MappedArray


@dataclass(frozen=True)
class _Run:
    """The sizes of a run: first row, rows, tokens for each row, logits for each row."""

    row: int
    batch: int
    length: int
    wanted: int


@dataclass(frozen=True, eq=False)
class _Step:
    """A decode step for a batch size of a cache; holds the cache, so that no other takes its identity."""

    cache: DeviceKVCache
    replay: Replay


@dataclass(frozen=True)
class Chunk:
    """A part of a prompt that one run takes: positions `start` to `end`, and those of them whose logits are run for.

    Where nobody wants any, that is the last.
    """

    start: int
    end: int
    wanted: tuple[int, ...]


def chunks(length: int, logits_at: Sequence[int], longest: int, most_logits: int) -> list[Chunk]:
    """Cut a prompt of `length` positions so that no part has over `longest` positions or `most_logits` wanted logits."""
    distinct = sorted(set(logits_at))
    parts, start = [], 0
    while start < length:
        end = min(start + longest, length)
        inside = [at for at in distinct if start <= at < end]
        if len(inside) > most_logits:
            end = inside[most_logits]
        parts.append(Chunk(start, end, tuple(at for at in inside if at < end) or (end - 1,)))
        start = end
    return parts

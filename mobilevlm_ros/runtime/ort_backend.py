"""The model package on ONNX Runtime.

Keys and values live in the cache's own numpy buffers, bound as past and present at once, so a token copies nothing; two decoders,
where a package has one of its own for prompts, share them. Knows the graphs' inputs and outputs (see ARCHITECTURE.md, "The model
package"), not what the tokens mean.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum

import numpy as np
import onnxruntime as ort

from mobilevlm_ros.runtime.errors import BackendError, ErrorCode, PackageError
from mobilevlm_ros.runtime.kv_cache import KVCache
from mobilevlm_ros.runtime.package import PREFILL_DIALECT, GraphFiles, ModelPackage
from mobilevlm_ros.runtime.prefix_tree import PrefixTree
from mobilevlm_ros.runtime.tensor_file import read_tensors

DIALECT = "cpu"
PROVIDERS = ["CPUExecutionProvider"]
CHUNK = 256
"""Positions of a prompt that are computed at once, so that a long one takes little more memory than a short one."""
PREFILL_LEAST = 8
"""Positions from which on a prompt is read with the decoder for prompts, where there is one: it reads twice as many bytes."""
_SPIN_US = "100"
_UNSEEN = -1e9
"""Added to an attention score, so that nothing is left of its share."""


class WeightMemory(Enum):
    """Where weights lie while a model runs."""

    PACKED = "packed"
    """In memory, brought into the form that is multiplied fastest."""
    MAPPED = "mapped"
    """In the package's files, mapped and converted at each use: slow, but a model of any size runs."""


class OrtBackend:
    """Implements `Backend` on the CPU.

    Args:
        package: the verified model package.
        threads: intra-op threads; 0 lets ONNX Runtime take one per physical core.
        memory: where its weights are to lie.
        notice: why it runs here and not on something faster, empty where there is nothing to tell.

    Raises:
        PackageError: a graph cannot be loaded or does not fit the manifest.
    """

    name = "onnxruntime-cpu"

    def __init__(self, package: ModelPackage, threads: int, memory: WeightMemory = WeightMemory.PACKED, notice: str = "") -> None:
        self.notice = notice
        self._memory = memory
        self._spec = package.manifest.decoder
        self._embeddings = package.embeddings()
        self._own_weights: list[ort.OrtValue] = []
        has_prompts = package.has_decoder(PREFILL_DIALECT)
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # the largest first
            prompts = pool.submit(self._open_session, package.decoder(PREFILL_DIALECT), threads) if has_prompts else None
            decoder = pool.submit(self._open_session, package.decoder(DIALECT), threads)
            vision = pool.submit(self._open_session, package.vision, threads)
            self._decoder, self._vision = decoder.result(), vision.result()
            self._prompts = self._decoder if prompts is None else prompts.result()
        self._check_vision(package)
        self._check_decoder(self._decoder, package.decoder(DIALECT))
        if has_prompts:
            self._check_decoder(self._prompts, package.decoder(PREFILL_DIALECT))
        self._steps: dict[tuple[int, int], _DecodeStep] = {}

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        try:
            (features,) = self._vision.run(["features"], {"pixels": pixels})
        except Exception as error:
            raise _backend_error("encoding the picture", error) from error
        return np.asarray(features)

    def embed(self, tokens: Sequence[int]) -> np.ndarray:
        return self._embeddings[np.asarray(tokens, np.int64)].astype(np.float32)

    def new_cache(self, rows: int, capacity: int) -> KVCache:
        return KVCache(self._spec, rows, capacity)

    def prefill(self, cache: KVCache, row: int, embeddings: np.ndarray, logits_at: Sequence[int]) -> np.ndarray:
        logits = np.empty((len(logits_at), self._spec.vocab_size), np.float32)
        for start in range(0, len(embeddings), CHUNK):
            chunk = embeddings[start : start + CHUNK]
            wanted = [place for place, at in enumerate(logits_at) if start <= at < start + len(chunk)]
            # A graph asked for no logits would still have to compute some.
            found = self._prefill_chunk(cache, row, chunk, [logits_at[place] - start for place in wanted] or [0])
            logits[wanted] = found[: len(wanted)]
        return logits

    def _prefill_chunk(self, cache: KVCache, row: int, embeddings: np.ndarray, logits_at: Sequence[int]) -> np.ndarray:
        length = embeddings.shape[0]
        past = cache.lengths[row]
        logits = np.empty((1, len(logits_at), self._spec.vocab_size), np.float32)
        inputs: dict[str, np.ndarray] = {
            "inputs_embeds": np.ascontiguousarray(embeddings[None]),
            "seqlens_k": np.array([past + length - 1], np.int32),
            "total_sequence_length": np.array(past + length, np.int32),
            "position_ids": np.arange(past, past + length, dtype=np.int64)[None],
            "attention_bias": np.zeros((1, 1, length, past + length), np.float32),
            "logits_at": np.array([logits_at], np.int64),
        }
        self._read(cache, row, inputs, logits, "prefill")
        cache.lengths[row] = past + length
        return np.asarray(logits[0])

    def branch(self, cache: KVCache, row: int, tree: PrefixTree) -> np.ndarray:
        nodes = len(tree.tokens)
        past = cache.lengths[row]
        logits = np.empty((1, nodes, self._spec.vocab_size), np.float32)
        inputs: dict[str, np.ndarray] = {
            "inputs_embeds": self.embed(tree.tokens)[None],
            "seqlens_k": np.array([past + nodes - 1], np.int32),
            "total_sequence_length": np.array(past + nodes, np.int32),
            "position_ids": past + np.array([tree.depths], np.int64),
            "attention_bias": np.concatenate([np.zeros((nodes, past), np.float32), _tree_bias(tree)], axis=1)[None, None],
            "logits_at": np.arange(nodes, dtype=np.int64)[None],
        }
        self._read(cache, row, inputs, logits, "scoring")
        return np.asarray(logits[0])

    def _read(self, cache: KVCache, row: int, inputs: dict[str, np.ndarray], logits: np.ndarray, stage: str) -> None:
        """Run several positions of one row."""
        session = self._prompts if inputs["position_ids"].size >= PREFILL_LEAST else self._decoder
        _run(session, self._bind(session, cache, slice(row, row + 1), inputs, logits), stage)

    def decode(self, cache: KVCache, tokens: Sequence[int]) -> np.ndarray:
        batch = len(tokens)
        step = self._step(cache, batch)
        lengths = cache.lengths[:batch]
        step.inputs["inputs_embeds"][:, 0] = self.embed(tokens)
        step.inputs["seqlens_k"][:] = lengths
        step.inputs["position_ids"][:, 0] = lengths
        longest = max(lengths) + 1
        step.inputs["total_sequence_length"][...] = longest
        step.binding.bind_input("attention_bias", "cpu", 0, np.float32, (1, 1, 1, longest), step.no_bias.ctypes.data)
        _run(self._decoder, step.binding, "decode")
        for row in range(batch):
            cache.lengths[row] += 1
        return step.logits[:, 0]

    def close(self) -> None:
        self._steps.clear()
        del self._vision, self._decoder, self._prompts, self._embeddings
        self._own_weights.clear()  # after the sessions, which point into them

    def _open_session(self, files: GraphFiles, threads: int) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        options.enable_mem_pattern = False  # it would plan memory anew for every length of a prompt, and keep each plan
        # Threads that wait for each other's share of an operator do so awake, but not for long, and never between two runs: a
        # robot's processor has other work. Older versions of ONNX Runtime know only the second of these.
        options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_US)
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if self._memory is WeightMemory.MAPPED:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.enable_cpu_mem_arena = False
            # The default order begins with all conversions from float16, and would hold every one of them at once.
            options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
            options.add_session_config_entry("session.disable_prepacking", "1")
        try:
            if files.weights_folder == files.graph.parent:
                return ort.InferenceSession(str(files.graph), options, providers=PROVIDERS)
            # A graph that comes as bytes has no folder of its own, so another's can be named.
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(files.weights_folder))
            own = {} if files.own_weights is None else read_tensors(files.own_weights)
            values = [ort.OrtValue.ortvalue_from_numpy(array) for array in own.values()]
            self._own_weights += values
            options.add_external_initializers(list(own), values)
            return ort.InferenceSession(files.graph.read_bytes(), options, providers=PROVIDERS)
        except PackageError:
            raise
        except Exception as error:
            text = f"ONNX Runtime {ort.__version__} cannot load the graph: {_first_line(error)}"
            raise PackageError(f"{files.graph}: {text}") from error

    def _step(self, cache: KVCache, batch: int) -> _DecodeStep:
        key = (id(cache), batch)
        if key not in self._steps:
            self._steps[key] = self._new_step(cache, batch)
        return self._steps[key]

    def _new_step(self, cache: KVCache, batch: int) -> _DecodeStep:
        inputs: dict[str, np.ndarray] = {
            "inputs_embeds": np.zeros((batch, 1, self._spec.hidden_size), np.float32),
            "seqlens_k": np.zeros(batch, np.int32),
            "total_sequence_length": np.zeros((), np.int32),
            "position_ids": np.zeros((batch, 1), np.int64),
            "logits_at": np.zeros((batch, 1), np.int64),
        }
        logits = np.zeros((batch, 1, self._spec.vocab_size), np.float32)
        binding = self._bind(self._decoder, cache, slice(0, batch), inputs, logits)
        return _DecodeStep(cache, inputs, np.zeros(cache.capacity, np.float32), logits, binding)

    @staticmethod
    def _bind(
        session: ort.InferenceSession, cache: KVCache, rows: slice, inputs: dict[str, np.ndarray], logits: np.ndarray
    ) -> ort.IOBinding:
        """Bind arrays by address; the caller keeps them alive until the run is over."""
        binding = session.io_binding()
        for name, array in inputs.items():
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        for layer, (keys, values) in enumerate(zip(cache.keys, cache.values)):
            for kind, buffer in (("key", keys[rows]), ("value", values[rows])):
                address = buffer.ctypes.data
                binding.bind_input(f"past_{kind}_{layer}", "cpu", 0, np.float32, buffer.shape, address)
                binding.bind_output(f"present_{kind}_{layer}", "cpu", 0, np.float32, buffer.shape, address)
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        return binding

    def _check_vision(self, package: ModelPackage) -> None:
        found = list(self._vision.get_outputs()[0].shape[1:])
        expected = [package.manifest.vision.tokens, self._spec.hidden_size]
        if found != expected:
            raise PackageError(f"{package.vision.graph}: features of shape {found}, the manifest says {expected}")

    def _check_decoder(self, session: ort.InferenceSession, files: GraphFiles) -> None:
        names = {value.name for value in session.get_inputs()}
        if "attention_bias" not in names:
            raise PackageError(f"{files.graph}: written by an older version; convert the checkpoint again")
        last = f"past_value_{self._spec.layers - 1}"
        if last not in names or f"past_value_{self._spec.layers}" in names:
            raise PackageError(f"{files.graph}: not the {self._spec.layers} layers that the manifest says")


@dataclass(frozen=True, eq=False)
class _DecodeStep:
    """A decode step's arrays and the binding that holds their addresses, made once per cache and batch size.

    `no_bias` is as long as the cache; each step binds as much of it as it has positions.
    """

    cache: KVCache
    inputs: dict[str, np.ndarray]
    no_bias: np.ndarray
    logits: np.ndarray
    binding: ort.IOBinding


def _run(session: ort.InferenceSession, binding: ort.IOBinding, stage: str) -> None:
    try:
        session.run_with_iobinding(binding)
    except Exception as error:
        raise _backend_error(stage, error) from error


def _tree_bias(tree: PrefixTree) -> np.ndarray:
    """float32 [nodes, nodes] to be added to the scores: a node sees itself and what stands above it."""
    bias = np.full((len(tree.tokens),) * 2, _UNSEEN, np.float32)
    for node in range(len(tree.tokens)):
        bias[node, list(tree.ancestors(node))] = 0.0
    return bias


def _backend_error(stage: str, error: Exception) -> BackendError:
    text = _first_line(error)
    out_of_memory = isinstance(error, MemoryError) or "alloc" in text.lower()
    code = ErrorCode.OUT_OF_MEMORY if out_of_memory else ErrorCode.MODEL_ERROR
    return BackendError(f"{stage} failed: {text}", code)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]

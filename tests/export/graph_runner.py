"""Drives a package's graphs with ONNX Runtime and nothing else, to see the graphs and not the runtime."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort


def open_graph(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class GraphRunner:
    """Both graphs of a package, and key-value buffers for `rows` sequences that past and present share."""

    def __init__(self, package: Path, rows: int = 1, capacity: int = 256) -> None:
        decoder = json.loads((package / "manifest.json").read_text())["decoder"]
        self.vision = open_graph(package / "vision.onnx")
        self.decoder = open_graph(package / "decoder.cpu.onnx")
        self.table = np.load(package / "embeddings.npy", mmap_mode="r", allow_pickle=False)
        shape = (rows, decoder["kv_heads"], capacity, decoder["head_dim"])
        self.cache = {f"{kind}_{i}": np.zeros(shape, np.float32) for i in range(decoder["layers"]) for kind in ("key", "value")}
        self.vocab: int = decoder["vocab_size"]
        self.past = np.zeros(rows, np.int64)

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        return np.asarray(self.vision.run(["features"], {"pixels": pixels})[0])

    def embed(self, ids: list[int]) -> np.ndarray:
        return np.asarray(self.table[ids], np.float32)

    def step(self, embeds: np.ndarray, positions: np.ndarray, row: int | None = None) -> np.ndarray:
        """Appends [B, S, hidden] to the caches (of one row or of all); logits [B, K, vocab] at `positions` [B, K]."""
        rows = slice(None) if row is None else slice(row, row + 1)
        length = embeds.shape[1]
        inputs = {
            "inputs_embeds": np.ascontiguousarray(embeds, np.float32),
            "seqlens_k": (self.past[rows] + length - 1).astype(np.int32),
            "total_sequence_length": np.array(self.past[rows].max() + length, np.int32),
            "position_ids": self.past[rows][:, None] + np.arange(length),
            "attention_bias": np.zeros((1, 1, length, int(self.past[rows].max()) + length), np.float32),
            "logits_at": np.ascontiguousarray(positions, np.int64),
        }
        logits = np.zeros((*positions.shape, self.vocab), np.float32)
        binding = self.decoder.io_binding()
        for name, array in inputs.items():
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        for name, buffer in self.cache.items():
            part = buffer[rows]
            binding.bind_input(f"past_{name}", "cpu", 0, np.float32, part.shape, part.ctypes.data)
            binding.bind_output(f"present_{name}", "cpu", 0, np.float32, part.shape, part.ctypes.data)
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        self.decoder.run_with_iobinding(binding)
        self.past[rows] += length
        return logits

    def prefill(self, embeds: np.ndarray, positions: list[int], row: int = 0) -> np.ndarray:
        """Appends [S, hidden] to a row; logits [len(positions), vocab]."""
        return self.step(embeds[None], np.array([positions], np.int64), row)[0]

    def greedy(self, logits: np.ndarray, count: int, eos: int = 2) -> list[int]:
        """Goes on in row 0 from the logits [vocab] of its last position."""
        tokens = [int(logits.argmax())]
        while len(tokens) < count and tokens[-1] != eos:
            tokens.append(int(self.prefill(self.embed(tokens[-1:]), [0])[0].argmax()))
        return tokens

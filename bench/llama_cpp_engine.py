"""llama.cpp as `bench.cpu` drives it: through the C API that llama-cpp-python binds, its vision part (mtmd) among it.

It is used as its own server uses it: what stands before the picture stays in the cache, a follow-up keeps the picture's keys and
values, and four questions about one picture share them and decode as one batch. Needs the packages of requirements/bench.txt.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.cpu_stages import (
    ANSWER_TOKENS,
    AT_ONCE,
    DECODE_TOKENS,
    FOLLOW_UP_TOKENS,
    HEAD_TOKENS,
    PROMPT_TOKENS,
    TAIL_TOKENS,
    VISUAL_TOKENS,
    BenchError,
    Stage,
    token_ids,
)
from mobilevlm_ros.checkpoint.config import MobileVlmConfig

_CONTEXT = 1024
_BATCH = 512
_IMAGE_CHUNK = 1
_F16_BYTES = 2


class LlamaCpp:
    """Implements `Subject`; loads both files.

    Raises:
        BenchError: the library refuses a file, or a stage.
    """

    def __init__(self, language: Path, vision: Path, config: MobileVlmConfig, threads: int) -> None:
        import llama_cpp
        from llama_cpp import mtmd_cpp

        self._lib: Any = llama_cpp
        self._mtmd: Any = mtmd_cpp
        self._silence()
        llama_cpp.llama_backend_init()
        self._model = llama_cpp.llama_model_load_from_file(str(language).encode(), llama_cpp.llama_model_default_params())
        if not self._model:
            raise BenchError(f"{language}: llama.cpp does not load it")
        self._context = self._new_context(threads)
        self._memory = self._lib.llama_get_memory(self._context)
        self._eyes = self._new_eyes(vision, threads)
        self._batch = self._lib.llama_batch_init(_BATCH, 0, 1)
        self._vocab = config.vocab_size
        self._hidden = config.hidden_size
        self._head_kept = False
        kept = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * _F16_BYTES
        self.bytes_per_token = _bytes_read(language) + PROMPT_TOKENS * kept
        self._stages: dict[Stage, Callable[[np.ndarray], float]] = {
            Stage.ENCODE: self._encode_stage,
            Stage.PREFILL: self._prefill_stage,
            Stage.DECODE: self._decode_stage,
            Stage.FIRST_QUESTION: self._first_question,
            Stage.FOLLOW_UP: self._follow_up,
            Stage.FOUR_AT_ONCE: self._four_at_once,
        }

    def run(self, stage: Stage, picture: np.ndarray) -> float:
        return self._stages[stage](picture)

    def _silence(self) -> None:
        self._log = self._lib.llama_log_callback(lambda level, text, data: None)
        self._lib.llama_log_set(self._log, None)
        self._mtmd.mtmd_log_set(self._log, None)
        self._mtmd.mtmd_helper_log_set(self._log, None)

    def _new_context(self, threads: int) -> Any:
        params = self._lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = _CONTEXT, _BATCH, _BATCH
        params.n_threads = params.n_threads_batch = threads
        params.n_seq_max, params.kv_unified = AT_ONCE, True
        context = self._lib.llama_init_from_model(self._model, params)
        if not context:
            raise BenchError("llama.cpp makes no context")
        return context

    def _new_eyes(self, vision: Path, threads: int) -> Any:
        params = self._mtmd.mtmd_context_params_default()
        params.use_gpu, params.print_timings, params.n_threads = False, False, threads
        eyes = self._mtmd.mtmd_init_from_file(str(vision).encode(), self._model, params)
        if not eyes:
            raise BenchError(f"{vision}: llama.cpp does not load it")
        return eyes

    def _encode_stage(self, picture: np.ndarray) -> float:
        start = time.perf_counter()
        self._encode(picture)
        return _since(start)

    def _prefill_stage(self, picture: np.ndarray) -> float:
        self._forget()
        start = time.perf_counter()
        self._take(token_ids(PROMPT_TOKENS), 0)
        return _since(start)

    def _decode_stage(self, picture: np.ndarray) -> float:
        self._forget()
        token = self._take(token_ids(PROMPT_TOKENS), 0)
        start = time.perf_counter()
        self._answer(token, PROMPT_TOKENS, DECODE_TOKENS + 1)
        return _since(start)

    def _first_question(self, picture: np.ndarray) -> float:
        self._keep_head()
        start = time.perf_counter()
        self._take_picture(picture)
        self._question(TAIL_TOKENS)
        return _since(start)

    def _follow_up(self, picture: np.ndarray) -> float:
        start = time.perf_counter()
        self._lib.llama_memory_seq_rm(self._memory, 0, HEAD_TOKENS + VISUAL_TOKENS, -1)
        self._question(FOLLOW_UP_TOKENS)
        return _since(start)

    def _question(self, length: int) -> None:
        begin = HEAD_TOKENS + VISUAL_TOKENS
        self._answer(self._take(token_ids(length), begin), begin + length, ANSWER_TOKENS)

    def _four_at_once(self, picture: np.ndarray) -> float:
        self._keep_head()
        start = time.perf_counter()
        self._take_picture(picture)
        for row in range(1, AT_ONCE):
            self._lib.llama_memory_seq_cp(self._memory, 0, row, -1, -1)
        begin = HEAD_TOKENS + VISUAL_TOKENS
        rows = [(token, begin + at, row) for row in range(AT_ONCE) for at, token in enumerate(token_ids(TAIL_TOKENS))]
        chosen = self._run(rows, [TAIL_TOKENS * (row + 1) - 1 for row in range(AT_ONCE)])
        for place in range(begin + TAIL_TOKENS, begin + TAIL_TOKENS + ANSWER_TOKENS - 1):
            chosen = self._run([(token, place, row) for row, token in enumerate(chosen)], range(AT_ONCE))
        spent = _since(start)
        for row in range(1, AT_ONCE):
            self._lib.llama_memory_seq_rm(self._memory, row, -1, -1)
        return spent

    def _keep_head(self) -> None:
        """Leave in the cache what stands before the picture, and nothing else."""
        if not self._head_kept:
            self._forget()
            self._take(token_ids(HEAD_TOKENS), 0)
            self._head_kept = True
        self._lib.llama_memory_seq_rm(self._memory, 0, HEAD_TOKENS, -1)

    def _forget(self) -> None:
        self._lib.llama_memory_clear(self._memory, False)
        self._head_kept = False

    def _take(self, tokens: Sequence[int], begin: int) -> int:
        """Append tokens to the first row; returns the likeliest next one."""
        return self._run([(token, begin + at, 0) for at, token in enumerate(tokens)], [len(tokens) - 1])[0]

    def _answer(self, first: int, begin: int, length: int) -> None:
        """The rest of an answer of `length` tokens whose first is known."""
        token = first
        for place in range(begin, begin + length - 1):
            token = self._take([token], place)

    def _run(self, tokens: Sequence[tuple[int, int, int]], wanted: Sequence[int]) -> list[int]:
        """Take in (token, position, row); returns the likeliest token behind each of the `wanted` ones."""
        batch = self._batch
        batch.n_tokens = len(tokens)
        for at, (token, place, row) in enumerate(tokens):
            batch.token[at], batch.pos[at], batch.n_seq_id[at], batch.logits[at] = token, place, 1, 0
            batch.seq_id[at][0] = row
        for at in wanted:
            batch.logits[at] = 1
        self._decode(batch)
        return [self._likeliest(at) for at in wanted]

    def _likeliest(self, at: int) -> int:
        logits = self._lib.llama_get_logits_ith(self._context, at)
        return int(np.ctypeslib.as_array(logits, (self._vocab,)).argmax())

    def _take_picture(self, picture: np.ndarray) -> None:
        """Encode a picture and put it behind the head."""
        features = self._encode(picture)
        count = VISUAL_TOKENS
        batch = self._lib.llama_batch()
        rows = (ctypes.POINTER(ctypes.c_int32) * count)(*[ctypes.pointer(ctypes.c_int32(0))] * count)
        batch.n_tokens, batch.embd = count, features
        batch.pos = (ctypes.c_int32 * count)(*range(HEAD_TOKENS, HEAD_TOKENS + count))
        batch.n_seq_id, batch.seq_id = (ctypes.c_int32 * count)(*[1] * count), rows
        batch.logits = (ctypes.c_int8 * count)()
        self._decode(batch)

    def _decode(self, batch: Any) -> None:
        status = self._lib.llama_decode(self._context, batch)
        if status != 0:
            raise BenchError(f"llama_decode ended with status {status}")

    def _encode(self, picture: np.ndarray) -> Any:
        """The visual tokens, which stay valid until the next picture: a pointer to float32 [VISUAL_TOKENS, hidden]."""
        mtmd = self._mtmd
        height, width, _ = picture.shape
        bitmap = mtmd.mtmd_bitmap_init(width, height, picture.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)))
        chunks = mtmd.mtmd_input_chunks_init()
        try:
            marker = mtmd.mtmd_default_marker()
            text = mtmd.mtmd_input_text(text=marker, text_len=len(marker), add_special=False, parse_special=True)
            if mtmd.mtmd_tokenize(self._eyes, chunks, ctypes.byref(text), (ctypes.c_void_p * 1)(bitmap), 1) != 0:
                raise BenchError("mtmd does not take the picture")
            found = [mtmd.mtmd_input_chunks_get(chunks, at) for at in range(mtmd.mtmd_input_chunks_size(chunks))]
            (chunk,) = (one for one in found if mtmd.mtmd_input_chunk_get_type(one) == _IMAGE_CHUNK)
            if mtmd.mtmd_input_chunk_get_n_tokens(chunk) != VISUAL_TOKENS or mtmd.mtmd_encode_chunk(self._eyes, chunk) != 0:
                raise BenchError("mtmd does not encode the picture")
            return mtmd.mtmd_get_output_embd(self._eyes)
        finally:
            mtmd.mtmd_input_chunks_free(chunks)
            mtmd.mtmd_bitmap_free(bitmap)


def _bytes_read(language: Path) -> int:
    """Bytes of the weights that each token reads: all but the table of embeddings."""
    from gguf import GGUFReader

    return sum(int(tensor.n_bytes) for tensor in GGUFReader(language).tensors if tensor.name != "token_embd.weight")


def _since(start: float) -> float:
    return (time.perf_counter() - start) * 1e3

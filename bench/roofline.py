"""From paper to practice: what the traffic model `mobilevlm_ros.bench.roofline` says of the released checkpoints on Jetson Orin.

    python -m bench.roofline            # the anchors, each predicted from the others, then every checkpoint on every board
    python -m bench.roofline --json

Predictions, checked against what was published for other models; nothing here was measured on an Orin.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from mobilevlm_ros.bench.roofline import (
    ANCHORS,
    CLIP_L_336,
    Anchor,
    Language,
    Orin,
    Prediction,
    Range,
    Shape,
    Tower,
    efficiency,
    predict,
)
from mobilevlm_ros.checkpoint.config import MobileVlmConfig
from mobilevlm_ros.hub.catalogue import catalogue
from mobilevlm_ros.models import NANO

PAPER_DECODE = 65.3
"""Tokens a second of MobileVLM-1.7B with llama.cpp on an AGX Orin: the paper's figure, of which the goal is twice as much."""


def shape_of_config(config: MobileVlmConfig, bits: int) -> Shape:
    """A released checkpoint as the traffic model sees it."""
    language = Language(
        config.num_hidden_layers,
        config.hidden_size,
        config.intermediate_size,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
        config.vocab_size,
    )
    patches = config.vision.grid**2
    projector = 2.0 * patches * (config.vision.hidden_size * config.hidden_size + config.hidden_size**2)
    tower = Tower(CLIP_L_336.layers, CLIP_L_336.width, CLIP_L_336.inner, patches + 1, projector)
    return Shape(language, tower, bits)


def left_out(anchor: Anchor) -> Prediction:
    """An anchor predicted from the other ones."""
    rest = tuple(other for other in ANCHORS if other is not anchor)
    return predict(anchor.shape, anchor.board, anchor.prompt, positions=anchor.positions, shares=efficiency(rest))


def main() -> int:
    """Print the tables, or one JSON object."""
    parser = argparse.ArgumentParser(
        prog="bench.roofline", description="What a Jetson Orin should reach, from bytes and operations."
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    boards = [board.value for board in Orin]
    released = [entry for entry in catalogue() if entry.name != NANO]
    predictions = {
        (entry.name, bits, board.name): predict(shape_of_config(entry.config, bits), board)
        for entry in released
        for bits in (4, 16)
        for board in boards
    }
    if args.json:
        rows = [
            {"checkpoint": name, "bits": bits, "board": board, **asdict(found)}
            for (name, bits, board), found in predictions.items()
        ]
        print(json.dumps({"efficiency": asdict(efficiency()), "predictions": rows}))
        return 0
    _print_anchors()
    print(
        "\nPredicted, 194 tokens of prompt, 20 of answer, a cache of 512 positions; from the anchors' worst to their best shares"
    )
    print(
        f"{'checkpoint':<18} {'weights':<8} {'board':<16} {'encode ms':>11} {'prefill ms':>12} {'tokens/s':>12} {'answer s':>13}"
    )
    for (name, bits, board), found in predictions.items():
        weights = "INT4" if bits == 4 else "fp16"
        answer = Range(found.answer_ms.low / 1e3, found.answer_ms.high / 1e3)
        print(
            f"{name:<18} {weights:<8} {board:<16} {_span(found.encode_ms):>11} {_span(found.prefill_ms):>12} "
            f"{_span(found.decode_tokens_per_s):>12} {answer.low:>6.2f}-{answer.high:.2f}"
        )
    return 0


def _print_anchors() -> None:
    print("Published of other models in INT4 (TensorRT-Edge-LLM), and each as the others predict it")
    stages = [f"{title:>{width}} {'predicted':>11}" for title, width in (("tokens/s", 8), ("encode ms", 9), ("prefill ms", 10))]
    print(f"{'board':<16} " + "   ".join(stages))
    for anchor in ANCHORS:
        found = left_out(anchor)
        encode = f"{anchor.encode_ms:>9.0f} {_span(found.encode_ms):>11}" if anchor.encode_ms else f"{'-':>9} {'':>11}"
        prefill = f"{anchor.prefill_ms:>10.0f} {_span(found.prefill_ms):>11}" if anchor.prefill_ms else f"{'-':>10} {'':>11}"
        print(f"{anchor.board.name:<16} {anchor.decode:>8.1f} {_span(found.decode_tokens_per_s):>11}   {encode}   {prefill}")
    shares = efficiency()
    print(
        f"Shares of the peak: bandwidth {_percent(shares.decode)} in decoding; "
        f"tensor cores {_percent(shares.encode)} in encoding, {_percent(shares.prefill)} in prefill"
    )


def _span(found: Range) -> str:
    return f"{found.low:.0f}-{found.high:.0f}"


def _percent(found: Range) -> str:
    return f"{100 * found.low:.0f}-{100 * found.high:.0f}%"


if __name__ == "__main__":
    sys.exit(main())

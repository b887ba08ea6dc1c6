"""`mobilevlm ask`: a question about a picture file."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mobilevlm_ros.models import shipped_package
from mobilevlm_ros.runtime.engine import Engine, EngineConfig
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.sampling import SamplingParams
from mobilevlm_ros.tasks import Answer, Settings, ask

EXAMPLES = """examples:
  mobilevlm ask kitchen.jpg "What is on the table?"
  mobilevlm ask kitchen.jpg "Is the door open?" --json | jq -r .text
"""


def add_ask_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the `mobilevlm` parser."""
    parser = commands.add_parser(
        "ask",
        help="answer a question about a picture",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("image", type=Path, help="picture file (JPEG, PNG, ...)")
    parser.add_argument("question")
    parser.add_argument("--model", type=Path, metavar="PACKAGE", help="model package folder (default: the nano model)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the words as they come")
    parser.add_argument("--temperature", type=float, default=0.2, metavar="T", help="0 is greedy (default: 0.2)")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P", help="probability mass to sample from (default: 1)")
    parser.add_argument("--seed", type=int, help="makes sampling repeatable")
    parser.add_argument("--max-tokens", type=int, default=512, metavar="N", help="longest answer (default: 512)")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="processor threads (default: one per core)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Answer and print; 1 if the answer ended early."""
    sampling = SamplingParams(args.max_tokens, args.temperature, args.top_p, args.seed)
    frame = read_picture(args.image)
    start = time.perf_counter()
    with Engine.open(args.model or shipped_package(), EngineConfig(threads=args.threads, rows=1)) as engine:
        load_ms = (time.perf_counter() - start) * 1e3
        on_text = None if args.json else _print_piece
        answer = ask(engine, frame, args.question, Settings(sampling), on_text)
        if args.json:
            print(json.dumps(_as_json(answer, engine.manifest.name, load_ms), ensure_ascii=False))
        else:
            print()
    if answer.error is not ErrorCode.NONE:
        raise VlmError(answer.error, answer.error_msg)
    return 0


def read_picture(path: Path) -> Frame:
    """A picture file as a frame, turned the way its EXIF orientation says.

    Raises:
        VlmError: BAD_IMAGE if there is no such file or it is no picture.
    """
    try:
        with Image.open(path) as image:
            return Frame(np.asarray(ImageOps.exif_transpose(image).convert("RGB")))
    except UnidentifiedImageError as error:
        raise VlmError(ErrorCode.BAD_IMAGE, f"{path}: not a picture that can be read") from error
    except (OSError, Image.DecompressionBombError) as error:
        raise VlmError(ErrorCode.BAD_IMAGE, f"{path}: {error.__class__.__name__}: {error}") from error


def _print_piece(piece: str) -> None:
    print(piece, end="", flush=True, file=sys.stdout)


def _as_json(answer: Answer, model: str, load_ms: float) -> dict[str, object]:
    timing = {"load_ms": load_ms, **asdict(answer.timing)}
    return {
        "text": answer.text,
        "token_ids": list(answer.token_ids),
        "prompt_tokens": answer.prompt_tokens,
        "answer_tokens": answer.answer_tokens,
        "confidence": round(answer.confidence, 6),
        "model": model,
        "timing": {name: round(value, 3) for name, value in timing.items()},
    }

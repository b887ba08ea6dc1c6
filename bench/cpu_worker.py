"""A process that holds one engine and times the stages it is told, line by line on its standard input.

Started by `cpu_process`. Answers each line with one of JSON; what libraries print goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.cpu_files import our_package, released_config
from bench.cpu_stages import BenchError, Stage, Subject, noise
from mobilevlm_ros.runtime.errors import VlmError
from mobilevlm_ros.runtime.package import PREFILL_DIALECT, ModelPackage

ENGINES = (
    "ours",
    "ours-int8-prefill",
    "llama.cpp-Q4_0",
    "llama.cpp-Q4_K_M",
    "llama.cpp-Q4_0-vision-Q8_0",
    "torch-bfloat16",
    "torch-float32",
)


def loader(engine: str, work: Path, threads: int) -> Callable[[], Subject]:
    """What loads the engine with that name, its files below `work`; its libraries are imported when this returns."""
    family, _, form = engine.partition("-")
    if family == "ours":
        from bench.cpu_ours import Ours

        package = ModelPackage.open_unverified(our_package(work))
        return lambda: Ours(package if form else package.without_decoder(PREFILL_DIALECT), threads)
    config = released_config()
    if family == "torch":
        from bench.torch_engine import Torch, TorchType

        return lambda: Torch(config, TorchType(form), threads)
    from bench.llama_cpp_engine import LlamaCpp
    from bench.llama_cpp_files import LanguageForm, VisionForm, language_file, vision_file

    language, _, vision = form.partition("-vision-")
    paths = language_file(work, config, LanguageForm(language), threads), vision_file(work, config, VisionForm(vision or "F16"))
    return lambda: LlamaCpp(*paths, config, threads)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    # Answers have a channel of their own, which no library knows.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        load = loader(args.engine, args.work, args.threads)
        start = time.perf_counter()
        subject = load()
        answers.write(json.dumps({"load_ms": _since(start), "bytes_per_token": subject.bytes_per_token}) + "\n")
        for line in sys.stdin:
            stage, seed = line.split()
            answers.write(json.dumps({"ms": subject.run(Stage(stage), noise(int(seed)))}) + "\n")
    except (BenchError, VlmError) as error:
        answers.write(json.dumps({"error": str(error)}) + "\n")
        return 1
    return 0


def _since(start: float) -> float:
    return (time.perf_counter() - start) * 1e3


if __name__ == "__main__":
    raise SystemExit(main())

"""A measurement in the forms in which it is shown: lines for a terminal, values for JSON, Markdown to paste."""

from __future__ import annotations

import json
import platform

import onnxruntime

from mobilevlm_ros import __version__
from mobilevlm_ros.bench.stages import ANSWER_TOKENS, PICTURE_SIZE, BenchOptions, Measurement, Stage
from mobilevlm_ros.machine import Machine, gibibytes
from mobilevlm_ros.runtime.package import PREFILL_DIALECT, decoder_name

_TITLES = {
    "load_ms": ("load and verify", "ms"),
    "encode_ms": ("encode a picture", "ms"),
    "prefill_ms": ("prefill {prompt} tokens, {kept} of them kept", "ms"),
    "prefill_tokens_per_s": ("prefill", "tokens/s"),
    "decode_tokens_per_s": ("decode", "tokens/s"),
    "first_question_ms": ("first question, {answer} tokens", "ms"),
    "follow_up_ms": ("follow-up on the same picture", "ms"),
    "four_at_once_ms": ("four at once about one new picture", "ms"),
    "peak_memory_mib": ("peak memory", "MiB"),
}


def facts(measured: Measurement, machine: Machine, options: BenchOptions) -> dict[str, str]:
    """What was measured, with what and on what."""
    manifest = measured.manifest
    width, height = PICTURE_SIZE
    precisions = dict.fromkeys((manifest.decoder_precision.value, manifest.vision_precision.value))
    precision = " decoder, ".join(precisions) + (" vision" if len(precisions) > 1 else "")
    reads_int8 = decoder_name(PREFILL_DIALECT) in manifest.files and measured.backend.startswith("onnxruntime")
    precision += ", prompts in int8" if reads_int8 else ""
    features = f", {' '.join(machine.features)}" if machine.features else ""
    board = f", {machine.board}" if machine.board and machine.board != machine.processor else ""
    return {
        "model": manifest.name,
        "precision": precision,
        "backend": f"{measured.backend} {onnxruntime.__version__}",
        "threads": str(options.threads or "one per physical core"),
        "machine": f"{machine.processor}{board}, {machine.cores} cores{features}, {gibibytes(machine.memory)}",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "memory": f"{measured.bandwidth:.1f} GB/s read; decoding reads {measured.weight_bytes / 1e9:.3f} GB of weights a token, "
        f"{measured.bandwidth_share:.0%} of that",
        "mobilevlm_ros": __version__,
        "measured": f"median of {options.runs} after {options.warm_up} to warm up; pictures of {width} x {height}",
    }


def values(measured: Measurement, machine: Machine, options: BenchOptions) -> dict[str, object]:
    """Everything, as values for JSON."""
    stages = {
        stage.name: {"median": round(stage.median, 3), "min": round(min(stage.values), 3), "max": round(max(stage.values), 3)}
        for stage in measured.stages
    }
    numbers = {
        "prompt_tokens": measured.prompt_tokens,
        "kept_tokens": measured.kept_tokens,
        "answer_tokens": ANSWER_TOKENS,
        "runs": options.runs,
        "follow_up_of_first": round(measured.median("follow_up_ms") / measured.median("first_question_ms"), 3),
        "four_at_once_ratio": round(measured.median("four_at_once_ms") / measured.median("first_question_ms"), 3),
        "bandwidth_gb_per_s": round(measured.bandwidth, 2),
        "weight_bytes": measured.weight_bytes,
        "decode_bandwidth_share": round(measured.bandwidth_share, 3),
    }
    return {**facts(measured, machine, options), **numbers, "stages": stages}


def table(measured: Measurement) -> list[str]:
    """A line for each stage."""
    rows = [_row(measured, stage) for stage in measured.stages]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        f"{title:<{widths[0]}}  {median:>{widths[1]}} {unit:<{widths[2]}}  {spread}".rstrip()
        for title, median, unit, spread in rows
    ]


def markdown(measured: Measurement, machine: Machine, options: BenchOptions) -> str:
    """A block that says all that is needed to compare it with another, its last line the values as JSON."""
    lines = ["| stage | median | range |", "|---|---|---|"]
    rows = (_row(measured, stage) for stage in measured.stages)
    lines += [f"| {title} | {median} {unit} | {spread} |" for title, median, unit, spread in rows]
    lines += ["", *(f"- {name}: {value}" for name, value in facts(measured, machine, options).items())]
    lines += ["", f"`{json.dumps(values(measured, machine, options), ensure_ascii=False)}`"]
    return "\n".join(lines)


def _row(measured: Measurement, stage: Stage) -> tuple[str, str, str, str]:
    """Title, median, unit, and the smallest and largest value where there are several."""
    title, unit = _TITLES[stage.name]
    spread = f"{_number(min(stage.values))} to {_number(max(stage.values))}" if len(stage.values) > 1 else ""
    title = title.format(prompt=measured.prompt_tokens, kept=measured.kept_tokens, answer=ANSWER_TOKENS)
    return title, _number(stage.median), unit, spread


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"

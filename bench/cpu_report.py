"""What `bench.cpu` measured, as values for JSON, as a table for people, and as Markdown for the README.

    python -m bench.cpu_report bench/results/cpu.json

prints the Markdown of a recorded run.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.cpu_rounds import OURS, OURS_INT8_PREFILL, Measured, Start
from bench.cpu_stages import DECODE_TOKENS, PROMPT_TOKENS, Stage

_RIVAL = "llama.cpp"
_WITH_PREFILL = "with_int8_prefill"
"""The key of what the other keys say of ours, for ours with a decoder of its own for prompts."""
_COLUMNS = (
    ("encode s", "encode_s"),
    ("prefill tok/s", "prefill_tokens_per_s"),
    ("decode tok/s", "decode_tokens_per_s"),
    ("of bandwidth", "decode_bandwidth_share"),
    ("first question s", "first_question_s"),
    ("follow-up s", "follow_up_s"),
    ("four at once s", "four_at_once_s"),
    ("one at a time GB", "peak_memory_one_at_a_time_gb"),
    ("peak GB", "peak_memory_gb"),
    ("load s", "load_s"),
    ("warm start s", "warm_start_s"),
)

_OWN = ("decode_bandwidth_share", "peak_memory_one_at_a_time_gb", "peak_memory_gb", "warm_start_s", "first_answer_after_start_s")
"""What is told of ours apart from ratios."""


def engine_values(engine: str, measured: Measured, starts: Sequence[Start]) -> dict[str, float]:
    """An engine's medians; what it does not do, and what says nothing about it, is missing."""
    seconds = {stage: median / 1e3 for stage in Stage if (median := measured.median(engine, stage)) is not None}
    rate = DECODE_TOKENS / seconds[Stage.DECODE]
    values = {
        "encode_s": seconds[Stage.ENCODE],
        "prefill_tokens_per_s": PROMPT_TOKENS / seconds[Stage.PREFILL],
        "decode_tokens_per_s": rate,
        "decode_gb_per_s": rate * measured.bytes_per_token[engine] / 1e9,
        "decode_bandwidth_share": rate * measured.bytes_per_token[engine] / 1e9 / statistics.median(measured.bandwidth),
        **{f"{stage.value}_s": seconds[stage] for stage in tuple(Stage)[3:] if stage in seconds},
        "idle_processor_share": measured.idle_share[engine],
    }
    if starts:
        for name in ("resident", "anonymous", "mapped"):
            values[f"{name}_gb"] = statistics.median(getattr(start.memory, name) for start in starts) / 1e9
        values["peak_memory_gb"] = values.pop("resident_gb")
        values["peak_memory_one_at_a_time_gb"] = statistics.median(start.one_at_a_time.resident for start in starts) / 1e9
    if starts and not engine.startswith("torch"):  # which makes its weights up as it loads
        values["load_s"] = statistics.median(start.load_ms for start in starts) / 1e3
        values["warm_start_s"] = statistics.median(start.ready_s for start in starts)
        values["first_answer_after_start_s"] = statistics.median(start.answered_s for start in starts)
    return {name: float(f"{value:.4g}") for name, value in values.items()}


def summary(starts: Mapping[str, Sequence[Start]], groups: Sequence[Measured]) -> dict[str, Any]:
    """The figures by engine, and what follows from them; a ratio is missing where one of its sides was not measured."""
    engines: dict[str, dict[str, float]] = {}
    official: dict[str, float] = {}
    for group in groups:
        found = {engine: engine_values(engine, group, starts.get(engine, ())) for engine in group.bytes_per_token}
        for engine, values in found.items():
            engines.setdefault(engine, values)
            if engine.startswith("torch") and OURS in found:
                official[f"first_question_ratio_to_{engine}"] = found[OURS]["first_question_s"] / values["first_question_s"]
    other = {_WITH_PREFILL: _compared(engines[OURS_INT8_PREFILL], engines)} if OURS_INT8_PREFILL in engines else {}
    return {
        **_compared(engines[OURS], engines),
        **{name: float(f"{value:.4g}") for name, value in official.items()},
        **other,
        "bandwidth_gb_per_s": round(statistics.median(speed for group in groups for speed in group.bandwidth), 2),
        "engines": engines,
    }


def _compared(ours: Mapping[str, float], engines: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """What is told of a form of ours beside its line in the table."""
    ratios = {
        "followup_of_first": ours["follow_up_s"] / ours["first_question_s"],
        "four_at_once_ratio": ours["four_at_once_s"] / ours["first_question_s"],
        **_to_best({engine: values for engine, values in engines.items() if engine.startswith(_RIVAL)}, ours),
    }
    own = {name: ours[name] for name in _OWN if name in ours}
    return {**{name: float(f"{value:.4g}") for name, value in ratios.items()}, **own}


def _to_best(rivals: Mapping[str, Mapping[str, float]], ours: Mapping[str, float]) -> dict[str, float]:
    """Ours to the best of llama.cpp, stage by stage: of times the shortest, of speeds the highest."""
    if not rivals:
        return {}
    times = {"first_question_ratio": "first_question_s", "followup_ratio": "follow_up_s", "encode_ratio": "encode_s"}
    times["four_at_once_ratio_to_llama_cpp"] = "four_at_once_s"
    speeds = {"prefill_ratio": "prefill_tokens_per_s", "decode_ratio": "decode_tokens_per_s"}
    ratios = {name: ours[key] / min(values[key] for values in rivals.values()) for name, key in times.items()}
    return {**ratios, **{name: ours[key] / max(values[key] for values in rivals.values()) for name, key in speeds.items()}}


def table(values: Mapping[str, Any]) -> list[str]:
    """A line for each engine, then one for each ratio."""
    rows = [["", *(title for title, _ in _COLUMNS)], *_rows(values)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths)) for row in rows]
    told = {OURS: values, OURS_INT8_PREFILL: values.get(_WITH_PREFILL, {})}
    for engine, found in told.items():
        ratios = [name for name in found if "ratio" in name or name == "followup_of_first"]
        lines += ["", f"{engine}, compared:", *(f"{name:<36} {found[name]:.3f}" for name in ratios)] if ratios else []
    return lines


def markdown(values: Mapping[str, Any]) -> str:
    """The table for the README, and under it what it was measured on."""
    lines = ["| | " + " | ".join(title for title, _ in _COLUMNS) + " |", "|---" * (len(_COLUMNS) + 1) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in _rows(values)]
    told = "{machine}; {threads} threads; memory {bandwidth_gb_per_s:.0f} GB/s; medians of {rounds} rounds; {versions}"
    return "\n".join([*lines, "", told.format(**values)])


def _rows(values: Mapping[str, Any]) -> list[list[str]]:
    return [[engine, *(_cell(found.get(key)) for _, key in _COLUMNS)] for engine, found in values["engines"].items()]


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def main(arguments: Sequence[str]) -> int:
    """Prints the Markdown of a recorded run."""
    if len(arguments) != 1:
        print("usage: python -m bench.cpu_report RESULT.json", file=sys.stderr)
        return 2
    print(markdown(json.loads(Path(arguments[0]).read_text(encoding="utf-8"))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

"""`mobilevlm eval`: a benchmark's scores for a model package, with a report. Imports the readers and the engine when it runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mobilevlm_ros.cli.options import add_backend_options, report, running_on
from mobilevlm_ros.models import shipped_package
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError

if TYPE_CHECKING:
    from mobilevlm_ros.evaluate.dataset import Benchmark, Item
    from mobilevlm_ros.evaluate.predictions import PredictionFile
    from mobilevlm_ros.evaluate.result import Result
    from mobilevlm_ros.runtime.engine import Engine

ANNOTATIONS = {
    "coloninst": "ColonINST-<split>-<cls|reg|rec>.json",
    "refcoco": "expressions as .json, .jsonl or refs(...).p beside instances.json",
    "gqa": "testdev_balanced_questions.json",
    "pope": "coco_pope_<category>.json, or the folder with all of them",
    "textvqa": "TextVQA_0.5.1_val.json",
    "scienceqa": "the folder with problems.json and pid_splits.json",
    "mme": "the folder with a folder for each subtask",
}
"""What --annotations wants, by format."""

EPILOG = "formats and what --annotations wants:\n{formats}\n\nexamples:\n{examples}"
EXAMPLES = """  mobilevlm eval pope --annotations pope/coco --images coco/val2014 --model mobilevlm-v2-1.7b --out pope-result
  mobilevlm eval textvqa --annotations TextVQA_0.5.1_val.json --ocr TextVQA_Rosetta_OCR_v0.2_val.json \\
      --images train_images --model mobilevlm-v2-1.7b --out textvqa-result
  mobilevlm eval coloninst --annotations ColonINST-test-rec.json --images Positive-images --out rec --limit 100 --json
"""
MAX_ROWS = 32


def add_eval_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the `mobilevlm` parser."""
    listed = "\n".join(f"  {name:<10} {wanted}" for name, wanted in ANNOTATIONS.items())
    parser = commands.add_parser(
        "eval",
        help="score a model package on a benchmark",
        description="Ask a benchmark's questions, score the answers by its published rules, and write a report. "
        "Broken off, the same command goes on where it stopped.",
        epilog=EPILOG.format(formats=listed, examples=EXAMPLES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("format", choices=list(ANNOTATIONS), metavar="FORMAT", help="one of the formats below")
    parser.add_argument("--annotations", type=Path, required=True, metavar="PATH", help="the dataset's own file or folder")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="pictures (default: where the annotations are)")
    parser.add_argument("--model", type=Path, metavar="PACKAGE", help="model package folder (default: the nano model)")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="answers, result.json, report.md, misses/")
    parser.add_argument("--limit", type=_at_least_one, metavar="N", help="ask only the first N items")
    parser.add_argument("--batch", type=_rows, default=4, metavar="N", help="items that decode at once, 1 to 32 (default: 4)")
    parser.add_argument("--split", metavar="NAME", help="scienceqa: default test; refcoco's refs: default val")
    parser.add_argument("--ocr", type=Path, metavar="FILE", help="textvqa: the Rosetta OCR tokens that the prompt names")
    parser.add_argument("--max-tokens", type=_at_least_one, metavar="N", help="longest answer (default: the benchmark's own)")
    parser.add_argument("--misses", type=int, default=12, metavar="N", help="worst misses to draw (default: 12)")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="processor threads (default: one per core)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of a table")
    add_backend_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate and print the scores; 1 if not one item could be answered."""
    from mobilevlm_ros.runtime.engine import Engine, EngineConfig

    benchmark = _read(args)
    # One row more than decode at once may wait while the next picture is read.
    config = running_on(args, EngineConfig(threads=args.threads, rows=args.batch, queue_size=args.batch + 8))
    with Engine.open(args.model or shipped_package(), config, report) as engine:
        result = evaluate(engine, benchmark, args)
    if args.json:
        print(result.to_json(), end="")
    else:
        _print_scores(result, args.out)
    if result.errors:
        print(f"mobilevlm: items without an answer: {len(result.errors)}; see {args.out / 'report.md'}", file=sys.stderr)
    if not result.answered:
        raise VlmError(ErrorCode.MODEL_ERROR, f"no item could be answered; the first: {result.errors[0].message}")
    return 0


def evaluate(engine: Engine, benchmark: Benchmark, args: argparse.Namespace) -> Result:
    """Ask what is left to ask, score, and write the report into `args.out`."""
    from mobilevlm_ros.evaluate.predictions import PredictionFile
    from mobilevlm_ros.evaluate.report import write_report
    from mobilevlm_ros.evaluate.result import dataset_facts, model_facts, summarize
    from mobilevlm_ros.evaluate.runner import to_ask

    items = to_ask(benchmark, args.limit)
    max_tokens = args.max_tokens or benchmark.max_tokens
    dataset = dataset_facts(benchmark, args.annotations.name, len(items))
    model = model_facts(engine.manifest)
    identity = {"benchmark": benchmark.name, "dataset": dataset["sha256"], "max_tokens": max_tokens}
    identity |= {f"model {key}": value for key, value in model.items()}
    with PredictionFile(args.out, identity) as predictions:
        _ask_all(engine, items, max_tokens, args.batch, predictions)
        settings = {
            "decoding": "greedy",
            "max_tokens": max_tokens,
            "rows": args.batch,
            "threads": args.threads or "one per core",
            "backend": engine.backend_name,
            "context_length": engine.context_length,
        }
        result, answered = summarize(benchmark, items, predictions.done, dataset, model, settings)
    write_report(args.out, result, answered, args.misses)
    return result


def _read(args: argparse.Namespace) -> Benchmark:
    from mobilevlm_ros.evaluate.formats import FORMATS, Source

    if args.ocr and args.format != "textvqa":
        raise VlmError(ErrorCode.BAD_REQUEST, f"--ocr is for textvqa; {args.format} has no OCR tokens")
    if args.split and args.format not in ("scienceqa", "refcoco"):
        raise VlmError(ErrorCode.BAD_REQUEST, f"--split is for scienceqa and refcoco; a file of {args.format} is one split")
    beside = args.annotations if args.annotations.is_dir() else args.annotations.parent
    return FORMATS[args.format](Source(args.annotations, args.images or beside, args.split, args.ocr))


def _ask_all(engine: Engine, items: Sequence[Item], max_tokens: int, rows: int, predictions: PredictionFile) -> None:
    from tqdm import tqdm

    from mobilevlm_ros.evaluate.runner import RunOptions, run_items

    done = sum(predictions.answered(item.id) for item in items)
    with tqdm(total=len(items), initial=done, unit="item", file=sys.stderr, dynamic_ncols=True) as bar:
        try:
            run_items(engine, items, RunOptions(rows, max_tokens), predictions, lambda _: bar.update())
        except KeyboardInterrupt:
            bar.write(f"{bar.n} of {len(items)} items are in {predictions.path}; the same command goes on", file=sys.stderr)
            raise


def _print_scores(result: Result, folder: Path) -> None:
    from mobilevlm_ros.evaluate.report import score_tables

    for header, rows in score_tables(result.scores):
        widths = [max(map(len, column)) for column in zip(header, *rows)]
        for cells in (header, *rows):
            first, *others = zip(cells, widths)
            print("  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]).rstrip())
        print()
    partial = "" if result.complete else f" ({result.answered} of {result.dataset['items']} items: not the benchmark's score)"
    print(f"{folder / 'report.md'}{partial}")


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


def _rows(text: str) -> int:
    value = int(text)
    if not 1 <= value <= MAX_ROWS:
        raise argparse.ArgumentTypeError(f"{value} is not 1 to {MAX_ROWS}")
    return value

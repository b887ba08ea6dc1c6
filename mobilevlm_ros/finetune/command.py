"""The command `mobilevlm finetune`. Imports torch and peft only when it runs."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilevlm_ros.checkpoint.errors import CheckpointError
from mobilevlm_ros.finetune.errors import FinetuneError
from mobilevlm_ros.finetune.recipe import Projector, Recipe

if TYPE_CHECKING:
    from mobilevlm_ros.finetune.run import Outcome, Places, Prepared, StepReport
    from mobilevlm_ros.finetune.student import Compute

_NEEDED = ("torch", "transformers", "peft", "tqdm")
_INTERRUPTED = 130
_DEFAULT = Recipe()
_EPILOG = """examples:
  mobilevlm finetune v2-1.7b my-data.json --images pictures --out my-adapter --epochs 3 --eval-split 0.02
  mobilevlm finetune models/nano/checkpoint data.json --images pictures --out adapter --batch 16 --learning-rate 1e-3
  mobilevlm finetune models/nano/checkpoint data.json --images pictures --out adapter --batch 16 --learning-rate 1e-3 --resume
  mobilevlm convert v2-1.7b my-package --lora my-adapter

The data is LLaVA's: a JSON list of {"id": ..., "image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\\n..."},
{"from": "gpt", "value": "..."}, ...]}; an item without "image" is text alone. The adapter folder has the official layout:
adapter_config.json, adapter_model.safetensors, non_lora_trainables.bin (the projector), config.json. checkpoints/ beside them is
for --resume and may be deleted; metrics.jsonl has the loss of every step.
"""
# Options that are figures of the recipe: its field, how it is read, what it stands for, and what help adds to the default.
_FIGURES: tuple[tuple[str, Any, str, str], ...] = (
    ("rank", int, "width of the adapter", ""),
    ("alpha", int, "the adapter counts alpha / rank", ""),
    ("dropout", float, "dropout before the adapter", ""),
    ("learning_rate", float, "highest rate", "; MobileVLM-1.7B was made with 1e-4"),
    ("projector_rate", float, "highest rate of the projector", "the learning rate"),
    ("weight_decay", float, "weight decay of matrices", ""),
    ("warmup", float, "share of the steps in which the rate rises; then it falls along a cosine", ""),
    ("max_grad_norm", float, "shorten longer gradients to this; 0: never", ""),
    ("batch", int, "examples a step", "; the official 8 devices with 16 each"),
    ("micro_batch", int, "examples computed at once, as memory allows; a step sums over them", ""),
    ("epochs", int, "how often every example is seen", ""),
    ("steps", int, "end after so many steps instead", "as the epochs say"),
    ("max_length", int, "tokens of an example, a picture's 144 included; more is cut, at most what the model can read", ""),
    ("eval_split", float, "share of the examples to keep from training, for the held-out loss", ""),
    ("seed", int, "same seed, same adapter", ""),
)


def add_finetune_parser(commands: Any) -> None:
    """Adds `finetune` to the subparsers `commands`; sets `run` on what it parses."""
    parser = commands.add_parser(
        "finetune",
        help="train a LoRA adapter on conversations about pictures",
        description="Train a LoRA adapter, and the projector, on a LLaVA-format JSON. The vision tower stays as it is. "
        "'mobilevlm convert --lora' makes a model package of checkpoint and adapter.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a folder, a name from 'mobilevlm models', or a hub id (owner/name)"
    )
    parser.add_argument("data", metavar="DATA", type=Path, help="LLaVA-format JSON")
    parser.add_argument("--images", metavar="FOLDER", type=Path, help="where the pictures are (default: where DATA is)")
    parser.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="adapter folder to write")
    parser.add_argument("--vision-tower", metavar="SOURCE", help="CLIP folder or hub id, for a checkpoint that holds no tower")
    parser.add_argument("--revision", help="branch, tag or commit on the hub (default: the catalogue's)")
    parser.add_argument("--offline", action="store_true", help="take what was downloaded before; ask no hub")
    recipe = parser.add_argument_group("recipe", "defaults are the official ones")
    for name, read, meaning, note in _FIGURES:
        default = getattr(_DEFAULT, name)
        shown = note if default is None else f"{default:g}{note}"
        recipe.add_argument(_option(name), type=read, default=default, metavar="N", help=f"{meaning} (default: {shown})")
    recipe.add_argument("--freeze-projector", action="store_true", help="train the adapter alone (official: the projector too)")
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    machine.add_argument("--dtype", choices=("auto", "fp32", "bf16"), default="auto", help="auto: bf16 with CUDA that has it")
    machine.add_argument(
        "--gradient-checkpointing",
        action=argparse.BooleanOptionalAction,
        help="compute layers twice to save memory (default: with CUDA, as the official recipe)",
    )
    machine.add_argument("--threads", type=int, default=0, metavar="N", help="processor threads (default: one per core)")
    machine.add_argument("--workers", type=int, default=4, metavar="N", help="threads that read pictures (default: 4)")
    machine.add_argument("--cache-gb", type=float, default=4, metavar="N", help="memory for pictures' features (default: 4)")
    machine.add_argument("--yes", action="store_true", help="start even where memory seems too small")
    parser.add_argument("--save-steps", type=int, default=100, metavar="N", help="a checkpoint every N steps (default: 100)")
    parser.add_argument("--keep", type=int, default=2, metavar="N", help="newest checkpoints to keep (default: 2)")
    parser.add_argument("--eval-steps", type=int, default=100, metavar="N", help="held-out loss every N steps (default: 100)")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with the training in --out")
    again.add_argument("--force", action="store_true", help="replace the training in --out")
    parser.add_argument("--json", action="store_true", help="print the outcome as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Trains as `args` say. Returns 0, 1 after one line on stderr, or 130 after Ctrl-C; raises VlmError."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        remedy = "run tools/setup demo convert, or install mobilevlm_ros[finetune]"
        print(f"mobilevlm: finetune needs {', '.join(missing)}: {remedy}", file=sys.stderr)
        return 1
    try:
        return _finetune(args)
    except CheckpointError as error:
        print(f"mobilevlm: {error}", file=sys.stderr)
    except OSError as error:
        print(f"mobilevlm: {error.filename or args.out}: {error.strerror or error}", file=sys.stderr)
    return 1


def _finetune(args: argparse.Namespace) -> int:
    from mobilevlm_ros.finetune.run import Habits, Start, check_out, load_student, prepare, train

    recipe = _recipe(args)
    for name in ("save_steps", "keep", "eval_steps", "workers"):
        if getattr(args, name) < 1:
            raise FinetuneError(f"{_option(name)} is {getattr(args, name)}, wanted at least 1")
    compute = _compute(args)
    start = Start.RESUME if args.resume else Start.FRESH
    if not args.force:
        check_out(args.out, start)
    places = _places(args)
    watcher = _Bar()
    began = time.perf_counter()
    try:
        prepared = prepare(places, recipe, watcher)
        watcher.done()
        if not _told(args, recipe, compute, prepared):
            return 1
        student = load_student(places, prepared, recipe, compute)
        habits = Habits(args.save_steps, args.keep, args.eval_steps, args.workers, int(args.cache_gb * 1e9))
        watcher.training(recipe.total_steps(len(prepared.train)))
        outcome = train(places, prepared, student, recipe, habits, start, watcher)
    finally:
        watcher.done()
    return _print_outcome(args, outcome, recipe.total_steps(len(prepared.train)), time.perf_counter() - began)


def _places(args: argparse.Namespace) -> Places:
    from mobilevlm_ros.checkpoint.reader import missing_tower
    from mobilevlm_ros.finetune.run import Places
    from mobilevlm_ros.hub.resolve import resolve_checkpoint

    checkpoint = resolve_checkpoint(args.checkpoint, args.revision, args.offline)
    tower = args.vision_tower or missing_tower(checkpoint.folder)
    return Places(
        base=checkpoint.folder,
        base_name=checkpoint.checkpoint_name,
        data=args.data,
        images=args.images or args.data.parent,
        out=args.out,
        vision_tower=None if tower is None else resolve_checkpoint(tower, offline=args.offline).folder,
    )


def _recipe(args: argparse.Namespace) -> Recipe:
    figures = {name: getattr(args, name) for name, *_ in _FIGURES}
    return Recipe(**figures, projector=Projector.FROZEN if args.freeze_projector else Projector.TRAINED)


def _compute(args: argparse.Namespace) -> Compute:
    import torch

    from mobilevlm_ros.finetune.student import Compute, device_named

    try:
        device = device_named(args.device)
    except (RuntimeError, ValueError) as error:
        raise FinetuneError(f"--device {args.device}: {str(error).splitlines()[0]}") from None
    on_cuda = device.type == "cuda"
    half = args.dtype == "bf16" or (args.dtype == "auto" and on_cuda and torch.cuda.is_bf16_supported())
    if args.threads:
        torch.set_num_threads(args.threads)
    recompute = on_cuda if args.gradient_checkpointing is None else args.gradient_checkpointing
    return Compute(device, torch.bfloat16 if half else torch.float32, recompute)


def _told(args: argparse.Namespace, recipe: Recipe, compute: Compute, prepared: Prepared) -> bool:
    """Says what will be done; False if memory seems too small and nobody wants to try all the same."""
    from mobilevlm_ros.finetune.memory import free_memory, memory_need, trained_numbers

    need, free = memory_need(prepared.config, recipe, compute, prepared.longest), free_memory(compute.device)
    figures = {**recipe.to_json(), "projector_rate": recipe.projector_rate or recipe.learning_rate}
    cached = "tower's output" if recipe.projector is Projector.TRAINED else "visual tokens"
    lines = (
        "recipe: " + ", ".join(f"{name} {value}" for name, value in figures.items() if value is not None),
        f"data: {len(prepared.train)} examples to train on, {len(prepared.held)} held out; longest {prepared.longest} tokens",
        f"cut at the end: {prepared.cut}; left out, with no answer within the length: {prepared.dropped}",
        f"training {trained_numbers(prepared.config, recipe) / 1e6:.2f} million numbers in"
        f" {recipe.total_steps(len(prepared.train))} steps on {compute.device}, {str(compute.dtype).removeprefix('torch.')}",
        f"memory: {need}; {free / 1e9:.1f} GB free",
        f"of each picture the {cached} is kept in memory, up to {args.cache_gb:g} GB",
    )
    for line in lines:
        print(line, file=sys.stderr)
    if need.total <= free or args.yes:
        return True
    print(
        "mobilevlm: that is more than is free: a smaller --micro-batch, --gradient-checkpointing or --rank needs less,"
        " --yes starts all the same",
        file=sys.stderr,
    )
    return sys.stdin.isatty() and input("start all the same? [y/N] ").strip().lower() in ("y", "yes")


def _print_outcome(args: argparse.Namespace, outcome: Outcome, total: int, seconds: float) -> int:
    if not outcome.finished:
        print(f"mobilevlm: interrupted after step {outcome.steps} of {total}; --resume goes on", file=sys.stderr)
        return _INTERRUPTED
    if args.json:
        facts = {"adapter": str(args.out), "steps": outcome.steps, "loss": outcome.loss, "held_out_loss": outcome.held_out}
        print(json.dumps({**facts, "seconds": round(seconds, 1)}))
    else:
        held = "" if outcome.held_out is None else f", held-out loss {outcome.held_out:.4f}"
        last = "" if outcome.loss is None else f", last loss {outcome.loss:.4f}{held}"
        print(
            f"{outcome.steps} steps{last}\nwrote {args.out}; next: mobilevlm convert {args.checkpoint} PACKAGE --lora {args.out}"
        )
    return 0


class _Bar:
    """Progress bars, one after another."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._make = tqdm
        self._bar: Any = None

    def reading(self, what: str, count: int) -> None:
        """Begins a bar for checking."""
        self._next(desc=f"checking {what}", total=count, unit="", leave=False)

    def training(self, steps: int) -> None:
        """Begins the training's bar."""
        self._next(desc="training", total=steps, unit="step")

    def read(self) -> None:
        """One more."""
        self._bar.update()

    def stepped(self, report: StepReport, held_out: float | None) -> None:
        """One more step, with its loss and speed."""
        if report.step > self._bar.n + 1:  # steps of before the interruption
            self._bar.initial = self._bar.n = report.step - 1
        speed = report.tokens / max(report.seconds, 1e-9)
        self._bar.set_postfix_str(f"loss {report.loss:.4f}, {speed:,.0f} tokens/s", refresh=False)
        self._bar.update()
        if held_out is not None:
            self._bar.write(f"step {report.step}: loss {report.loss:.4f}, held-out loss {held_out:.4f}", file=sys.stderr)

    def done(self) -> None:
        """Ends the bar that there is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _next(self, **options: Any) -> None:
        self.done()
        self._bar = self._make(**options, file=sys.stderr, dynamic_ncols=True, disable=None)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"

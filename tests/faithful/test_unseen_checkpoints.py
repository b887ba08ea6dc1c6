"""A checkpoint never seen, of any legal size and layout, with or without an adapter, gives the official code's tokens.

What they are is said by an oracle that shares no code with the package (`oracle.py`), about files that were written without it
(`released.py`). A seed is a checkpoint: sizes, storage, adapter, picture and question are all drawn from it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mobilevlm_ros.export.adapter import AdapterOptions, convert_adapter
from mobilevlm_ros.export.convert import ConvertOptions, convert
from mobilevlm_ros.runtime.engine import Engine, EngineConfig
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.manifest import Precision
from mobilevlm_ros.runtime.ort_backend import OrtBackend
from mobilevlm_ros.runtime.package import ModelPackage
from mobilevlm_ros.runtime.requests import Generated, Limits
from mobilevlm_ros.runtime.sampling import SamplingParams
from tests.faithful.oracle import Expected, Oracle, conversation, merged, prompt_ids
from tests.faithful.pictures import CLIP_MEAN, CLIP_STD, noise
from tests.faithful.released import TOKENIZER, TOKENIZER_PIECES, Sizes, draw, write, write_adapter
from tests.parity import relative

TOLERANCE = 1e-4
ANSWER = 12
SURE = 1e-5
"""A choice whose lead is smaller, as a share of the largest logit, may fall the other way in other arithmetic."""

STALE = {
    "n_head": 16,
    "n_query_groups": 16,
    "name": "huggy_llama_3b",
    "transformers_version": "4.31.0",
    "freeze_mm_mlp_adapter": False,
}


@dataclass(frozen=True)
class Draw:
    """A checkpoint and what it is asked."""

    sizes: Sizes
    seed: int
    dtype: torch.dtype = torch.float16
    layout: str = "bin"
    adapter: str = ""
    stale: dict[str, Any] = field(default_factory=dict)
    picture: tuple[int, int] = (320, 240)
    question: str = "What is it?"


def draw_sizes(choose: random.Random) -> Sizes:
    projector = choose.choice(["ldpnet", "ldpnetv2"])
    head_dim = choose.choice([8, 10, 16, 20, 24, 48, 64, 80, 128])
    heads = choose.choice([1, 2, 3, 4])
    hidden = heads * head_dim
    if projector == "ldpnet" or choose.random() < 0.3:
        hidden = 32 * heads * choose.choice([1, 2])  # heads need not make up the width
    tower_heads = choose.choice([1, 2, 4])
    grid = choose.choice([5, 8, 9, 12, 15, 24])
    patch = choose.choice([7, 14, 16])
    own = choose.random() < 0.2
    return Sizes(
        projector=projector,
        hidden=hidden,
        layers=choose.randint(1, 3),
        heads=heads,
        kv_heads=choose.choice([count for count in range(1, heads + 1) if heads % count == 0]),
        head_dim=head_dim,
        mlp=choose.randint(20, 200),
        vocab=choose.choice([TOKENIZER_PIECES, TOKENIZER_PIECES + choose.randint(1, 300)]),
        positions=choose.choice([512, 1024]),
        rms_eps=choose.choice([1e-6, 1e-5]),
        theta=choose.choice([10000.0, 10000.0, 500000.0]),
        tower_width=tower_heads * choose.choice([8, 12, 32]),
        tower_mlp=choose.randint(16, 100),
        tower_layers=choose.randint(2, 4),
        tower_heads=tower_heads,
        image_size=grid * patch,
        patch_size=patch,
        select_layer=choose.choice([-2, -2, -2, -1, 1]),
        mean=(0.5, 0.4, 0.3) if own else CLIP_MEAN,
        std=(0.25, 0.5, 0.2) if own else CLIP_STD,
    )


def drawn(seed: int) -> Draw:
    choose = random.Random(seed)
    return Draw(
        sizes=draw_sizes(choose),
        seed=seed,
        dtype=choose.choice([torch.float16, torch.bfloat16, torch.float32]),
        layout=choose.choice(["bin", "2-bin", "3-bin", "safetensors", "2-safetensors"]),
        adapter=choose.choice(["", "official", "peft"]),
        stale=choose.choice([{}, STALE]),
        picture=(choose.randint(1, 400), choose.randint(1, 400)),
        question=choose.choice(["What is it?", "How many things  are there?\n", "Où est la tasse ☕?", "a" * 50]),
    )


def expected(case: Draw, folder: Path) -> Expected:
    """Writes the checkpoint to `folder`/checkpoint and its adapter beside it, and asks the oracle."""
    weights = draw(case.sizes, case.seed, case.dtype)
    write(folder / "checkpoint", case.sizes, weights, case.layout, case.stale)
    if case.adapter:
        write_adapter(folder / "adapter", case.sizes, case.seed, case.adapter)
        weights = merged(weights, folder / "adapter", case.sizes.projector)
    oracle = Oracle(case.sizes, weights, TOKENIZER)
    return oracle.answer(noise(*case.picture, case.seed), prompt_ids(oracle.pieces, conversation((), case.question)), ANSWER)


def merged_package(case: Draw, folder: Path, precision: Precision = Precision.FP32) -> Path:
    """The checkpoint, its adapter merged in, as a package."""
    adapter = folder / "adapter" if case.adapter else None
    options = ConvertOptions(precision, adapter=adapter, verify=False, examples=2)
    return convert(folder / "checkpoint", folder / "package", options).package


def adapter_package(case: Draw, folder: Path) -> Path:
    """The checkpoint as a package, and its adapter as another that lies beside it."""
    base = convert(folder / "checkpoint", folder / "base", ConvertOptions(verify=False)).package
    options = AdapterOptions(verify=False)
    return convert_adapter(folder / "checkpoint", folder / "adapter", base, folder / "package", options).package


def found(case: Draw, package: Path) -> tuple[np.ndarray, Generated]:
    """Asks a package: visual tokens and the greedy answer."""
    frame = Frame(np.asarray(noise(*case.picture, case.seed)))
    with Engine.open(package, EngineConfig(threads=1)) as engine:
        picture = engine.picture(frame)
        features = OrtBackend(ModelPackage.open(package), threads=1).encode(picture.pixels[None])
        sampling = SamplingParams(max_tokens=ANSWER, temperature=0.0)
        return features, engine.generate(picture, case.question, sampling, Limits()).result()


def sure_part(tokens: list[int], leads: list[float]) -> list[int]:
    """The tokens before the first that was chosen by a hair."""
    return tokens[: next((i for i, lead in enumerate(leads) if lead < SURE), len(tokens))]


def assert_faithful(case: Draw, folder: Path, package: Callable[[Draw, Path], Path] = merged_package) -> None:
    wanted = expected(case, folder)
    features, answer = found(case, package(case, folder))
    assert relative(features, wanted.features.numpy()) < TOLERANCE, case
    log_probabilities = wanted.logits.double().log_softmax(0).numpy()
    assert relative(answer.first_log_probabilities, log_probabilities) < TOLERANCE, case
    tokens = sure_part(wanted.tokens, wanted.leads)
    ending = [2] if answer.finish.value == "stop" else []
    assert [*answer.tokens, *ending][: len(tokens)] == tokens, case
    assert tokens, "the draw decides nothing"


@pytest.mark.parametrize("seed", range(24))
def test_a_checkpoint_never_seen_gives_the_tokens_of_the_oracle(tmp_path: Path, seed: int) -> None:
    assert_faithful(drawn(seed), tmp_path)


@pytest.mark.parametrize("adapter", ["official", "peft"])
@pytest.mark.parametrize("seed", range(100, 106))
def test_an_adapter_beside_its_base_gives_the_tokens_of_the_oracle(tmp_path: Path, seed: int, adapter: str) -> None:
    """In float32, where merging rounds nothing."""
    assert_faithful(replace(drawn(seed), adapter=adapter, dtype=torch.float32), tmp_path, adapter_package)


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT4], ids=lambda precision: precision.value)
@pytest.mark.parametrize("seed", [0, 4, 7])
def test_a_checkpoint_never_seen_stays_near_the_oracle_in_fewer_bits(tmp_path: Path, seed: int, precision: Precision) -> None:
    """Random weights are the worst case, and these widths fill no block."""
    case = drawn(seed)
    wanted = expected(case, tmp_path)
    features, answer = found(case, merged_package(case, tmp_path, precision))
    log_probabilities = wanted.logits.double().log_softmax(0).numpy()
    assert relative(features, wanted.features.numpy()) < 0.06
    assert relative(answer.first_log_probabilities, log_probabilities) < (0.06 if precision is Precision.INT8 else 0.4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1300))
def test_many_checkpoints_never_seen_give_the_tokens_of_the_oracle(tmp_path: Path, seed: int) -> None:
    assert_faithful(drawn(seed), tmp_path)


def test_a_model_that_knows_more_ids_than_its_tokenizer_keeps_to_a_form(tmp_path: Path) -> None:
    """As where the table was filled up to a round number or tokens were added for training."""
    sizes = Sizes(vocab=TOKENIZER_PIECES + 100)
    write(tmp_path / "checkpoint", sizes, draw(sizes, 8))
    convert(tmp_path / "checkpoint", tmp_path / "package", ConvertOptions(verify=False))
    with Engine.open(tmp_path / "package", EngineConfig(threads=1)) as engine:
        form = engine.constraints.regex(r" (cat|dog)s? [0-9]{3}")
        sampling = SamplingParams(max_tokens=40, temperature=0.0)
        picture = engine.picture(Frame(np.asarray(noise(40, 30))))
        answer = engine.generate(picture, "What?", sampling, Limits(), constraint=form).result()
        assert re.fullmatch(r"(cat|dog)s? [0-9]{3}", engine.tokenizer.decode(answer.tokens))


NAMED = {
    "V1 of the 3B's head size": Draw(
        Sizes("ldpnet", hidden=320, heads=4, kv_heads=4, head_dim=80, image_size=336), 1, torch.bfloat16
    ),
    "V2 of the 3B's head size": Draw(
        Sizes("ldpnetv2", hidden=320, heads=4, kv_heads=4, head_dim=80, image_size=336), 2, torch.bfloat16
    ),
    "V1 of the 1.7B's head size with a LoRA": Draw(
        Sizes("ldpnet", hidden=256, heads=2, kv_heads=2, head_dim=128, image_size=336), 3, torch.bfloat16, adapter="official"
    ),
    "a preprocessor with its own mean, which is the padding's colour": Draw(
        Sizes(mean=(0.9, 0.1, 0.5), std=(0.25, 0.5, 0.2)), 5, picture=(300, 90)
    ),
    "V2 with a LoRA over shards": Draw(
        Sizes("ldpnetv2", hidden=256, heads=2, kv_heads=2, head_dim=128, image_size=336),
        4,
        torch.bfloat16,
        "2-bin",
        "official",
        STALE,
    ),
}


@pytest.mark.parametrize("name", NAMED)
def test_what_is_worth_a_name_gives_the_tokens_of_the_oracle(tmp_path: Path, name: str) -> None:
    assert_faithful(NAMED[name], tmp_path)

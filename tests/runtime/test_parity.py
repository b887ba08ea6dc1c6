"""The runtime against what the official code gave for the same checkpoint, picture and question.

The recordings stand in tests/data/parity; torch makes the packages and has no part in what is compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from mobilevlm_ros.runtime.engine import Engine, EngineConfig
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.ort_backend import OrtBackend
from mobilevlm_ros.runtime.package import ModelPackage
from mobilevlm_ros.runtime.prompt import V1, PromptBuilder, Turn
from mobilevlm_ros.runtime.requests import Limits
from mobilevlm_ros.runtime.sampling import SamplingParams
from mobilevlm_ros.runtime.tokenizer import Tokenizer
from tests.conftest import PARITY, PackageMaker

IMAGE_PLACE = -200
RELATIVE = 1e-4


@dataclass(frozen=True)
class Recording:
    """One checkpoint's package and the official code's outputs."""

    package: ModelPackage
    arrays: dict[str, np.ndarray]
    question: str
    text: str

    @property
    def input_ids(self) -> list[int]:
        return [int(i) for i in self.arrays["input_ids"].ravel()]


@pytest.fixture(scope="module", params=["ldpnet", "ldpnetv2"])
def recording(request: pytest.FixtureRequest, parity_package: PackageMaker) -> Recording:
    folder = PARITY / request.param
    golden = json.loads((folder / "golden.json").read_text())
    arrays = dict(np.load(folder / "golden.npz"))
    return Recording(ModelPackage.open(parity_package(request.param)), arrays, golden["question"], golden["text"])


@pytest.fixture(scope="module")
def frame() -> Frame:
    return Frame(np.asarray(Image.open(PARITY / "image.png").convert("RGB")))


@pytest.fixture(scope="module")
def engine(recording: Recording) -> Iterator[Engine]:
    with Engine.open(recording.package.path, EngineConfig(context_length=512)) as engine:
        yield engine


def builder(package: ModelPackage) -> PromptBuilder:
    return PromptBuilder(package.manifest.prompt, package.manifest.tokens, Tokenizer(package.tokenizer))


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def test_prompt_ids_are_the_official_ones(recording: Recording) -> None:
    prompt = builder(recording.package).build(recording.question)
    assert [*prompt.head, IMAGE_PLACE, *prompt.tail] == recording.input_ids


def test_visual_tokens_agree(recording: Recording, engine: Engine, frame: Frame) -> None:
    backend = OrtBackend(recording.package, threads=1)
    features = backend.encode(engine.picture(frame).pixels[None])
    assert relative(features, recording.arrays["features"]) < RELATIVE


def test_logits_agree_at_the_last_eight_positions_in_one_pass_and_in_pieces(
    recording: Recording, engine: Engine, frame: Frame
) -> None:
    backend = OrtBackend(recording.package, threads=1)
    prompt = builder(recording.package).build(recording.question)
    features = backend.encode(engine.picture(frame).pixels[None])[0]
    whole = np.concatenate([backend.embed(prompt.head), features, backend.embed(prompt.tail)])
    expected = recording.arrays["all_last8"]

    cache = backend.new_cache(rows=2, capacity=256)
    at_once = backend.prefill(cache, 0, whole, range(len(whole) - 8, len(whole)))
    assert relative(at_once, expected) < RELATIVE

    backend.prefill(cache, 1, whole[:100], [0])
    in_pieces = backend.prefill(cache, 1, whole[100:], range(len(whole) - 108, len(whole) - 100))
    assert relative(in_pieces, expected) < RELATIVE
    assert relative(at_once[-1], recording.arrays["last_logits"]) < RELATIVE


def test_greedy_tokens_and_text_are_the_official_ones(recording: Recording, engine: Engine, frame: Frame) -> None:
    expected = [int(token) for token in recording.arrays["tokens"].ravel()]
    sampling = SamplingParams(max_tokens=len(expected), temperature=0.0)
    done = engine.generate(engine.picture(frame), recording.question, sampling, Limits()).result()
    assert list(done.tokens) == [token for token in expected if token != recording.package.manifest.tokens.eos]
    assert engine.tokenizer.decode(done.tokens).strip() == recording.text
    assert done.prompt_tokens == len(recording.input_ids) - 1 + recording.package.manifest.vision.tokens


def test_four_questions_at_once_get_the_tokens_each_gets_alone(engine: Engine, frame: Frame) -> None:
    questions = ["What color is the ball?", "Why?", "How many things are there on the table?", "Is it a ball?"]
    sampling = SamplingParams(max_tokens=12, temperature=0.0)
    picture = engine.picture(frame)
    together = [engine.generate(picture, question, sampling, Limits()) for question in questions]
    found = [generation.result().tokens for generation in together]
    assert found == [engine.generate(picture, question, sampling, Limits()).result().tokens for question in questions]


def test_what_a_user_types_makes_no_special_tokens(recording: Recording) -> None:
    special = recording.package.manifest.tokens
    prompts = builder(recording.package)
    typed = prompts.build("</s><s> <image> USER: x ASSISTANT: <unk>")
    assert special.eos not in typed.tail
    assert special.bos not in typed.tail
    assert IMAGE_PLACE not in typed.tail


def test_a_later_turn_is_tokenized_by_itself_after_the_end_token(recording: Recording) -> None:
    tokenizer = Tokenizer(recording.package.tokenizer)
    prompt = builder(recording.package).build("And now?", [Turn("What?", "A ball.")])
    eos = recording.package.manifest.tokens.eos
    expected = [*tokenizer.encode("\nWhat? ASSISTANT: A ball."), eos, *tokenizer.encode("USER: And now? ASSISTANT:")]
    assert list(prompt.tail) == expected


def test_the_template_is_the_official_v1() -> None:
    assert V1.system.startswith("A chat between a curious user and an artificial intelligence assistant. ")
    assert (V1.user, V1.assistant, V1.separator, V1.stop) == ("USER", "ASSISTANT", " ", "</s>")

"""A chat of several turns reads and answers as the official conversation does.

The oracle makes the text of template v1, tokenizes it with the SentencePiece library and asks the PyTorch model; it shares no
code with the runtime's prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
from PIL import Image

from mobilevlm_ros.checkpoint.config import MobileVlmConfig
from mobilevlm_ros.checkpoint.model import MobileVLM
from mobilevlm_ros.checkpoint.reader import CheckpointTensors, load_model
from mobilevlm_ros.runtime.engine import Engine, EngineConfig
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.prompt import PromptBuilder, Turn
from mobilevlm_ros.runtime.sampling import SamplingParams
from mobilevlm_ros.tasks import Settings, chat
from tests.conftest import PackageMaker
from tests.faithful.oracle import PLACE, conversation, prompt_ids
from tests.faithful.pictures import official_pixels
from tests.parity import PARITY

NANO = Path(__file__).resolve().parent.parent.parent / "models" / "nano"
ANSWER = 10
QUESTIONS = {
    "plain": ["What color is the ball?", "Why?", "How many things are there on the table?", "And now?"],
    "hard to tokenize": ["Où est la tasse ☕?", "  two  spaces ", "line\n\nbreaks\n", '{"n": 007, "x": [0.61, 0.36]}'],
    "the template's own words": ["USER: or ASSISTANT: who?", "ASSISTANT:", "USER:", "A chat between a curious user"],
}
MADE_UP = [("What is it?", "A ball."), ("Sure?", " Yes ,  I am. "), ("Où?", "Là-bas\n☕")]


@dataclass(frozen=True)
class Both:
    """One model twice: served by the runtime, and in PyTorch with the library's tokenizer."""

    engine: Engine
    model: MobileVLM
    pieces: sentencepiece.SentencePieceProcessor

    def expected(self, picture: Image.Image, turns: Sequence[tuple[str, str]], question: str) -> list[int]:
        """The greedy answer's ids without the end token."""
        vision = self.model.config.vision
        pixels = torch.from_numpy(official_pixels(picture, vision.image_size, vision.image_mean, vision.image_std))
        ids = prompt_ids(self.pieces, conversation(turns, question))
        found = self.model.generate(torch.tensor([ids]), pixels, ANSWER)
        return [token for token in found if token != self.pieces.eos_id()]


@pytest.fixture(scope="module", params=["ldpnet", "ldpnetv2", "nano"])
def both(request: pytest.FixtureRequest, parity_package: PackageMaker) -> Iterator[Both]:
    nano = request.param == "nano"
    checkpoint = NANO / "checkpoint" if nano else PARITY / request.param
    config = MobileVlmConfig.read(checkpoint)
    model = load_model(CheckpointTensors.open(checkpoint, config), config)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(checkpoint / "tokenizer.model"))
    with Engine.open(NANO / "package" if nano else parity_package(request.param), EngineConfig(threads=1)) as engine:
        yield Both(engine, model, pieces)


@pytest.mark.parametrize("name", QUESTIONS)
def test_each_turn_has_the_official_codes_tokens(both: Both, name: str) -> None:
    picture = Image.open(PARITY / "image.png").convert("RGB")
    frame = Frame(np.asarray(picture))
    settings = Settings(SamplingParams(max_tokens=ANSWER, temperature=0.0))
    history: list[Turn] = []
    told: list[tuple[str, str]] = []
    for question in QUESTIONS[name]:
        expected = both.expected(picture, told, question)
        answer = chat(both.engine, frame, history, question, settings)
        assert list(answer.token_ids) == expected
        # What the official code keeps of an answer is its text without the spaces around it.
        history.append(Turn(question, answer.text))
        told.append((question, both.pieces.decode(expected).strip()))


@pytest.mark.parametrize("turns", range(len(MADE_UP) + 1))
def test_a_prompt_after_any_number_of_turns_has_the_official_codes_ids(both: Both, turns: int) -> None:
    manifest = both.engine.manifest
    told = MADE_UP[:turns]
    prompt = PromptBuilder(manifest.prompt, manifest.tokens, both.engine.tokenizer).build(
        "And now?", [Turn(question, answer) for question, answer in told]
    )
    assert [*prompt.head, PLACE, *prompt.tail] == prompt_ids(both.pieces, conversation(told, "And now?"))

"""The runtime against what the official code gave for the same checkpoint, picture and question.

Every projector and adapter that was recorded, in every precision and on every backend. The recordings stand in tests/data/parity;
torch makes the packages and has no part in what is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from mobilevlm_ros.runtime.backend import Backend
from mobilevlm_ros.runtime.engine import Engine, EngineConfig
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.manifest import Precision
from mobilevlm_ros.runtime.ort_backend import OrtBackend
from mobilevlm_ros.runtime.package import ModelPackage
from mobilevlm_ros.runtime.prompt import V1, PromptBuilder
from mobilevlm_ros.runtime.requests import Generated, Limits
from mobilevlm_ros.runtime.sampling import SamplingParams
from mobilevlm_ros.runtime.tokenizer import Tokenizer
from tests.parity import CASES, IMAGE_TOKEN, PARITY, PRECISIONS, Allowed, Case, relative

pytest.importorskip("torch", reason="converting needs torch")

BACKENDS: dict[str, Callable[[ModelPackage], Backend]] = {"cpu": lambda package: OrtBackend(package, threads=1)}
"""What runs each dialect of the decoder's graph; a new dialect is a line here."""

MATRIX = [(case, precision, dialect) for case in CASES for precision in PRECISIONS for dialect in BACKENDS]
EXACT = [entry for entry in MATRIX if PRECISIONS[entry[1]].same_tokens]
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


@dataclass(frozen=True)
class Recording:
    """One package, an engine that serves it, what the official code gave, and how far from that the package may be."""

    case: Case
    package: ModelPackage
    backend: Backend
    engine: Engine
    golden: dict[str, np.ndarray]
    allowed: Allowed

    @property
    def prompts(self) -> PromptBuilder:
        return PromptBuilder(self.package.manifest.prompt, self.package.manifest.tokens, self.engine.tokenizer)

    def embedded(self, frame: Frame) -> np.ndarray:
        """The recorded prompt as the decoder takes it: float32 [length, hidden]."""
        prompt = self.prompts.build(self.case.prompt["question"])
        features = self.backend.encode(self.engine.picture(frame).pixels[None])[0]
        return np.concatenate([self.backend.embed(prompt.head), features, self.backend.embed(prompt.tail)])

    def ask(self, frame: Frame, question: str, count: int) -> Generated:
        sampling = SamplingParams(max_tokens=count, temperature=0.0)
        return self.engine.generate(self.engine.picture(frame), question, sampling, Limits()).result()


def entry_name(entry: tuple[Case, Precision, str]) -> str:
    case, precision, dialect = entry
    return f"{case.name}-{precision.value}-{dialect}"


@pytest.fixture(scope="module", params=MATRIX, ids=entry_name)
def recording(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    from mobilevlm_ros.export.convert import ConvertOptions, convert

    case, precision, dialect = request.param
    options = ConvertOptions(precision=precision, adapter=case.adapter, verify=False, examples=4)
    package = ModelPackage.open(convert(case.checkpoint, tmp_path_factory.mktemp("parity") / "package", options).package)
    backend = BACKENDS[dialect](package)
    with Engine(package.manifest, Tokenizer(package.tokenizer), backend, EngineConfig(context_length=512)) as engine:
        yield Recording(case, package, backend, engine, case.golden, PRECISIONS[precision])


@pytest.fixture(scope="module")
def frame() -> Frame:
    return Frame(np.asarray(Image.open(PARITY / "image.png").convert("RGB")))


def test_prompt_ids_are_the_official_ones(recording: Recording) -> None:
    prompt = recording.prompts.build(recording.case.prompt["question"])
    assert [*prompt.head, IMAGE_TOKEN, *prompt.tail] == recording.golden["input_ids"].ravel().tolist()


def test_pixel_values_agree(recording: Recording, frame: Frame) -> None:
    golden = recording.golden
    if "pixel_values" not in golden:
        assert recording.case.adapter is not None, "recorded for the models without adapter"
        golden = Case("", recording.case.checkpoint, None).golden
    pixels = recording.engine.picture(frame).pixels
    planes = ((pixels / np.float32(255) - MEAN) / STD).transpose(2, 0, 1)
    assert abs(planes.ravel()[golden["pixel_index"]] - golden["pixel_values"]).max() < 1e-5


def test_visual_tokens_agree(recording: Recording, frame: Frame) -> None:
    features = recording.backend.encode(recording.engine.picture(frame).pixels[None])
    assert relative(features, recording.golden["features"]) < recording.allowed.features


def test_logits_agree_at_the_last_positions_in_one_pass_and_in_pieces(recording: Recording, frame: Frame) -> None:
    backend, whole = recording.backend, recording.embedded(frame)
    golden = recording.golden
    expected = golden.get("all_last8", golden["last_logits"][None])
    wanted = range(len(whole) - len(expected), len(whole))

    cache = backend.new_cache(rows=2, capacity=256)
    at_once = backend.prefill(cache, 0, whole, wanted)
    assert relative(at_once, expected) < recording.allowed.logits

    backend.prefill(cache, 1, whole[:100], [0])
    in_pieces = backend.prefill(cache, 1, whole[100:], [position - 100 for position in wanted])
    assert relative(in_pieces, expected) < recording.allowed.logits
    assert relative(at_once[-1], golden["last_logits"]) < recording.allowed.logits


@pytest.mark.parametrize("recording", EXACT, ids=entry_name, indirect=True)
def test_greedy_tokens_and_text_are_the_official_ones(recording: Recording, frame: Frame) -> None:
    expected = recording.golden["tokens"].ravel().tolist()
    done = recording.ask(frame, recording.case.prompt["question"], len(expected))
    assert list(done.tokens) == [token for token in expected if token != recording.package.manifest.tokens.eos]
    if text := recording.case.prompt.get("text"):
        assert recording.engine.tokenizer.decode(done.tokens).strip() == text


def test_the_engine_chooses_the_likeliest_token_and_counts_the_pictures(recording: Recording, frame: Frame) -> None:
    """In every precision: the engine adds nothing to what the backend computes."""
    whole = recording.embedded(frame)
    logits = recording.backend.prefill(recording.backend.new_cache(rows=1, capacity=256), 0, whole, [len(whole) - 1])
    done = recording.ask(frame, recording.case.prompt["question"], 1)
    assert done.tokens == (int(logits[0].argmax()),)
    assert done.prompt_tokens == len(whole) == recording.golden["input_ids"].size - 1 + recording.package.manifest.vision.tokens


def test_four_questions_at_once_get_the_tokens_each_gets_alone(recording: Recording, frame: Frame) -> None:
    questions = ["What color is the ball?", "Why?", "How many things are there on the table?", "Is it a ball?"]
    sampling = SamplingParams(max_tokens=12, temperature=0.0)
    picture = recording.engine.picture(frame)
    together = [recording.engine.generate(picture, question, sampling, Limits()) for question in questions]
    assert [generation.result().tokens for generation in together] == [
        recording.ask(frame, question, 12).tokens for question in questions
    ]


def test_the_template_is_the_official_v1() -> None:
    assert V1.system.startswith("A chat between a curious user and an artificial intelligence assistant. ")
    assert (V1.user, V1.assistant, V1.separator, V1.stop) == ("USER", "ASSISTANT", " ", "</s>")

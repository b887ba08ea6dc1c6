"""A fake engine whose answers are chosen by the test, for each picture and question."""

from __future__ import annotations

import zlib
from pathlib import Path

from mobilevlm_ros.evaluate.dataset import Fit
from mobilevlm_ros.evaluate.pictures import load_picture
from mobilevlm_ros.runtime.engine import Engine, EngineConfig
from mobilevlm_ros.runtime.geometry import letterbox
from tests.fakes import EOS, ByteTokenizer, FakeBackend, fake_engine, manifest, reply

FIRST_VISUAL = 1000


class Oracle:
    """Answers by picture and question; what it was not told is answered with nothing."""

    def __init__(self) -> None:
        self.answers: dict[tuple[int, str], str] = {}
        self.backend = FakeBackend(self._next_token)

    def tell(self, image: Path, question: str, answer: str, fit: Fit = Fit.PAD) -> None:
        """What to answer when `question` is asked about the picture in the file."""
        self.answers[_mark(image, fit), question] = answer

    def engine(self, rows: int = 3) -> Engine:
        return fake_engine(self.backend, EngineConfig(context_length=2048, rows=rows, queue_size=rows + 8))

    def _next_token(self, context: tuple[float, ...]) -> int:
        prompt = ByteTokenizer().decode([int(value) for value in context if value < FIRST_VISUAL])
        question = prompt.partition("USER: \n")[2].partition(" ASSISTANT:")[0]
        mark = next((int(value) for value in context if value >= FIRST_VISUAL), 0)  # the words before the picture have none
        answer = self.answers.get((mark, question))
        return EOS if answer is None else reply(answer)(context)


def _mark(image: Path, fit: Fit) -> int:
    """The number that the fake model makes of a picture."""
    vision = manifest().vision
    pixels = letterbox(load_picture(image, fit), vision.image_size, vision.pad_color)
    return FIRST_VISUAL + zlib.crc32(pixels.tobytes()) % 1000

"""The nano model's own SentencePiece vocabulary: LLaMA's settings, domain words, and one token a coordinate.

`python -m training.vocabulary --out tokenizer.model` trains it on generated questions; no pictures are needed.
`Words` is what training uses of it: the template's pieces as ids, encoded piece by piece around the image.
"""

from __future__ import annotations

import argparse
import io
import string
from collections.abc import Iterator
from pathlib import Path
from random import Random

import sentencepiece

from training import wording
from training.questions import KINDS, Asker
from training.scenes import COLORS, SHAPES
from training.truth import Sight, Thing

SIZE = 768
BOS, EOS = 1, 2
SPACE = "\u2581"
NUMBERS = tuple(f"{value / 100:.2f}" for value in range(101))
_WHOLE = (
    "curious user artificial intelligence assistant. helpful, detailed, polite answers questions. chat between gives "
    "user's USER: ASSISTANT: located? coordinate coordinates Point Locate Where Find Count Give number picture scene "
    "Please provide bounding region sentence describes short description describe Describe colour color there"
)
"""Words of the template and of fixed phrasings that stay in one piece, so that prompts are short."""
_EXTRA = (
    "red green blue yellow purple orange black white ball cube cone mug bottle ring bowl object thing one "
    "left right Yes No 0 1 2 3 4 5 6 7 8 9"
)


def corpus(count: int, seed: int = 0) -> Iterator[str]:
    """Generated dialogue lines about imagined pictures."""
    rng = Random(seed)
    for number in range(count):
        asker = Asker(_imagined(rng, number), rng)
        turns = [asker.ask(rng.choice(KINDS)) for _ in range(4)]
        for turn in turns:
            if turn is not None:
                yield f"{turn.question} ASSISTANT: {turn.answer}"
        if number % 20 == 0:
            yield wording.head()
        yield _EXTRA


def _imagined(rng: Random, number: int) -> Sight:
    things = []
    for _ in range(rng.randint(1, 5)):
        x, y = rng.uniform(0, 200), rng.uniform(0, 150)
        things.append(Thing(rng.choice(SHAPES), rng.choice(COLORS), (x, y, x + 30, y + 30)))
    return Sight(number, 256, 192, tuple(things))


def _whole_words() -> list[str]:
    return [*(word.capitalize() for word in (*COLORS, *SHAPES)), *(word.rstrip(".,:?") for word in _WHOLE.split())]


def train(size: int = SIZE) -> bytes:
    """The serialised SentencePiece model."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=corpus(8_000),
        model_writer=model,
        model_type="bpe",
        vocab_size=size,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=True,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        character_coverage=1.0,
        required_chars=string.ascii_letters + string.digits + string.punctuation,
        user_defined_symbols=[*NUMBERS, *(SPACE + word for word in (*NUMBERS, *_whole_words()))],
        unk_id=0,
        bos_id=BOS,
        eos_id=EOS,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


class Words:
    """Ids of the template's pieces. Each piece is encoded by itself, as the official code does."""

    def __init__(self, model: bytes) -> None:
        self.pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.size = int(self.pieces.get_piece_size())
        self.head = [BOS, *self.encode(wording.head())]

    @staticmethod
    def load(path: Path) -> Words:
        return Words(path.read_bytes())

    def encode(self, text: str) -> list[int]:
        return [int(piece) for piece in self.pieces.encode(text)]

    def decode(self, ids: list[int]) -> str:
        return str(self.pieces.decode(ids)).strip()

    def first_turn(self, question: str) -> list[int]:
        return self.encode(wording.first_turn(question))

    def later_turn(self, question: str, spaced: bool) -> list[int]:
        return self.encode(wording.later_turn(question, spaced))

    def answer(self, text: str) -> list[int]:
        return [*self.encode(text), EOS]

    def id_of(self, piece: str) -> int:
        """The id of a piece that must exist."""
        found = int(self.pieces.piece_to_id(piece))
        if found == 0:
            raise KeyError(f"no piece {piece!r} in the vocabulary")
        return found

    def numbers(self, spaced: bool) -> list[int]:
        """The ids of 0.00 to 1.00, with or without the space before."""
        return [self.id_of((SPACE if spaced else "") + number) for number in NUMBERS]

    def words(self, words: tuple[str, ...]) -> list[int]:
        """The ids of whole words as they stand within a sentence."""
        return [self.id_of(SPACE + word) for word in words]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where tokenizer.model goes")
    parser.add_argument("--size", type=int, default=SIZE)
    args = parser.parse_args()
    args.out.write_bytes(train(args.size))
    words = Words.load(args.out)
    print(f"{words.size} pieces; the template's head is {len(words.head)} tokens")


if __name__ == "__main__":
    main()

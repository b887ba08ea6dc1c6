"""The tokenizer against the SentencePiece library itself, on text that is hard to tokenize and on any sequence of tokens.

Three models: the recorded checkpoints' (which normalises text), the nano model's, and one trained here with LLaMA's settings.
"""

from __future__ import annotations

import io
import random
from functools import cache
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilevlm_ros.runtime.tokenizer import TextStream, Tokenizer
from tests.conftest import PARITY

ROOT = Path(__file__).resolve().parent.parent.parent
NANO = ROOT / "models" / "nano" / "package" / "tokenizer.model"

CORPUS = {
    "latin": "Where is the red mug? Straße, naïve café, Ærøskøbing, Đặng Thị Huệ, Łódź, ﬁnland, ǅ",
    "greek and cyrillic": "Πού είναι το κόκκινο φλιτζάνι; Где красная кружка? ѢѲ",
    "right to left": "أين الكوب الأحمر؟ היכן הספל האדום? \u202eabc\u202c \u200fא\u200e x",
    "east asian": "红色的杯子在哪里？赤いマグカップはどこですか。빨간 머그잔은 어디에 있나요? ｶﾞｷﾞ　全角ＡＢＣ",
    "indic and south-east asian": "लाल मग कहाँ है? ক্ষ ക്ഷ ถ้วยสีแดงอยู่ที่ไหน ထမင်း ខ្មែរ",
    "beyond the first plane": "𝔐𝔲𝔤 𐍈 𒀀 𓂀 𠮷野家 🂡 \U0010ffff",
    "emoji": "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪 ☕️ ☕︎ 1️⃣ 🧑🏿‍🚀❤️‍🔥",
    "combining marks": "e\u0301 é Z\u0351\u036b\u0343a\u0319\u0321l\u0337g\u0335o\u0334 \u0301alone",
    "unnormalised": "ﬃ ½ Å \u212b \u2126 ① ㎏ x² \uff21 \ufb33 \u1100\u1161 \u0958",
    "controls": "a\x00b\x01\x02\x07\x08\x0b\x0c\x1b[31mred\x7f\x80\x9f\xad\u200b\u2060\ufeff",
    "only a nul": "\x00",
    "spaces": "  two before,   three between, behind  ",
    "tabs and newlines": "\t\tif x:\n\n\n\treturn\r\n \n \t ",
    "other spaces": "a\u00a0b\u2003c\u3000d\u2028e\u2029f\u0085g\u1680h",
    "only spaces": "     ",
    "the space mark": "\u2581 a\u2581b \u2581\u2581",
    "replacement characters": "\ufffd a\ufffd\ufffd \ufffe \uffff",
    "long word": "Donaudampfschifffahrtsgesellschaftskapitän" * 30,
    "one letter": "a" * 2000,
    "no spaces": "".join(chr(0x4E00 + 7 * i) for i in range(300)),
    "numbers": "0 007 3.14159 1,000,000 -1e-7 0x1F ½ ٣٤ ⅷ 12:30 192.168.0.1 [0.61, 0.36, 0.92, 0.83]",
    "json": '{"label": "red mug", "box": [0.10, 0.2, 1.00, 0.83], "n": null, "t": "\\u00e9\\n\\"x\\""}',
    "code": 'def f(x: int = 0) -> str:\n    return f"{x!r:>10}"  # ≠\n#include <stdio.h>\nfor(i=0;i<n;++i){a[i]^=~b;}',
    "markup": "<div class='a'>&nbsp;&amp;</div> <!-- --> https://example.org/?q=a%20b&c=d#e \\frac{1}{2} $x^2$",
    "marks of the template": "<s></s><unk><pad> <image> [INST] USER: ASSISTANT: </s",
    "names of byte pieces": "<0x0A><0x00> <0xFF> <0xE2><0x98><0x95>",
    "punctuation": "“quoted” ‘single’ «guillemets» — – … · • † ‡ § ¶ ¿¡ ''' \"\"\" ``` ~~~ *** ___",
    "empty": "",
}


@cache
def _trained() -> bytes:
    """A model with the settings of LLaMA's: byte-pair encoding, byte fallback, split digits, text left as it is."""
    model = io.BytesIO()
    words = " ".join(CORPUS[name] for name in ("latin", "greek and cyrillic", "code", "json", "punctuation")).split()
    shuffled = random.Random(0)
    lines = ["  ".join(shuffled.sample(words, 12)) for _ in range(200)] + ["    x = [\n"] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=700,
        character_coverage=0.99,
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


class Pair:
    """The runtime's tokenizer and the library's over the same model. `plain` says that the model leaves text as it is."""

    def __init__(self, path: Path, plain: bool) -> None:
        self.ours = Tokenizer(path)
        self.library = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.plain = plain


@pytest.fixture(scope="module", params=["recorded", "nano", "like LLaMA's"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    if request.param == "recorded":
        return Pair(PARITY / "tokenizer.model", plain=False)
    if request.param == "nano":
        return Pair(NANO, plain=True)
    path = tmp_path_factory.mktemp("llama") / "tokenizer.model"
    path.write_bytes(_trained())
    return Pair(path, plain=True)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
HARD = st.lists(st.sampled_from([word for text in CORPUS.values() for word in text[:200].split(" ")]), max_size=8).map(" ".join)


def streamed(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    stream = TextStream(tokenizer)
    return [*(stream.add(token) for token in ids), stream.finish()]


def assert_same(pair: Pair, text: str) -> None:
    ids = pair.ours.encode(text)
    assert ids == pair.library.encode(text)
    assert pair.ours.decode(ids) == pair.library.decode(ids)
    assert not any(pair.library.is_control(token) or pair.library.is_unknown(token) for token in ids)
    if pair.plain:
        # The library writes a space as U+2581, so that this character comes back as a space.
        assert pair.ours.decode(ids) == text.replace("\u2581", " ")
        pieces = pair.ours.piece_bytes()
        spelled = b"".join(pieces[token] or b"nothing" for token in ids)
        assert spelled == (b" " + text.replace("\u2581", " ").encode() if text else b"")


@pytest.mark.parametrize("name", CORPUS)
def test_hard_text_has_the_librarys_tokens_and_comes_back(pair: Pair, name: str) -> None:
    assert_same(pair, CORPUS[name])


@given(text=TEXTS | HARD)
def test_any_text_has_the_librarys_tokens_and_comes_back(pair: Pair, text: str) -> None:
    assert_same(pair, text)


@pytest.mark.parametrize("name", CORPUS)
def test_hard_text_streams_in_whole_characters(pair: Pair, name: str) -> None:
    text = CORPUS[name][:300]
    ids = pair.ours.encode(text)
    pieces = streamed(pair.ours, ids)
    assert "".join(pieces) == pair.library.decode(ids)
    if "\ufffd" not in text:
        assert "\ufffd" not in "".join(pieces)


@given(data=st.data())
@settings(max_examples=200)
def test_any_tokens_that_a_model_could_say_stream_to_the_text_of_all_of_them(pair: Pair, data: st.DataObject) -> None:
    """Control tokens, half characters and bytes that form none included; wherever the answer ends."""
    token = st.integers(0, pair.ours.vocab_size - 1)
    byte = st.sampled_from([i for i in range(pair.ours.vocab_size) if pair.library.is_byte(i)])
    ids = data.draw(st.lists(token | byte | byte, max_size=24))
    pieces = streamed(pair.ours, ids)
    assert "".join(pieces) == pair.library.decode(ids) == pair.ours.decode(ids)
    for count in range(len(ids)):
        # What was shown is never taken back, and lags behind by no more than characters that may still become others.
        shown = "".join(pieces[: count + 1])
        sofar = pair.library.decode(ids[: count + 1])
        assert sofar.startswith(shown)
        assert sofar[len(shown) :].strip("\ufffd") == "" or sofar.endswith("\ufffd")


@given(tail=st.binary(min_size=1, max_size=6))
def test_a_character_is_shown_when_its_last_byte_came_and_not_before(pair: Pair, tail: bytes) -> None:
    first = next(i for i in range(pair.ours.vocab_size) if pair.library.is_byte(i))
    stream = TextStream(pair.ours)
    assert stream.add(pair.ours.encode("a")[-1]) != ""
    cup = [stream.add(first + byte) for byte in "☕".encode()]
    assert cup == ["", "", "☕"]
    rest = "".join([*(stream.add(first + byte) for byte in tail), stream.finish()])
    assert rest == tail.decode(errors="replace") or "\ufffd" in rest


def test_half_a_surrogate_pair_as_the_shell_or_json_may_bring_it_is_a_replacement_character(pair: Pair) -> None:
    assert pair.ours.encode("ball\udce9?") == pair.library.encode("ball\ufffd?")
    assert pair.ours.encode("\ud83d\ude00") == pair.library.encode("😀")
    assert pair.ours.encode("\ud83d") == pair.library.encode("\ufffd")


def test_ids_that_only_the_model_knows_have_no_text(pair: Pair) -> None:
    ids = pair.ours.encode("a red mug")
    assert pair.ours.decode([*ids[:2], pair.ours.vocab_size, *ids[2:], 10**6]) == "a red mug"


def test_the_model_trained_here_is_like_llamas(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(_trained())
    library = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    assert [library.bos_id(), library.eos_id(), library.unk_id()] == [1, 2, 0]
    assert [library.id_to_piece(3), library.id_to_piece(258)] == ["<0x00>", "<0xFF>"]
    assert library.encode("12", out_type=str)[-2:] == ["1", "2"]
    assert library.encode("a", out_type=str)[0].startswith("\u2581")
    assert library.encode("\u7ea2", out_type=str)[-3:] == ["<0xE7>", "<0xBA>", "<0xA2>"]

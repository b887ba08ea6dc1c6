"""The tokenizer: plain text stays plain, and streaming shows whole characters only."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.runtime.errors import PackageError
from mobilevlm_ros.runtime.tokenizer import TextStream, Tokenizer
from tests.conftest import PARITY
from tests.fakes import ByteTokenizer

TOKENIZER = Tokenizer(PARITY / "ldpnetv2" / "tokenizer.model")


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60))
def test_text_survives_its_tokens(text: str) -> None:
    """Up to the spaces, which this SentencePiece model was trained to normalise."""
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == " ".join(text.split())


@given(st.lists(st.sampled_from(["<s>", "</s>", "<unk>", "<image>", "USER:", "a ", "\n"]), max_size=8).map("".join))
def test_typed_control_words_are_plain_text(text: str) -> None:
    assert not {1, 2} & set(TOKENIZER.encode(text))


@given(st.text(max_size=30))
def test_streamed_pieces_add_up_and_hold_whole_characters(text: str) -> None:
    tokenizer = ByteTokenizer()
    stream = TextStream(tokenizer)
    pieces = [stream.add(token) for token in tokenizer.encode(text)]
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text
    assert "".join([*pieces, stream.finish()]) == text


def test_bytes_that_form_no_character_are_shown_at_the_end() -> None:
    stream = TextStream(ByteTokenizer())
    assert stream.add(0xC3 + 3) == ""
    assert stream.finish() == "\ufffd"


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(b"not a model")
    with pytest.raises(PackageError, match=r"tokenizer\.model"):
        Tokenizer(path)

"""Text to token ids and back, with the checkpoint's own SentencePiece model.

Text is always plain text: a `</s>` or `<image>` that a user types becomes the characters' tokens. Only the prompt's template
makes special tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import sentencepiece

from mobilevlm_ros.runtime.errors import PackageError

REPLACEMENT = "\ufffd"
SPACE_MARK = "\u2581"


class Tokenizer:
    """A SentencePiece model; safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        """Load the model.

        Raises:
            PackageError: the file is not a SentencePiece model.
        """
        self._pieces = sentencepiece.SentencePieceProcessor()
        try:
            self._pieces.LoadFromSerializedProto(path.read_bytes())
        except (OSError, RuntimeError) as error:
            raise PackageError(f"{path}: not a SentencePiece model: {error}") from error

    @property
    def vocab_size(self) -> int:
        """Number of pieces."""
        return int(self._pieces.GetPieceSize())

    def piece_bytes(self) -> list[bytes | None]:
        """The text of each token as UTF-8, a space where SentencePiece writes its mark.

        None for tokens that `encode` never gives: control tokens, and bytes for which there is a piece of the same text.
        """
        return [self._bytes_of(token) for token in range(self.vocab_size)]

    def _bytes_of(self, token: int) -> bytes | None:
        piece = str(self._pieces.IdToPiece(token))
        if self._pieces.IsByte(token):
            byte = int(piece[3:-1], 16)  # written as <0x0A>
            same = SPACE_MARK if byte == ord(" ") else chr(byte)
            is_a_piece = byte < 128 and self._pieces.PieceToId(same) != self._pieces.unk_id()
            return None if is_a_piece else bytes([byte])
        if self._pieces.IsControl(token) or self._pieces.IsUnknown(token) or self._pieces.IsUnused(token):
            return None
        return piece.replace(SPACE_MARK, " ").encode()

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text, without BOS or EOS. As LLaMA's tokenizer does, a space is put before the text.

        Half a surrogate pair, as bytes that are no UTF-8 leave it in a command's arguments, counts as U+FFFD.
        """
        whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return list(self._pieces.EncodeAsIds(whole))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids.

        Control tokens vanish, bytes that form no character become U+FFFD, the space put by `encode` is dropped. So do ids that a
        model has beyond the tokenizer's, because its table was filled up or tokens were added in training.
        """
        size = self.vocab_size
        return str(self._pieces.DecodeIds([token for token in ids if token < size]))


class TextStream:
    """Turns a growing answer's tokens into pieces of text that add up to `Tokenizer.decode` of all of them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._sent = 0

    def add(self, token: int) -> str:
        """Text that is certain now that `token` came; empty while a character's bytes are incomplete."""
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids)
        if text.endswith(REPLACEMENT):
            return ""
        return self._take(text)

    def finish(self) -> str:
        """What is left when no more tokens come."""
        return self._take(self._tokenizer.decode(self._ids))

    def _take(self, text: str) -> str:
        piece = text[self._sent :]
        self._sent = max(self._sent, len(text))
        return piece

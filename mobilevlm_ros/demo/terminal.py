"""What the demo prints: aligned lines, in colour on a terminal."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from enum import Enum
from typing import TextIO


class Colour(str, Enum):
    """ANSI codes."""

    BOLD = "1"
    FAINT = "2"
    RED = "31"
    GREEN = "32"
    CYAN = "36"


@dataclass
class Terminal:
    """Writes lines with a label in front."""

    stream: TextIO = field(default_factory=lambda: sys.stdout)

    def title(self, text: str) -> None:
        """Prints a heading."""
        print(f"\n{self._paint(text, Colour.BOLD)}", file=self.stream, flush=True)

    def line(self, label: str, text: str) -> None:
        """Prints a line."""
        print(f"  {self._paint(f'{label:<9}', Colour.CYAN)}{text}", file=self.stream, flush=True)

    def answer(self, text: str, verdict: bool | None, remark: str) -> None:
        """Prints an answer, whether it is right (None: nobody knows), and a remark."""
        print(f"  {'':9}{text:<34} {self._verdict(verdict)}{self._paint(remark, Colour.FAINT)}", file=self.stream, flush=True)

    def begin_stream(self) -> None:
        """Begins a line that grows piece by piece."""
        print(f"  {'':9}", end="", file=self.stream, flush=True)

    def piece(self, text: str) -> None:
        """Prints the next piece of a growing line."""
        print(text, end="", file=self.stream, flush=True)

    def end_stream(self, verdict: bool | None, remark: str) -> None:
        """Ends a growing line."""
        print(f"  {self._verdict(verdict)}{self._paint(remark, Colour.FAINT)}", file=self.stream, flush=True)

    def problem(self, text: str) -> None:
        """Prints what went wrong."""
        print(f"  {self._paint('problem  ', Colour.RED)}{text}", file=self.stream, flush=True)

    def _verdict(self, verdict: bool | None) -> str:
        if verdict is None:
            return ""
        return self._paint("right  ", Colour.GREEN) if verdict else self._paint("WRONG  ", Colour.RED)

    def _paint(self, text: str, colour: Colour) -> str:
        if not self.stream.isatty() or "NO_COLOR" in os.environ:
            return text
        return f"\x1b[{colour.value}m{text}\x1b[0m"

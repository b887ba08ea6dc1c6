"""Questions about a camera of the user's own, or about a picture: typed one after another, or a single standard one."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from mobilevlm_msgs.msg import RequestOptions

from mobilevlm_ros.demo.stage import Stage
from mobilevlm_ros.demo.terminal import Terminal
from mobilevlm_ros.runtime.errors import VlmError

STANDARD_QUESTION = "What is in the image?"
FIND = "find "


def standard(stage: Stage, terminal: Terminal) -> None:
    """Asks the standard question; raises VlmError where it is not answered."""
    _say(stage, terminal, STANDARD_QUESTION, "")


def interactive(stage: Stage, terminal: Terminal, output: Path) -> None:
    """Answers what is typed until the end of the input; a failed request is told and ends nothing."""
    terminal.line("you", f"type a question, or '{FIND}the red mug'; Ctrl-D ends")
    session, found = "", 0
    while (line := _read(terminal)) is not None:
        try:
            if line.startswith(FIND):
                found += 1
                _find(stage, terminal, line.removeprefix(FIND), output / f"found_{found}.png")
            elif line:
                session = _say(stage, terminal, line, session)
        except VlmError as error:
            terminal.problem(f"{error.code.name}: {error.message}")


def _read(terminal: Terminal) -> str | None:
    """Returns the next typed line, or None at the end."""
    try:
        return input("  > ").strip()
    except EOFError:
        print(file=sys.stdout)
        return None


def _say(stage: Stage, terminal: Terminal, message: str, session: str) -> str:
    """Sends a message of the conversation and prints the answer as it comes; returns the conversation's name."""
    started = time.monotonic()
    with stage.vlm.chat(message, session, frame_policy=RequestOptions.NEXT) as stream:
        terminal.line("ask", message)
        terminal.begin_stream()
        for piece in stream:
            terminal.piece(piece)
    terminal.end_stream(None, f"{(time.monotonic() - started) * 1e3:.0f} ms")
    return stream.session


def _find(stage: Stage, terminal: Terminal, expression: str, path: Path) -> None:
    regions = stage.vlm.ground(expression, frame_policy=RequestOptions.NEXT)
    terminal.line("find", expression)
    for region in regions.regions:
        box = region.box
        corners = f"({box.x1:.0f}, {box.y1:.0f}) to ({box.x2:.0f}, {box.y2:.0f}) pixels"
        terminal.answer(corners, None, f"score {region.score:.2f}")
    stage.save_annotated(regions.info.header, path)
    terminal.line("picture", str(path))

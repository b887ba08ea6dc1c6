"""The guided tour: the story of a recording, told while it happens, each answer compared with the truth."""

from __future__ import annotations

import time
from pathlib import Path

from mobilevlm_msgs.msg import RequestOptions, ResultInfo

from mobilevlm_ros.demo import truth
from mobilevlm_ros.demo.stage import Stage
from mobilevlm_ros.demo.terminal import Terminal
from mobilevlm_ros.demo.truth import Kind, Recording, Step
from mobilevlm_ros.ros.camera import FramePolicy
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.geometry import Box

SCENE_PATIENCE = 60.0
TRIES = 3
"""How often a step is begun anew because the scene changed under it."""


class SceneChangedError(Exception):
    """An answer is about another scene than the one that was asked about."""


class Tour:
    """Goes through the steps; `answers` counts what was judged and `wrong` what was not right."""

    def __init__(self, stage: Stage, recording: Recording, terminal: Terminal, output: Path) -> None:
        self.answers = 0
        self.wrong = 0
        self.pictures: list[Path] = []
        self._stage = stage
        self._recording = recording
        self._terminal = terminal
        self._output = output

    def run(self) -> None:
        """Goes through the story; raises VlmError where a request fails."""
        for step in self._recording.story:
            for attempt in range(1, TRIES + 1):
                self._wait_for_scene(step.scene)
                try:
                    self._take(step)
                    break
                except SceneChangedError:
                    if attempt == TRIES:
                        raise VlmError(ErrorCode.STALE_IMAGE, "the scenes change faster than they can be asked about") from None

    def _take(self, step: Step) -> None:
        if step.kind is Kind.ASK:
            self._ask(step)
        elif step.kind is Kind.GROUND:
            self._ground(step)
        else:
            self._chat(step)

    def _ask(self, step: Step) -> None:
        started = time.monotonic()
        answer = self._stage.vlm.ask(step.texts[0], frame_policy=RequestOptions.NEXT)
        elapsed = time.monotonic() - started
        self._picture(step, answer.info)
        self._terminal.line("ask", step.texts[0])
        verdict = self._judge(truth.says(answer.text, step.right[0]))
        self._terminal.answer(answer.text, verdict, f"{_share(answer.info.confidence)}, {elapsed * 1e3:.0f} ms")

    def _ground(self, step: Step) -> None:
        self._terminal.line("find", step.texts[0])
        started = time.monotonic()
        try:
            regions = self._stage.vlm.ground(step.texts[0], frame_policy=RequestOptions.NEXT)
        except VlmError as error:
            if error.code is not ErrorCode.NO_GROUNDING:
                raise
            self._terminal.answer("nothing found", self._judge(False), error.message)
            return
        elapsed = time.monotonic() - started
        true = self._picture(step, regions.info).box_of(step.right[0])
        found = regions.regions[0]
        box = Box(found.box.x1, found.box.y1, found.box.x2, found.box.y2)
        overlap = box.iou(true) if true else 0.0
        verdict = self._judge(true is not None and truth.points_at(box, true))
        remark = f"overlap {overlap:.2f}, score {found.score:.2f}, {elapsed * 1e3:.0f} ms"
        corners = f"({box.x1:.0f}, {box.y1:.0f}) to ({box.x2:.0f}, {box.y2:.0f}) pixels"
        self._terminal.answer(corners, verdict, remark)
        name = "annotated.png" if not self.pictures else f"annotated_{len(self.pictures) + 1}.png"
        self._stage.save_annotated(regions.info.header, self._output / name)
        self.pictures.append(self._output / name)

    def _chat(self, step: Step) -> None:
        session = ""
        for index, (message, right) in enumerate(zip(step.texts, step.right)):
            policy = FramePolicy.SAME if index else FramePolicy.NEXT
            started = time.monotonic()
            with self._stage.vlm.chat(message, session, frame_policy=int(policy)) as stream:
                pieces = iter(stream)
                first = next(pieces, "")
                waited = time.monotonic() - started
                self._terminal.line("chat" if not index else "", message)
                self._terminal.begin_stream()
                self._terminal.piece(first)
                for piece in pieces:
                    self._terminal.piece(piece)
            assert stream.answer is not None
            session = stream.session
            verdict = self._judge(truth.says(stream.answer.text, right))
            self._terminal.end_stream(verdict, f"first words after {waited * 1e3:.0f} ms")
            self._picture(step, stream.answer.info)

    def _judge(self, right: bool) -> bool:
        self.answers += 1
        self.wrong += not right
        return right

    def _picture(self, step: Step, info: ResultInfo) -> truth.Picture:
        """Returns the truth about the picture that an answer is about."""
        picture = self._recording.pictures[self._stage.sent.number(info.header)]
        if picture.scene != step.scene:
            raise SceneChangedError
        return picture

    def _wait_for_scene(self, scene: int) -> None:
        end = time.monotonic() + SCENE_PATIENCE
        while not self._shows(scene):
            camera = self._stage.camera
            if time.monotonic() > end or (camera and camera.ended is not None):
                raise VlmError(ErrorCode.NO_IMAGE, "the camera shows nothing")
            time.sleep(0.02)

    def _shows(self, scene: int) -> bool:
        """Returns whether the current picture and the two after it show the scene."""
        current, pictures = self._stage.sent.current, self._recording.pictures
        if current < 0:
            return False
        return all(picture.scene == scene for picture in pictures[current : current + 3])


def _share(value: float) -> str:
    return f"{100 * value:.0f}% sure"

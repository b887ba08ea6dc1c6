"""What the nano model answers about the demo's recording: the cases, and the file with the answers that are expected of the node.

`python -m tests.system.nano_answers` writes the file anew, with the tasks alone and no ROS, after the nano model has changed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilevlm_ros import tasks
from mobilevlm_ros.demo import truth
from mobilevlm_ros.demo.run import BAG
from mobilevlm_ros.models import shipped_package
from mobilevlm_ros.runtime.engine import Engine
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.sampling import GREEDY
from mobilevlm_ros.tasks import Settings

EXPECTED = Path(__file__).with_name("nano_answers.json")
PICTURES = (0, 7, 16, 25, 33, 40, 47, 58)
QUESTIONS = (
    "What is on the table?",
    "How many objects are on the table?",
    "What color is the ball?",
    "Is there a red mug in the image? Answer yes or no.",
)
LABELS = ("an orange ball", "a yellow mug", "a purple bowl", "a red mug")


@dataclass(frozen=True)
class Case:
    """One picture of the recording with a question, or the name of a thing in it."""

    picture: int
    kind: str
    text: str


def cases() -> list[Case]:
    """All that is asked."""
    recording = truth.read(BAG.with_suffix(".json"))
    found = []
    for number in PICTURES:
        found += [Case(number, "ask", question) for question in QUESTIONS]
        found += [Case(number, "ground", f"the {thing.name}") for thing in recording.pictures[number].things]
        found += [Case(number, "describe", thing.name) for thing in recording.pictures[number].things]
        found.append(Case(number, "classify", "Which of these is on the table?"))
    return found


def answer(engine: Engine, frame: Frame, case: Case) -> Any:
    """The answer as it stands in the file: words, or a box in whole pixels."""
    settings = Settings(GREEDY)
    if case.kind == "ask":
        return tasks.ask(engine, frame, case.text, settings).text
    if case.kind == "classify":
        return tasks.classify(engine, frame, case.text, LABELS, settings).label
    if case.kind == "describe":
        box = truth.read(BAG.with_suffix(".json")).pictures[case.picture].box_of(case.text)
        assert box
        return tasks.describe_region(engine, frame, box, settings).text
    return boxes([region.box for region in tasks.ground(engine, frame, case.text, settings).regions])


def boxes(found: list[Any]) -> list[list[int]]:
    """Boxes, of the tasks or of a message, in whole pixels."""
    return [[round(box.x1), round(box.y1), round(box.x2), round(box.y2)] for box in found]


def main() -> None:
    """Writes the file."""
    from sensor_msgs.msg import CompressedImage

    from mobilevlm_ros.demo.player import read
    from mobilevlm_ros.ros.camera import Snapshot

    shots = {message.picture: message.cdr for message in read(BAG)}
    with Engine.open(shipped_package()) as engine:
        lines = []
        for case in cases():
            frame = Snapshot("camera", shots[case.picture], CompressedImage).frame
            record = {"picture": case.picture, "kind": case.kind, "text": case.text, "answer": answer(engine, frame, case)}
            lines.append(json.dumps(record))
    EXPECTED.write_text("[\n  " + ",\n  ".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()

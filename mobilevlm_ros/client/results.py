"""What the client gives back: values made from the node's messages. They are data from a model: never execute what they say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mobilevlm_msgs import msg as vlm_msgs
from mobilevlm_msgs.msg import ResultInfo
from mobilevlm_msgs.srv import Classify
from std_msgs.msg import Header

from mobilevlm_ros.runtime.errors import ErrorCode, VlmError


class Box(NamedTuple):
    """(x1, y1) is the upper left corner, (x2, y2) the lower right one; in pixels of the picture, or 0 to 1 of its size."""

    x1: float
    y1: float
    x2: float
    y2: float


class Point(NamedTuple):
    """Metres along the axes of a frame."""

    x: float
    y: float
    z: float


@dataclass(frozen=True)
class Position:
    """Where a region lies in space.

    Attributes:
        point: centre of the visible surface.
        extent: size along the frame's axes.
        header: the frame, and the stamp of the picture.
    """

    point: Point
    extent: Point
    header: Header

    def __str__(self) -> str:
        x, y, z = self.point
        return f"({x:.2f}, {y:.2f}, {z:.2f}) m in {self.header.frame_id}"


@dataclass(frozen=True)
class Result:
    """What every result tells of itself.

    Attributes:
        info: `mobilevlm_msgs/ResultInfo`: the source image's header, the camera, the model, token counts and times.
        error_code: NONE, or why the result is not whole.
        error_msg: one line; empty for NONE.
    """

    info: ResultInfo
    error_code: ErrorCode
    error_msg: str

    @property
    def confidence(self) -> float:
        """0 to 1: the mean probability of the answer's tokens; for yes, no and a label its probability among the options."""
        return float(self.info.confidence)

    @property
    def header(self) -> Header:
        """The source image's own header: its stamp and its camera's frame."""
        return self.info.header

    @property
    def camera(self) -> str:
        """The camera's name."""
        return str(self.info.camera)


@dataclass(frozen=True)
class Answer(Result):
    """An answer in words. It prints as its text."""

    question: str
    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def is_yes(self) -> bool | None:
        """Whether the answer begins with yes; None where it begins with neither yes nor no."""
        words = self.text.replace(",", " ").replace(".", " ").split()
        return {"yes": True, "no": False}.get(words[0].lower()) if words else None


@dataclass(frozen=True)
class Region:
    """A part of a picture and the words for it.

    Attributes:
        score: 0 to 1: the probability that the thing is there and the box overlaps it by a half or more.
        box: in pixels of the source image.
        box_normalized: 0 to 1 of the source image's width and height.
        position: in space, where the camera has depth.
        position_msg: why there is no position, or why it is not in the frame that was asked for; else empty.
    """

    phrase: str
    score: float
    box: Box
    box_normalized: Box
    position: Position | None
    position_msg: str

    def __str__(self) -> str:
        x1, y1, x2, y2 = (round(value) for value in self.box)
        where = f", {self.position}" if self.position else ""
        return f"{self.phrase}: ({x1}, {y1}) to ({x2}, {y2}), score {self.score:.2f}{where}"


@dataclass(frozen=True)
class Regions(Result):
    """What a referring expression points at, best first: a sequence of `Region`. It prints as a line for each.

    Attributes:
        text: the model's own words.
        image_width: of the source image, pixels.
        image_height: of the source image, pixels.
    """

    expression: str
    regions: tuple[Region, ...]
    text: str
    image_width: int
    image_height: int

    def __iter__(self) -> Iterator[Region]:
        return iter(self.regions)

    def __len__(self) -> int:
        return len(self.regions)

    def __getitem__(self, index: int) -> Region:
        return self.regions[index]

    def __str__(self) -> str:
        return "\n".join(str(region) for region in self.regions)


@dataclass(frozen=True)
class Classification(Result):
    """The best of several labels. It prints as the label.

    Attributes:
        probabilities: one for each label, in the request's order; they add up to 1.
    """

    label: str
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]

    def __str__(self) -> str:
        return self.label


@dataclass(frozen=True)
class Finding:
    """What a standing query found out. It prints as its value.

    Attributes:
        name: the query's.
        value: the answer in short: its words or its label; for an expression "present" or "absent".
        previous: the value before; empty at first.
        changed: whether the answer differs from the one before.
        header: the source image's own.
        answer: to a question.
        regions: of an expression; not any where the thing is absent.
        error_code: NONE, or trouble that lasts, such as STALE_IMAGE; it is told once, and its end too.
        error_msg: one line; empty for NONE.
    """

    name: str
    value: str
    previous: str
    changed: bool
    header: Header
    answer: Answer
    regions: Regions
    error_code: ErrorCode
    error_msg: str

    def __str__(self) -> str:
        return self.value if self.error_code is ErrorCode.NONE else f"{self.error_code.name}: {self.error_msg}"


@dataclass(frozen=True)
class Models:
    """The node's models: the one that answers, and the names that can be selected, the configured one first."""

    active: str
    available: tuple[str, ...]


def answer_of(message: vlm_msgs.Answer) -> Answer:
    """Returns a message's answer, whether it is whole or not."""
    return Answer(message.info, code_of(message.error_code), message.error_msg, message.question, message.text)


def regions_of(message: vlm_msgs.Regions) -> Regions:
    """Returns a message's regions, whether there are any or not."""
    return Regions(
        message.info,
        code_of(message.error_code),
        message.error_msg,
        message.expression,
        tuple(_region(region) for region in message.regions),
        message.text,
        message.image_width,
        message.image_height,
    )


def classification_of(response: Classify.Response, labels: Sequence[str]) -> Classification:
    """Returns a response's label."""
    probabilities = tuple(float(value) for value in response.probabilities)
    code = code_of(response.error_code)
    return Classification(response.info, code, response.error_msg, response.label, tuple(labels), probabilities)


def finding_of(message: vlm_msgs.StandingAnswer) -> Finding:
    """Returns what a standing query's message tells."""
    return Finding(
        message.name,
        message.value,
        message.previous,
        message.changed,
        message.header,
        answer_of(message.answer),
        regions_of(message.regions),
        code_of(message.error_code),
        message.error_msg,
    )


def models_of(response: Any) -> Models:
    """Returns the models that a response of SelectModel or ListModels names."""
    return Models(response.active, tuple(response.available))


def raise_for(code: int, message: str) -> None:
    """Raises VlmError unless the code of a response is NONE."""
    if code != ErrorCode.NONE:
        raise VlmError(code_of(code), message)


def code_of(number: int) -> ErrorCode:
    """Returns a message's error code; one that this version does not know is MODEL_ERROR."""
    try:
        return ErrorCode(number)
    except ValueError:
        return ErrorCode.MODEL_ERROR


def _region(message: vlm_msgs.Region) -> Region:
    position = None
    if message.has_position:
        point, extent = message.position, message.extent
        position = Position(Point(point.x, point.y, point.z), Point(extent.x, extent.y, extent.z), message.position_header)
    box, normalized = _box(message.box), _box(message.box_normalized)
    return Region(message.phrase, float(message.score), box, normalized, position, message.position_msg)


def _box(message: vlm_msgs.Box2D) -> Box:
    return Box(message.x1, message.y1, message.x2, message.y2)

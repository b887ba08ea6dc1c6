"""Typed results and errors to `mobilevlm_msgs`. Pure construction of messages; knows no topics, cameras or model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from builtin_interfaces.msg import Duration
from mobilevlm_msgs import msg as vlm_msgs
from std_msgs.msg import Header

from mobilevlm_ros.runtime.errors import ErrorCode
from mobilevlm_ros.runtime.geometry import Box
from mobilevlm_ros.runtime.requests import Timing
from mobilevlm_ros.tasks import Answer, Grounding, Region
from mobilevlm_ros.tasks.results import Result

R = TypeVar("R", bound=Result)
R_co = TypeVar("R_co", bound=Result, covariant=True)


@dataclass(frozen=True)
class Source:
    """Where a result comes from: the image's own header, the camera's name and the model's."""

    header: Header
    camera: str
    model: str
    width: int = 0
    height: int = 0


NOWHERE = Source(Header(), "", "")
"""The source of a request that ended before it had a picture."""


@dataclass(frozen=True)
class Outcome(Generic[R_co]):
    """How a request ended: with a result, which may carry an error of its own, or with an error alone."""

    result: R_co | None
    error: ErrorCode
    error_msg: str
    source: Source = NOWHERE

    @staticmethod
    def of(result: R, source: Source) -> Outcome[R]:
        """Returns the outcome of a request that reached its result."""
        return Outcome(result, result.error, result.error_msg, source)


def answer_message(outcome: Outcome[Answer], question: str) -> vlm_msgs.Answer:
    """Returns an answer, or why there is none, to `question`."""
    message = vlm_msgs.Answer(info=info_message(outcome), question=question)
    message.text = outcome.result.text if outcome.result else ""
    message.error_code, message.error_msg = int(outcome.error), outcome.error_msg
    return message


def regions_message(outcome: Outcome[Grounding], expression: str) -> vlm_msgs.Regions:
    """Returns the regions, or why there are none, for `expression`."""
    message = vlm_msgs.Regions(info=info_message(outcome), expression=expression)
    message.image_width, message.image_height = outcome.source.width, outcome.source.height
    if outcome.result:
        message.regions = [region_message(region) for region in outcome.result.regions]
        message.text = outcome.result.text
    message.error_code, message.error_msg = int(outcome.error), outcome.error_msg
    return message


def info_message(outcome: Outcome[Result]) -> vlm_msgs.ResultInfo:
    """Returns what every result tells of itself; the counts and times are 0 without a result."""
    source = outcome.source
    info = vlm_msgs.ResultInfo(header=source.header, camera=source.camera, model=source.model)
    if outcome.result is not None:
        info.confidence = float(outcome.result.confidence)
        info.prompt_tokens = outcome.result.prompt_tokens
        info.answer_tokens = outcome.result.answer_tokens
        info.timing = timing_message(outcome.result.timing)
    return info


def region_message(region: Region) -> vlm_msgs.Region:
    """Returns a region without a 3-D position."""
    return vlm_msgs.Region(
        phrase=region.phrase,
        score=float(region.score),
        box=box_message(region.box),
        box_normalized=box_message(region.box_normalized),
    )


def box_message(box: Box) -> vlm_msgs.Box2D:
    """Returns a box."""
    return vlm_msgs.Box2D(x1=float(box.x1), y1=float(box.y1), x2=float(box.x2), y2=float(box.y2))


def box_of(message: vlm_msgs.Box2D) -> Box:
    """Returns a message's box."""
    return Box(message.x1, message.y1, message.x2, message.y2)


def timing_message(timing: Timing) -> vlm_msgs.Timing:
    """Returns the stages' milliseconds."""
    return vlm_msgs.Timing(
        queue_ms=float(timing.queue_ms),
        encode_ms=float(timing.encode_ms),
        prefill_ms=float(timing.prefill_ms),
        decode_ms=float(timing.decode_ms),
    )


def seconds(duration: Duration) -> float:
    """Returns a duration in seconds."""
    return float(duration.sec) + float(duration.nanosec) * 1e-9


def duration(value: float) -> Duration:
    """Returns `value` seconds, 0 or more, as a message."""
    nanoseconds = round(value * 1e9)
    return Duration(sec=nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000)

"""Standing queries and their answers to `mobilevlm_msgs` and back. Pure construction of messages."""

from __future__ import annotations

from typing import TypeVar

from mobilevlm_msgs import msg as vlm_msgs

from mobilevlm_ros.ros.messages import Outcome, answer_message, duration, info_message, regions_message, seconds
from mobilevlm_ros.ros.standing_query import EVERY_SECOND, REFRESH_SECONDS, Kind, Publish, StandingQuery
from mobilevlm_ros.tasks import Answer, Classification, Grounding
from mobilevlm_ros.tasks.results import Result


def query_of(message: vlm_msgs.StandingQuery) -> StandingQuery:
    """Returns a message's query with its defaults filled in.

    Raises:
        ValueError: one line that says what does not fit.
    """
    period = seconds(message.period)
    return StandingQuery(
        name=message.name,
        kind=_choice(Kind, message.kind, "kind"),
        text=message.text,
        labels=tuple(message.labels),
        camera=message.camera,
        period=period or (0.0 if message.frames else EVERY_SECOND),
        frames=message.frames,
        min_change=None if message.min_change < 0 else float(message.min_change),
        refresh=seconds(message.refresh) or REFRESH_SECONDS,
        publish=_choice(Publish, message.publish, "publish"),
        max_tokens=message.max_tokens,
    )


def query_message(query: StandingQuery, min_change: float) -> vlm_msgs.StandingQuery:
    """Returns a query's message; `min_change` is for one that has none of its own."""
    return vlm_msgs.StandingQuery(
        name=query.name,
        kind=int(query.kind),
        text=query.text,
        labels=list(query.labels),
        camera=query.camera,
        period=duration(query.period),
        frames=query.frames,
        min_change=float(min_change if query.min_change is None else query.min_change),
        refresh=duration(query.refresh),
        publish=int(query.publish),
        max_tokens=query.max_tokens,
    )


def result_message(query: StandingQuery, outcome: Outcome[Result]) -> vlm_msgs.StandingAnswer:
    """Returns an answer with the model's result in it; value, previous and changed are left open."""
    message = vlm_msgs.StandingAnswer(header=outcome.source.header, name=query.name)
    result = outcome.result
    if isinstance(result, Grounding):
        message.regions = regions_message(Outcome(result, outcome.error, outcome.error_msg, outcome.source), query.text)
    elif isinstance(result, Classification):
        message.answer = vlm_msgs.Answer(info=info_message(outcome), question=query.text, text=result.label)
    elif isinstance(result, Answer):
        message.answer = answer_message(Outcome(result, outcome.error, outcome.error_msg, outcome.source), query.text)
    return message


C = TypeVar("C", Kind, Publish)


def _choice(kind: type[C], value: int, name: str) -> C:
    try:
        return kind(value)
    except ValueError:
        allowed = ", ".join(f"{choice.value} ({choice.name})" for choice in kind)
        raise ValueError(f"{name} is {value}, it must be one of {allowed}") from None

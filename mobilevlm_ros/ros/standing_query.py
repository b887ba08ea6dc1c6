"""A standing query: what is asked of a camera again and again, and the short text in which a parameter holds one.

The text is the query's name and then its fields, as in `door; ask: is the door open?; labels: yes, no; every: 2 s`. Values and
their checks only; knows no messages, node or model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

MOST_QUERIES = 32
"""Standing queries that a node keeps."""

EVERY_SECOND = 1.0
REFRESH_SECONDS = 60.0


class Kind(IntEnum):
    """What is asked; the numbers are those of `mobilevlm_msgs/StandingQuery`."""

    ASK = 0
    GROUND = 1


class Publish(IntEnum):
    """When an answer is published; the numbers are those of `mobilevlm_msgs/StandingQuery`."""

    ON_CHANGE = 0
    ALWAYS = 1


@dataclass(frozen=True)
class StandingQuery:
    """One query, checked.

    Attributes:
        name: a letter, then letters, digits, _ or -; 64 at most.
        text: a question, or for GROUND a referring expression; 1 to 1000 characters. With labels a question may be empty.
        labels: the answers that can come back, 2 to 64 different ones; none for words of the model's own.
        camera: empty for the node's first.
        period: seconds from one turn to the next, 0.05 to 86400; 0 where frames count.
        frames: frames from one turn to the next, 1 to 100000; 0 where seconds count.
        min_change: how much a tile of the picture must change, in levels of 0 to 255; None leaves it to the node.
        refresh: seconds after which it is asked although the picture has not changed, 0.1 to 10 million.
        max_tokens: of an answer, 1 to 4096; 0 leaves it to the node.

    Raises:
        ValueError: one line that says what does not fit.
    """

    name: str
    kind: Kind
    text: str
    labels: tuple[str, ...] = ()
    camera: str = ""
    period: float = EVERY_SECOND
    frames: int = 0
    min_change: float | None = None
    refresh: float = REFRESH_SECONDS
    publish: Publish = Publish.ON_CHANGE
    max_tokens: int = 0

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", self.name):
            raise ValueError(f"the name '{short(self.name)}' is not a letter and up to 63 letters, digits, _ or -")
        self._check_text()
        if self.frames and self.period:
            raise ValueError("it has a period and a number of frames, only one of them can be")
        if self.frames:
            _check("frames", self.frames, 1, 100_000)
        else:
            _check("the period in seconds", self.period, 0.05, 86_400)
        if self.min_change is not None:
            _check("min_change", self.min_change, 0, 255)
        _check("refresh in seconds", self.refresh, 0.1, 10_000_000)
        _check("max_tokens", self.max_tokens, 0, 4096)

    def _check_text(self) -> None:
        if self.kind is Kind.GROUND and self.labels:
            raise ValueError("labels belong to a question, not to an expression")
        if not self.text.strip() and not self.labels:
            raise ValueError(f"it has no {'question' if self.kind is Kind.ASK else 'expression'}")
        if len(self.text) > 1000:
            raise ValueError(f"its text has {len(self.text)} characters, 1000 are allowed")
        if len(self.labels) == 1 or len(self.labels) > 64 or any(not 0 < len(label.strip()) <= 100 for label in self.labels):
            raise ValueError("labels must be 2 to 64, each of 1 to 100 characters")
        if len({label.strip().lower() for label in self.labels}) < len(self.labels):
            raise ValueError("the labels are not all different")


def parse(text: str) -> StandingQuery:
    """Reads a query from its text: its name, then `field: value`, with `;` between them.

    Fields are `ask` or `ground`, and as wanted `labels` (with commas between), `camera`, `every` ("2 s", "10 frames"),
    `min_change`, `refresh` ("60 s"), `publish` ("changes" or "always") and `max_tokens`.

    Raises:
        ValueError: one line with the text and what does not fit.
    """
    try:
        name, *parts = (part.strip() for part in text.split(";"))
        return _query(name, _fields(part for part in parts if part))
    except ValueError as error:
        raise ValueError(f"the standing query '{short(text)}' cannot be: {error}") from None


def parse_all(texts: Iterable[str]) -> tuple[StandingQuery, ...]:
    """Reads the queries of a list, in which empty texts are none.

    Raises:
        ValueError: one of them does not fit, two have one name, or there are more than MOST_QUERIES.
    """
    queries = tuple(parse(text) for text in texts if text.strip())
    names = [query.name for query in queries]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two standing queries are called '{twice}'")
    if len(queries) > MOST_QUERIES:
        raise ValueError(f"there are {len(queries)} standing queries, {MOST_QUERIES} are allowed")
    return queries


_FIELDS = ("ask", "ground", "labels", "camera", "every", "min_change", "refresh", "publish", "max_tokens")


def _fields(parts: Iterable[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for part in parts:
        key, colon, value = part.partition(":")
        key = key.strip()
        if not colon or key not in _FIELDS:
            raise ValueError(f"'{short(part)}' is no field; there are: {', '.join(_FIELDS)}")
        if key in fields:
            raise ValueError(f"{key} stands there twice")
        fields[key] = value.strip()
    return fields


def _query(name: str, fields: dict[str, str]) -> StandingQuery:
    if ("ask" in fields) == ("ground" in fields):
        raise ValueError("it needs one of ask and ground")
    kind = Kind.ASK if "ask" in fields else Kind.GROUND
    period, frames = _every(fields.get("every", f"{EVERY_SECOND} s"))
    return StandingQuery(
        name=name,
        kind=kind,
        text=fields["ask" if kind is Kind.ASK else "ground"],
        labels=tuple(label.strip() for label in fields["labels"].split(",")) if "labels" in fields else (),
        camera=fields.get("camera", ""),
        period=period,
        frames=frames,
        min_change=_number(fields["min_change"], "min_change") if "min_change" in fields else None,
        refresh=_seconds(fields["refresh"], "refresh") if "refresh" in fields else REFRESH_SECONDS,
        publish=_publish(fields.get("publish", "changes")),
        max_tokens=_whole(fields.get("max_tokens", "0"), "max_tokens"),
    )


def _every(value: str) -> tuple[float, int]:
    """Seconds and frames, one of them 0."""
    if match := re.fullmatch(r"(\d+) ?frames?", value):
        if not int(match[1]):
            raise ValueError("every is 0 frames, it must be 1 or more")
        return 0.0, int(match[1])
    return _seconds(value, "every"), 0


def _seconds(value: str, name: str) -> float:
    match = re.fullmatch(r"(.*?) ?s", value)
    if not match:
        hint = "'2 s' or '10 frames'" if name == "every" else "'60 s'"
        raise ValueError(f"{name} is '{short(value)}', it must be such as {hint}")
    return _number(match[1], name)


def _number(value: str, name: str) -> float:
    if not re.fullmatch(r"\d{1,12}(\.\d{1,12})?", value):
        raise ValueError(f"{name} is '{short(value)}', which is no number")
    return float(value)


def _whole(value: str, name: str) -> int:
    if not re.fullmatch(r"\d{1,12}", value):
        raise ValueError(f"{name} is '{short(value)}', which is no whole number")
    return int(value)


def _publish(value: str) -> Publish:
    kinds = {"changes": Publish.ON_CHANGE, "always": Publish.ALWAYS}
    if value not in kinds:
        raise ValueError(f"publish is '{short(value)}', it must be one of {', '.join(kinds)}")
    return kinds[value]


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}, it must be {low} to {high}")


def short(text: str) -> str:
    """A text that a user sent as a message may repeat it: in one line, 80 characters at most."""
    line = "".join(character if character.isprintable() else " " for character in text[:81])
    return line if len(line) <= 80 else f"{line[:77]}..."

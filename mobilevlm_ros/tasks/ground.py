"""Referring expression comprehension: words in, boxes out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from mobilevlm_ros.runtime.engine import Engine
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.geometry import Box
from mobilevlm_ros.runtime.requests import FinishReason, Limits, Timing
from mobilevlm_ros.tasks.look import Drawn, Presence, ask_presence, draw_box, indefinite, score_of
from mobilevlm_ros.tasks.masking import without
from mobilevlm_ros.tasks.plural import Wanted, wanted
from mobilevlm_ros.tasks.results import Grounding, Region, finish_error
from mobilevlm_ros.tasks.settings import Settings
from mobilevlm_ros.tasks.suppression import best_apart, same_thing

AS_EXPRESSED = 0
"""As many regions as the expression asks for: one, or several where it is in the plural."""

MOST_REGIONS = 64
THERE = 0.5
"""A thing is taken for present from this probability on."""

ANOTHER_THERE = 0.7
"""As THERE, after one was found and taken out: what is left of it makes models say yes more often than they should."""


def ground(
    engine: Engine, frame: Frame, expression: str, settings: Settings | None = None, max_regions: int = AS_EXPRESSED
) -> Grounding:
    """Find what a referring expression such as "the red mug" or "all red mugs" points at.

    The model is first asked whether the thing is there. A region's score is the probability that it is there and that the box
    overlaps the true one by a half or more, as `box_score.py` works it out from the model's token probabilities.

    Models of this family draw one box. Where several things are wanted, each one found is taken out of the picture and the model
    is asked again, until it says that there is no more, draws a box that it drew before, or there are enough.

    Args:
        max_regions: how many regions may come back, 1 to MOST_REGIONS; 1 takes a plural for one thing. AS_EXPRESSED leaves it to
            the expression (see `plural.py`).

    Returns:
        The regions, best first; none, with error NO_GROUNDING, where the thing is absent or the answer holds no valid box. Where
        several are wanted and something fails after the first, those that were found and that error.

    Raises:
        VlmError: as for `ask`; BAD_REQUEST for a `max_regions` out of its range.
    """
    phrase = expression.strip().rstrip(".")
    if not phrase:
        raise VlmError(ErrorCode.BAD_REQUEST, "the expression is empty")
    if not AS_EXPRESSED <= max_regions <= MOST_REGIONS:
        raise VlmError(ErrorCode.BAD_REQUEST, f"max_regions is {max_regions}, it must be 0 to {MOST_REGIONS}")
    plan = Wanted(phrase, 1) if max_regions == 1 else wanted(phrase)
    search = _Search(engine, frame, replace(plan, most=max_regions or plan.most), (settings or Settings()).limits())
    search.run()
    return search.result(expression)


@dataclass
class _Search:
    """Looking for one thing after the other; what was found and what it cost add up as it goes."""

    engine: Engine
    frame: Frame
    plan: Wanted
    limits: Limits
    regions: list[Region] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    presence: Presence | None = None
    timing: Timing = field(default_factory=Timing)
    prompt_tokens: int = 0
    answer_tokens: int = 0
    error: ErrorCode = ErrorCode.NONE
    error_msg: str = ""

    def run(self) -> None:
        """Look until there is no more to find."""
        view = self.frame
        while len(self.regions) < self.plan.most:
            try:
                box = self._look(view)
            except VlmError as error:
                if not self.regions:
                    raise
                self.error, self.error_msg = error.code, error.message
                return
            if box is None:
                return
            if len(self.regions) < self.plan.most:
                view = without(view, box)

    def _look(self, view: Frame) -> Box | None:
        """Look once; the box of a region that is new, or None where looking on is no use."""
        presence = ask_presence(self.engine, view, self.plan.phrase, self.limits)
        self.presence = self.presence or presence
        self._add_cost(presence.prompt_tokens, 0, presence.timing)
        if presence.probability < (ANOTHER_THERE if self.regions else THERE):
            return None
        drawn = draw_box(self.engine, view, self.plan.phrase, self.limits)
        self._add_cost(drawn.prompt_tokens, drawn.answer_tokens, drawn.timing)
        self.error, self.error_msg = finish_error(drawn.finish)
        if self.regions and (drawn.finish is not FinishReason.STOP or self._is_known(drawn)):
            return None
        self.texts.append(drawn.text)
        if drawn.box is None:
            return None
        score = score_of(self.engine, presence, drawn)
        normalized = drawn.box.scaled(1 / self.frame.width, 1 / self.frame.height)
        self.regions.append(Region(self.plan.phrase, score, drawn.box, normalized))
        return drawn.box

    def _is_known(self, drawn: Drawn) -> bool:
        return drawn.box is None or any(same_thing(drawn.box, region.box) for region in self.regions)

    def _add_cost(self, prompt_tokens: int, answer_tokens: int, timing: Timing) -> None:
        self.prompt_tokens = prompt_tokens
        self.answer_tokens += answer_tokens
        self.timing = self.timing + timing

    def result(self, expression: str) -> Grounding:
        """What came of it."""
        assert self.presence is not None
        present = self.presence.probability
        regions = best_apart(self.regions)
        error, error_msg = self.error, self.error_msg
        if error is ErrorCode.NONE and not regions:
            error = ErrorCode.NO_GROUNDING
            error_msg = "the answer holds no valid box inside the picture"
            if present < THERE:
                error_msg = f"the picture does not seem to show {indefinite(self.plan.phrase)}"
        return Grounding(
            confidence=regions[0].score if regions else 1 - present if present < THERE else 0.0,
            prompt_tokens=self.prompt_tokens,
            answer_tokens=self.answer_tokens,
            timing=self.timing,
            error=error,
            error_msg=error_msg,
            expression=expression,
            regions=regions,
            text="\n".join(self.texts),
            presence=present,
        )

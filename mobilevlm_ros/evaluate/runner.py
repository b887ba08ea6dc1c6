"""Asks a benchmark's items: several at a time, so that the engine decodes them as one batch, and each only once.

Every item is asked in a thread of its own pool by the task that a robot would use. Whatever goes wrong with one item (a broken
picture, a prompt that is too long) is that item's error; the run goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import islice

from mobilevlm_ros.evaluate.dataset import Benchmark, Item, Prediction, ScoredBox, Task
from mobilevlm_ros.evaluate.pictures import load_picture
from mobilevlm_ros.evaluate.predictions import PredictionFile
from mobilevlm_ros.runtime.engine import Engine
from mobilevlm_ros.runtime.errors import ErrorCode, VlmError
from mobilevlm_ros.runtime.frame import Frame
from mobilevlm_ros.runtime.requests import CancelToken
from mobilevlm_ros.runtime.sampling import GREEDY
from mobilevlm_ros.tasks import Settings, ask, ground
from mobilevlm_ros.tasks.ground import AS_EXPRESSED
from mobilevlm_ros.tasks.look import draw_box

READ_AHEAD = 1
"""Requests beyond the engine's rows: while they decode, the next picture is read and letterboxed."""

OnPrediction = Callable[[Prediction], None]


@dataclass(frozen=True)
class RunOptions:
    """How a benchmark is run.

    Attributes:
        rows: items that decode at once; the engine should have as many rows.
        max_tokens: the longest answer.
    """

    rows: int
    max_tokens: int


def to_ask(benchmark: Benchmark, limit: int | None) -> tuple[Item, ...]:
    """The items of a run: the first `limit`, or all."""
    return tuple(islice(benchmark.items, limit))


def run_items(
    engine: Engine,
    items: Iterable[Item],
    options: RunOptions,
    predictions: PredictionFile,
    on_prediction: OnPrediction | None = None,
) -> None:
    """Ask the items that have no answer yet and put each answer into the file as it comes.

    Args:
        on_prediction: called in the caller's thread after each answer or error.

    Raises:
        KeyboardInterrupt: what was being asked is taken back and not recorded; everything before it stands in the file.
        VlmError: NOT_ACTIVE, if the engine was closed.
    """
    left = (item for item in items if not predictions.answered(item.id))
    cancel = CancelToken()
    workers = options.rows + READ_AHEAD
    with ThreadPoolExecutor(workers, thread_name_prefix="mobilevlm-eval") as pool:
        running: set[Future[Prediction]] = set()
        try:
            while True:
                for item in islice(left, workers - len(running)):
                    running.add(pool.submit(predict, engine, item, options.max_tokens, cancel))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    prediction = future.result()
                    predictions.add(prediction)
                    if on_prediction is not None:
                        on_prediction(prediction)
        except BaseException:
            cancel.cancel()
            pool.shutdown(cancel_futures=True)
            raise


def predict(engine: Engine, item: Item, max_tokens: int, cancel: CancelToken) -> Prediction:
    """Ask one item. Errors come back in the prediction.

    Raises:
        VlmError: NOT_ACTIVE or CANCELLED; they are not the item's fault.
    """
    start = time.perf_counter()
    blank = Prediction(id=item.id, question_id=item.question_id, prompt=item.question)
    settings = Settings(replace(GREEDY, max_tokens=max_tokens), cancel=cancel)
    try:
        frame = load_picture(item.image, item.fit)
        blank = replace(blank, width=frame.width, height=frame.height)
        answer = _ground if item.task is Task.GROUND else _ask
        prediction = answer(engine, frame, item, settings, blank)
    except VlmError as error:
        if error.code in (ErrorCode.NOT_ACTIVE, ErrorCode.CANCELLED):
            raise
        prediction = replace(blank, error=error.code, error_msg=error.message)
    if prediction.error is ErrorCode.CANCELLED:
        raise VlmError(prediction.error, prediction.error_msg)
    return replace(prediction, milliseconds=round((time.perf_counter() - start) * 1e3, 3))


def _ask(engine: Engine, frame: Frame, item: Item, settings: Settings, blank: Prediction) -> Prediction:
    found = ask(engine, frame, item.question, settings)
    return replace(
        blank,
        text=found.text,
        confidence=found.confidence,
        prompt_tokens=found.prompt_tokens,
        answer_tokens=found.answer_tokens,
        error=found.error,
        error_msg=found.error_msg,
    )


def _ground(engine: Engine, frame: Frame, item: Item, settings: Settings, blank: Prediction) -> Prediction:
    """Ground as a robot would; where one thing is taken for absent although it is there, ask for its box all the same."""
    found = ground(engine, frame, item.question, settings, 1 if item.several is None else AS_EXPRESSED)
    boxes = tuple(ScoredBox(region.box, region.score) for region in found.regions)
    text, forced = found.text, boxes[0].box if boxes else None
    refused = found.error is ErrorCode.NO_GROUNDING
    if refused and not text and not item.absent and item.several is None:
        drawn = draw_box(engine, frame, item.question.strip().rstrip("."), settings.limits())
        text, forced = drawn.text, drawn.box
    return replace(
        blank,
        text=text,
        confidence=found.confidence,
        boxes=boxes,
        forced_box=forced,
        presence=found.presence,
        prompt_tokens=found.prompt_tokens,
        answer_tokens=found.answer_tokens,
        error=ErrorCode.NONE if refused else found.error,
        error_msg="" if refused else found.error_msg,
    )

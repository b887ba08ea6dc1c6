"""Which examples make a step, and where their tokens lie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.checkpoint.config import IMAGE_TOKEN
from mobilevlm_ros.finetune.batches import Order, collate, held_out, micro_batches
from mobilevlm_ros.finetune.examples import IGNORE_INDEX, Example

TOKENS = 9  # of a picture


def example(before: int, after: int, learnt: int, image: str | None) -> Example:
    """Ids 10, 11, ... with a picture after `before` of them; the last `learnt` are the answer."""
    ids = np.arange(10, 10 + before + after, dtype=np.int32)
    if image is not None:
        ids = np.insert(ids, before, IMAGE_TOKEN)
    length = len(ids) + (TOKENS - 1 if image is not None else 0)
    return Example(ids, ((len(ids) - learnt, len(ids)),), image, length)


@given(count=st.integers(1, 50), batch=st.integers(1, 20), seed=st.integers(0, 2**40))
def test_an_epoch_shows_every_example_once_in_an_order_of_its_own(count: int, batch: int, seed: int) -> None:
    order = Order(count, batch, seed)
    epochs = [
        [number for step in range(order.steps_per_epoch) for number in order.examples(epoch * order.steps_per_epoch + step)]
        for epoch in range(2)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(count))
    assert all(len(order.examples(step)) <= batch for step in range(order.steps_per_epoch))
    assert Order(count, batch, seed).examples(order.steps_per_epoch) == order.examples(order.steps_per_epoch)


def test_epochs_and_seeds_differ_in_order() -> None:
    orders = [Order(100, 100, seed).examples(step) for seed in (0, 1) for step in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


@given(
    images=st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=40),
    share=st.floats(0, 0.9),
    seed=st.integers(0, 9),
)
def test_a_picture_is_kept_from_training_with_all_its_examples(images: list[str | None], share: float, seed: int) -> None:
    kept = held_out(images, share, seed)
    inside = {images[number] for number in kept if images[number] is not None}
    outside = {images[number] for number in set(range(len(images))) - set(kept) if images[number] is not None}
    assert not inside & outside
    assert len(kept) >= share * len(images) - 1e-9
    assert kept == held_out(images, share, seed)


def test_nothing_is_kept_unless_asked_and_never_everything() -> None:
    assert held_out(["a", "b"], 0, 0) == []
    with pytest.raises(ValueError, match="0 to below 1"):
        held_out(["a"], 1, 0)


@given(st.lists(st.tuples(st.integers(2, 9), st.booleans()), min_size=1, max_size=20), st.integers(1, 6))
def test_micro_batches_hold_all_examples_the_longest_first(made: list[tuple[int, bool]], size: int) -> None:
    examples = [example(2, after, 1, "a" if pictured else None) for after, pictured in made]
    groups = micro_batches(examples, size)
    assert sorted(map(id, examples)) == sorted(id(one) for group in groups for one in group)
    lengths = [one.length for group in groups for one in group]
    assert lengths == sorted(lengths, reverse=True)
    assert all(len(group) <= size for group in groups)


def test_tokens_stand_around_the_room_for_the_picture() -> None:
    batch = collate([example(3, 4, 2, "a.png"), example(5, 3, 1, None), example(3, 2, 1, "b.png")], TOKENS)
    assert batch.images == ("a.png", "b.png")
    assert batch.pictured.tolist() == [0, 2]
    assert batch.picture_at == 3
    assert batch.tokens == 16 + 8 + 14
    room = [0] * TOKENS
    ignored = [IGNORE_INDEX] * TOKENS
    no = IGNORE_INDEX
    assert batch.ids.tolist() == [
        [10, 11, 12, *room, 13, 14, 15, 16],
        [10, 11, 12, 13, 14, 15, 16, 17, *[0] * 8],
        [10, 11, 12, *room, 13, 14, 0, 0],
    ]
    assert batch.labels.tolist() == [
        [no, no, no, *ignored, no, no, 15, 16],
        [*[no] * 7, 17, *[no] * 8],
        [no, no, no, *ignored, no, 14, no, no],
    ]

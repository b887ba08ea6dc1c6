"""Answers in one form, by the rules of the public VQA evaluator, oddities included."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.evaluate.normalize import normalize_answer


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ("Yes", "yes"),
        ("  The Red  Mug ", "red mug"),
        ("a\ncat\tsat", "cat sat"),
        # Articles are words of their own, not beginnings.
        ("theatre", "theatre"),
        ("an", ""),
        # Numbers up to ten, and "none", become digits; others stay as they are.
        ("Two dogs", "2 dogs"),
        ("none", "0"),
        ("eleven", "eleven"),
        ("twenty-one", "twenty 1"),
        # A lost apostrophe comes back, if exactly one is lost.
        ("dont", "don't"),
        ("DONT know", "don't know"),
        ("couldnt've", "couldn't've"),
        ("couldntve", "couldntve"),
        ("yall here", "y'all here"),
        ("somebody'd", "somebodyd"),
        # These words have a meaning of their own, so nothing is put in.
        ("its", "its"),
        ("were", "were"),
        # A genitive is parted, so "how's" is not what "hows" becomes.
        ("dog's", "dog 's"),
        ("how's", "how 's"),
        ("hows", "how's"),
        # A sign of punctuation vanishes beside a space and becomes one elsewhere.
        ("red/blue", "red blue"),
        ("red / blue", "red blue"),
        ("(red)", "red"),
        ("red- blue-green", "red bluegreen"),
        ("$5", "$5"),
        # Commas and question marks simply go; full stops go unless a digit follows.
        ("1,000", "1000"),
        ("really?", "really"),
        ("U.S.", "us"),
        ("3.5", "3.5"),
        (".5", ".5"),
        ("yes.", "yes"),
        ("", ""),
    ],
)
def test_the_form_of_an_answer(answer: str, form: str) -> None:
    assert normalize_answer(answer) == form


@given(st.text())
def test_any_text_has_a_form_without_capitals_articles_or_double_spaces(text: str) -> None:
    form = normalize_answer(text)
    assert form == form.lower()
    assert form == " ".join(form.split())
    assert not {"a", "an", "the"}.intersection(form.split(" "))


@given(
    st.lists(st.sampled_from(["a", "red", "two", "mustnt", "mug", "dont"]), max_size=6), st.sampled_from([" ", "  ", "\n", "\t "])
)
def test_the_white_space_between_words_is_no_matter(words: list[str], gap: str) -> None:
    assert normalize_answer(gap.join(words)) == normalize_answer(" ".join(words))

"""Answers to visual questions in one form, by the rules of the VQA and TextVQA challenges.

The rules are those of the public evaluator that LLaVA and MobileVLM use for TextVQA (the EvalAI answer processor of Pythia and
MMF), oddities included: numbers up to ten become digits, "none" becomes 0, articles go, an apostrophe that was left out of a
contraction is put back, and a sign of punctuation vanishes where a space stands beside it in the text but becomes a space
elsewhere.
"""

from __future__ import annotations

import re

_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = {
    word: str(value)
    for value, word in enumerate(("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"))
} | {"none": "0"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_FULL_STOP = re.compile(r"\.(?!\d)")
_CONTRACTIONS = """
'ow's'at 'twas ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't not've o'clock
oughtn't shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
someone's something'd something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll they're
they've wasn't we'd've we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's
who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've
"""


def _lacking_one_apostrophe() -> dict[str, str]:
    """Each contraction by the forms that lack exactly one of its apostrophes."""
    forms = {}
    for word in _CONTRACTIONS.split():
        for position, character in enumerate(word):
            if character == "'":
                forms[word[:position] + word[position + 1 :]] = word
    forms["somebody'd"] = "somebodyd"  # the public table has this one the other way round
    return forms


_REPAIRED = _lacking_one_apostrophe()


def normalize_answer(text: str) -> str:
    """The form in which two answers are compared."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    words = (_NUMBERS.get(word, word) for word in _without_punctuation(text).split())
    return " ".join(_REPAIRED.get(word, word) for word in words if word not in _ARTICLES)


def _without_punctuation(text: str) -> str:
    cleaned = text
    for sign in _PUNCTUATION:
        beside_space = f"{sign} " in text or f" {sign}" in text
        cleaned = cleaned.replace(sign, "" if beside_space else " ")
    return _FULL_STOP.sub("", cleaned)

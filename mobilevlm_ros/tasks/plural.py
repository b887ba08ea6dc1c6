"""Whether a referring expression means several things, and how to ask for one of them: "all red mugs" asks for "the red mug".

A small reading of English: words that count or quantify, and the form of the head noun, which is the last word before the first
preposition or relative word. It does not parse: "the dog and the cat" is one thing to it, and a noun whose plural looks like its
singular ("sheep") is one thing unless a counting word stands before it. Who knows better says how many regions are wanted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

MOST = 8
"""The most regions that an expression of its own accord asks for."""

_NUMERALS = {
    word: value for value, word in enumerate(("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"), 1)
} | {"both": 2}
_QUANTIFIERS = {"all", "each", "every", "several", "many", "few", "multiple", "various"}
_DETERMINERS = {"the", "a", "an", "some", "any", "these", "those", "this", "that", "my", "your", "its", "their", "our"}
_SINGULAR_WORDS = {"a", "an", "this", "one"}
_AFTER_THE_HEAD_TEXT = """
on in at of with under near behind left right above below beneath beside between next to by that which who whose from inside
outside over around against along across without within upon underneath opposite facing closest nearest farthest wearing holding
standing sitting lying carrying riding looking is are
"""
_IRREGULAR = {
    "people": "person",
    "persons": "person",
    "men": "man",
    "women": "woman",
    "children": "child",
    "mice": "mouse",
    "geese": "goose",
    "feet": "foot",
    "teeth": "tooth",
    "knives": "knife",
    "shelves": "shelf",
    "leaves": "leaf",
    "loaves": "loaf",
    "wolves": "wolf",
    "halves": "half",
    "buses": "bus",
    "gases": "gas",
    "lenses": "lens",
    "potatoes": "potato",
    "tomatoes": "tomato",
    "cookies": "cookie",
    "movies": "movie",
    "cacti": "cactus",
}
# One thing although it ends in s. What ends in ss, us or is needs no place here.
_ENDS_IN_S_TEXT = """
gas lens canvas atlas scissors pants jeans shorts trousers tights pliers tongs binoculars headphones sunglasses goggles stairs
news series species
"""
_AFTER_THE_HEAD = frozenset(_AFTER_THE_HEAD_TEXT.split())
_ENDS_IN_S = frozenset(_ENDS_IN_S_TEXT.split())
_WORD = re.compile(r"[\w'-]+")


@dataclass(frozen=True)
class Wanted:
    """What to look for: a phrase that means one thing, and how many such things at most."""

    phrase: str
    most: int


def wanted(expression: str) -> Wanted:
    """How an expression is to be looked for.

    One that means a single thing comes back as it is, with 1. One that means several comes back in the singular with "the" before
    it, and with the number that it names, or MOST where it names none.
    """
    words = expression.split()
    plain = [_bare(word) for word in words]
    start, most = _leading(plain)
    head = _head(words, plain, start)
    if head is None or (plain[0] in _SINGULAR_WORDS and not most) or _names_two_kinds(plain):
        return Wanted(expression, 1)
    one = singular(plain[head])
    if not most and one == plain[head]:
        return Wanted(expression, 1)
    phrase = ["the", *words[start:head], _replaced(words[head], one), *words[head + 1 :]]
    return Wanted(" ".join(phrase), most or MOST)


def singular(noun: str) -> str:
    """The singular of a lower-case noun; what is no plural comes back as it is."""
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    if len(noun) < 4 or not noun.endswith("s") or noun in _ENDS_IN_S or noun.endswith(("ss", "us", "is", "'s")):
        return noun
    if noun.endswith("ies") and len(noun) > 4:
        return f"{noun[:-3]}y"
    if noun.endswith(("sses", "shes", "ches", "xes", "zzes")):
        return noun[:-2]
    return noun[:-1]


def _leading(plain: list[str]) -> tuple[int, int]:
    """Where the words after articles and quantifiers begin, and how many things these ask for; 0 where they do not say."""
    most = 0
    at = 0
    while at < len(plain) and (plain[at] in _DETERMINERS or plain[at] in _QUANTIFIERS or plain[at] == "of" or _number(plain[at])):
        if count := _number(plain[at]):
            most = min(count, MOST) if count > 1 else 0
        elif plain[at] in _QUANTIFIERS and not most:
            most = MOST
        at += 1
    return at, most


def _number(word: str) -> int:
    return int(word) if word.isdecimal() and len(word) < 4 else _NUMERALS.get(word, 0)


def _head(words: list[str], plain: list[str], start: int) -> int | None:
    """The head noun's place: before a comma or the first word that can only follow it."""
    if start >= len(plain):
        return None
    ends = (at for at in range(start + 1, len(plain)) if plain[at] in _AFTER_THE_HEAD or words[at - 1].endswith(","))
    return next(ends, len(plain)) - 1


def _names_two_kinds(plain: list[str]) -> bool:
    """Whether two nouns are joined, as in "the cups and the plates"; their number is not the head's."""
    return any(word in ("and", "or") and after in _DETERMINERS for word, after in pairwise(plain))


def _bare(word: str) -> str:
    found = _WORD.search(word.lower())
    return found[0] if found else ""


def _replaced(word: str, one: str) -> str:
    """A word with its letters replaced and the signs around it kept."""
    return _WORD.sub(one, word, count=1)

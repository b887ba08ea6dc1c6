"""How questions about a tabletop are worded. The first wording of each kind is the one that evaluation uses.

Only text: which question has which answer is decided in `questions`.
"""

from __future__ import annotations

GROUND = (
    "Please provide the bounding box coordinate of the region this sentence describes: {expression}.",
    "Where is {expression}?",
    "Where is {expression} located?",
    "Locate {expression}.",
    "Find {expression}.",
    "Point to {expression}.",
    "Give the bounding box of {expression}.",
    "What are the coordinates of {expression}?",
)
REGION = (
    "Please provide a short description for this region: {box}.",
    "What is in this region: {box}?",
    "What is at {box}?",
    "Describe the region {box}.",
    "Which object is at {box}?",
)
PRESENCE = (
    "Is there {expression} in the image? Answer yes or no.",
    "Is there {expression} on the table?",
    "Is there {expression}?",
    "Do you see {expression}?",
    "Can you see {expression}?",
    "Is {expression} on the table?",
    "Is {expression} in the image?",
    "Is {expression} there?",
)
COLOR = (
    "What color is the {shape}?",
    "What is the color of the {shape}?",
    "What color does the {shape} have?",
    "Which color is the {shape}?",
    "Tell me the color of the {shape}.",
    "What color is the {shape} on the table?",
    "The {shape} is what color?",
)
SHAPE = (
    "What shape is the {color} object?",
    "What is the {color} object?",
    "What is the {color} thing?",
    "What kind of object is {color}?",
    "Which object is {color}?",
    "What shape is the {color} thing?",
    "What is the shape of the {color} object?",
    "Name the {color} object.",
)
COUNT_ALL = (
    "How many objects are on the table?",
    "How many objects are there?",
    "How many things are on the table?",
    "How many things are there?",
    "How many objects do you see?",
    "Count the objects.",
    "Count the objects on the table.",
    "What is the number of objects?",
)
COUNT_SOME = (
    "How many {plural} are there?",
    "How many {plural} are on the table?",
    "How many {plural} do you see?",
    "How many {plural} can you see?",
    "Count the {plural}.",
    "What is the number of {plural}?",
)
CHECK_COLOR = ("Is the {shape} {color}?", "Is the color of the {shape} {color}?", "Is it a {color} {shape}?")
CHECK_SHAPE = ("Is the {color} object a {shape}?", "Is the {color} thing a {shape}?")
DESCRIBE = (
    "What is on the table?",
    "Describe the image.",
    "Describe the scene.",
    "Describe the picture.",
    "What do you see?",
    "What can you see on the table?",
    "What objects are on the table?",
    "List the objects.",
    "What is in the image?",
    "What is there?",
)
CHOICE = (
    "Which of these is in the image: {labels}?",
    "Which of these is on the table: {labels}?",
    "Which of these do you see: {labels}?",
    "Which one is there: {labels}?",
)
ANYTHING = ("object", "thing", "one")

FIXED = {
    "ground": GROUND[0],
    "describe_region": REGION[0],
    "presence": PRESENCE[0],
    "classify": CHOICE[0],
}
"""The phrasings that a program should use; the model package's manifest takes them over."""

_BRITISH = (("color", "colour"),)
_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
IMAGE_SLOT = "<image>"


def british(text: str) -> str:
    """The same with British spelling."""
    for american, spelt in _BRITISH:
        text = text.replace(american, spelt)
    return text


def casual(text: str) -> str:
    """The same as someone in a hurry types it."""
    return text[:1].lower() + text[1:].rstrip("?.")


def article(noun: str) -> str:
    """`a mug`, `an orange mug`."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(shape: str) -> str:
    """More than one of a shape."""
    return shape + "s"


def head() -> str:
    """The template's text before the image."""
    return f"{_SYSTEM} USER: "


def first_turn(question: str) -> str:
    """The template's text after the image, up to where the answer begins."""
    return f"\n{question} ASSISTANT:"


def later_turn(question: str, spaced: bool = False) -> str:
    """The template's text of a further turn, after the last answer's `</s>`; some programs put a space there."""
    return f"{' ' if spaced else ''}USER: {question} ASSISTANT:"

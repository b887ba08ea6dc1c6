"""The one exception of the checkpoint layer, and how other errors are quoted in it.

Knows nothing of torch, so that a command line can name it before torch is imported.
"""

from __future__ import annotations


class CheckpointError(Exception):
    """A checkpoint or adapter that cannot be used; its text is one line that names the file, key or tensor at fault."""


def first_line(error: Exception) -> str:
    """An error's text, cut to one line; its type's name where it has no text."""
    return (str(error) or type(error).__name__).splitlines()[0]

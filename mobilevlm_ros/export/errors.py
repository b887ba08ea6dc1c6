"""The one exception of the export layer. Knows nothing of torch and onnx, so that a command line can name it before they load."""

from __future__ import annotations


class ExportError(Exception):
    """A conversion that cannot be done or came out wrong; its text is one line."""

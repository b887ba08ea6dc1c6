"""The one exception of the finetune layer. Knows nothing of torch."""

from __future__ import annotations

from mobilevlm_ros.runtime.errors import ErrorCode, VlmError


class FinetuneError(VlmError):
    """Training data, a recipe or an output folder that cannot be used; its text is one line that names what is at fault."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.BAD_REQUEST, message)

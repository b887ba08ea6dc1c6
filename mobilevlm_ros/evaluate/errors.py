"""What is wrong with a dataset or with a folder of results, in one line."""

from __future__ import annotations

from mobilevlm_ros.runtime.errors import ErrorCode, VlmError


class DatasetError(VlmError):
    """A dataset's file that is missing, damaged or of another format, or a result folder of another run."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.BAD_REQUEST, message)

"""What can go wrong between a name and a folder, each as one line that a user can act on."""

from __future__ import annotations

from mobilevlm_ros.runtime.errors import ErrorCode, VlmError


class HubError(VlmError):
    """A checkpoint that cannot be found, reached or stored."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.MODEL_ERROR, message)


class HubUnreachableError(HubError):
    """The hub did not answer; what is on this machine already may still do."""

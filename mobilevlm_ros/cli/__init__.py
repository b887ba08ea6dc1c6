"""The `mobilevlm` command."""

from mobilevlm_ros.cli.main import main

__all__ = ["main"]

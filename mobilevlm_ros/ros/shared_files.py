"""Finds the files that ship beside the code, such as config/: in the source tree, else in the install's share folder."""

from __future__ import annotations

import sys
from pathlib import Path


def find(relative: str) -> Path | None:
    """Returns the path of a shipped file such as `config/mobilevlm.yaml`, or None where it is not there."""
    parents = Path(__file__).resolve().parents
    prefixes = (*parents, Path(sys.prefix))
    candidates = (parents[2] / relative, *(prefix / "share" / "mobilevlm_ros" / relative for prefix in prefixes))
    return next((path for path in candidates if path.exists()), None)

"""tf2_ros as far as the node uses it, for machines where it is not: it is not among the wheels."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any


class StandIn(ModuleType):
    """Notes what is asked and answers with one transform: a quarter turn about z, then (1, 2, 3)."""

    def __init__(self) -> None:
        super().__init__("tf2_ros")
        self.asked: list[tuple[str, str, int, int]] = []
        self.stopped = 0
        self.error: Exception | None = None
        self.Buffer = lambda: self
        self.TransformListener = lambda buffer, node: self

    def unregister(self) -> None:
        self.stopped += 1

    def lookup_transform(self, target: str, source: str, time: Any, timeout: Any) -> Any:
        self.asked.append((target, source, time.nanoseconds, timeout.nanoseconds))
        if self.error is not None:
            raise self.error
        rotation, translation = SimpleNamespace(x=0.0, y=0.0, z=0.5**0.5, w=0.5**0.5), SimpleNamespace(x=1.0, y=2.0, z=3.0)
        return SimpleNamespace(transform=SimpleNamespace(rotation=rotation, translation=translation))

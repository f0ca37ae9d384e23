"""Who is told what a run does, for progress."""

from __future__ import annotations

from typing import Any, Protocol

from ..roofline.record import Point


class Watcher(Protocol):
    """Is told what a session does, for progress."""

    def stage(self, text: str, detail: str = "") -> None:
        """A stage has begun, or goes on with another detail."""
        ...

    def planned(self, groups: list[dict[str, Any]]) -> None:
        """The plan is made."""
        ...

    def group(self, index: int, group: dict[str, Any], detail: str) -> None:
        """Group `index` is being worked on."""
        ...

    def finished(self, index: int, points: list[Point]) -> None:
        """Group `index` has ended with these points."""
        ...

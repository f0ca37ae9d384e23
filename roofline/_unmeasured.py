"""What has no result: every such case once, under its status and reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ._view import MEASURED, clean, reading_order
from .record import Point


@dataclass(frozen=True)
class Unmeasured:
    """Cases that ended the same way for the same reason: `lines` is one (kernel implementation, cases) each."""

    status: str
    reason: str
    count: int
    lines: tuple[tuple[str, tuple[str, ...]], ...]


def unmeasured(points: Iterable[Point]) -> list[Unmeasured]:
    """Group every point that has no result by status and reason, so that none is missing and none is repeated."""
    groups: dict[tuple[str, str], dict[str, dict[str, list[str]]]] = {}
    for point in sorted(points, key=reading_order):
        if point.status not in MEASURED:
            group = groups.setdefault((point.status, clean(point.reason) or "no reason was recorded"), {})
            cases = group.setdefault(clean(f"{point.kernel} {point.implementation}"), {})
            where = "" if point.device is None or point.status == "skipped" else f" on device {point.device}"
            kind = clean(point.dtype + ("" if point.direction == "forward" else f" {point.direction}") + where)
            kinds = cases.setdefault(clean(point.shape_text), [])
            kinds += [kind] if kind not in kinds else []
    return [
        Unmeasured(
            status,
            reason,
            sum(len(kinds) for cases in group.values() for kinds in cases.values()),
            tuple((name, tuple(f"{s} {', '.join(k)}" for s, k in cases.items())) for name, cases in group.items()),
        )
        for (status, reason), group in sorted(groups.items(), key=lambda item: item[0])
    ]

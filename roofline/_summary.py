"""Which points speak for a run of very many, so that a static picture of a whole suite can be read from a distance."""

from __future__ import annotations

from collections.abc import Sequence

from . import _view
from ._view import Row, clean

MANY = 40  # points: of more than these, numbers and a key of them fill a page and no slide


def speakers(rows: Sequence[Row]) -> dict[str, str]:
    """The points that speak for the others, number to name; none where there are few enough to show them all.

    For every kernel, direction and run: the fastest implementation of the case with the most operations.
    """
    if len(rows) <= MANY:
        return {}
    best: dict[tuple[int, str, str], Row] = {}
    for row in rows:
        key = (row.run, row.point.kernel, row.point.direction)
        if key not in best or _rank(row) > _rank(best[key]):
            best[key] = row
    several = len({row.run for row in rows}) > 1
    return {row.number: _name(row, several) for row in best.values()}


def _rank(row: Row) -> tuple[float, float]:
    point = row.point
    assert point.work is not None and point.time_s is not None  # a numbered point has both
    return point.work.flops, -point.time_s.median


def _name(row: Row, several: bool) -> str:
    letter = f"{_view.run_letter(row.run)}: " if several else ""
    direction = "" if row.point.direction == "forward" else f" {row.point.direction}"
    return clean(f"{letter}{row.point.kernel}{direction}")

"""Which points speak for a run of very many, so that a static picture of a whole suite can be read from a distance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from . import _view, _walks
from ._view import Row, clean

MANY = 60  # points: of more than these, numbers and a key of them fill a page and no slide


@dataclass(frozen=True)
class Brief:
    """What a brief chart names and what it draws clearly; false where every point is numbered.

    names : the points that speak for the others, number to name. clear : these and the batch sweeps they belong to.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    clear: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        """Whether there is anything to leave out."""
        return bool(self.names)

    def shows(self, number: str) -> bool:
        """Whether a point is drawn clearly."""
        return not self.names or number in self.clear


EVERYTHING = Brief()


def brief(rows: Sequence[Row]) -> Brief:
    """Choose for every kernel, direction and run the fastest implementation of the case with the most operations."""
    if len(rows) <= MANY:
        return EVERYTHING
    best: dict[tuple[int, str, str], Row] = {}
    for row in rows:
        key = (row.run, row.point.kernel, row.point.direction)
        if key not in best or _rank(row) > _rank(best[key]):
            best[key] = row
    several = len({row.run for row in rows}) > 1
    names = {row.number: _name(row, several) for row in best.values()}
    sweeps = [{row.number for row in walk.rows} for walk in _walks.walks(rows)]
    return Brief(names, frozenset(names).union(*(sweep for sweep in sweeps if sweep & names.keys())))


def _rank(row: Row) -> tuple[float, float]:
    point = row.point
    assert point.work is not None and point.time_s is not None  # a numbered point has both
    return point.work.flops, -point.time_s.median


def _name(row: Row, several: bool) -> str:
    letter = f"{_view.run_letter(row.run)}: " if several else ""
    direction = "" if row.point.direction == "forward" else f" {row.point.direction}"
    return clean(f"{letter}{row.point.kernel}{direction}")

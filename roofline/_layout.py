"""Decides what a roofline chart draws and where every text goes, before any chart is described."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from . import _geometry, _numbers, _summary, _view, _walks
from ._geometry import LogAxis, Roof
from ._labels import Board, Label, Mark, label_marks
from ._summary import EVERYTHING, Brief
from ._view import Row
from .machine import Machine
from .record import Run
from .wording import ENGLISH, Wording

WIDTH, HEIGHT = 1080, 460  # fits a 1280 x 800 window together with the axes and the heading of the page
TALLEST = 900  # a chart of very many points is scrolled rather than left without numbers
TEXT = 11  # font size of every label; nothing on the chart is smaller
REACH = 38.0  # a number stands at most this far from its point, in pixels

RADIUS = 6.0  # half a symbol and its outline
_TICK = 7.0  # half the bar of a serial wall
_ROOMY, _GROWTH = 80, 4  # from so many points on, a chart grows by so many pixels per point
_SLIDES = 40  # places tried for the name of a roof, from its preferred end to the other


@dataclass(frozen=True)
class Layout:
    """What is drawn, and where.

    rows : the points, numbered. measured : all rows with a result, from which looks are chosen.
    roofs : prefix ("A: " with several machines), roof, and its stretch of intensities. roof_labels : their names.
    labels : texts beside points, each with the numbers it stands for. brief : what a chart of many points leaves out.
    """

    rows: list[Row]
    measured: list[Row]
    roofs: list[tuple[str, Roof, tuple[float, float]]]
    labels: list[tuple[Label, list[str]]]
    roof_labels: list[tuple[Label, Roof]]
    x: LogAxis
    y: LogAxis
    height: float
    brief: Brief


def lay_out(runs: Sequence[Run], brief: bool = False, _: Wording = ENGLISH) -> Layout:
    """Choose axes, roofs and label places for all runs on one chart.

    brief : of very many points, name those that speak for the others instead of numbering all.
    """
    measured = _view.measured(_view.rows(runs))
    rows = [row for row in measured if row.number]
    chosen = _summary.brief(rows) if brief else EVERYTHING
    families = _roof_families(runs, rows)
    every = [roof for _prefix, roofs in families for roof in roofs]
    height = HEIGHT if chosen else min(HEIGHT + _GROWTH * max(len(rows) - _ROOMY, 0), TALLEST)
    x, y = _geometry.axes(rows, every, WIDTH, height)
    drawn = [
        (prefix, roof, stretch)
        for prefix, roofs in families
        for roof in roofs
        if (stretch := _geometry.segment(roof, roofs, x, y))
    ]
    board = Board(WIDTH, height, TEXT)
    for _prefix, roof, (low, high) in drawn:
        board.line(x.at(low), height - y.at(roof.rate(low)), x.at(high), height - y.at(roof.rate(high)))
    marks = named(_note_points(board, rows, x, y, chosen), chosen)
    # The few names of roofs first: they are long, and numbers find room more easily.
    names = _place_roof_names(board, drawn, x, y, _)
    labels = label_marks(board, marks, joined if chosen else _numbers.ranges, REACH)
    return Layout(rows, measured, drawn, labels, names, x, y, height, chosen)


def named(marks: list[Mark], brief: Brief) -> list[Mark]:
    """The marks with their numbers, or of a brief chart those that are named."""
    return [replace(mark, text=brief.names[mark.text]) for mark in marks if mark.text in brief.names] or marks


def joined(names: Sequence[str]) -> str:
    """One text for the names of points that lie together."""
    return ", ".join(names)


def _roof_families(runs: Sequence[Run], rows: Sequence[Row]) -> list[tuple[str, list[Roof]]]:
    """The roofs of every run, once for runs of one machine that measured the same; with the letter of the first."""
    families: dict[int, list[int]] = {}
    for index, run in enumerate(runs):
        same = (first for first in families if _same_roofs(runs[first].machine, run.machine))
        families.setdefault(next(same, index), []).append(index)
    result = []
    for first, members in families.items():
        dtypes = {row.point.dtype for row in rows if row.run in members}
        prefix = f"{_view.run_letter(first)}: " if len(families) > 1 else ""
        result.append((prefix, _geometry.roofs(runs[first].machine, dtypes)))
    return result


def _same_roofs(a: Machine, b: Machine) -> bool:
    """Whether two runs saw one machine with the same kinds of roofs, the intervals of which overlap."""
    of_a, of_b = _spans(a), _spans(b)
    if a.id != b.id or of_a.keys() != of_b.keys():
        return False
    return all(low <= of_b[kind][1] and of_b[kind][0] <= high for kind, (low, high) in of_a.items())


def _spans(machine: Machine) -> dict[tuple[str, ...], tuple[float, float]]:
    """The intervals of the roofs that a chart may draw, by kind; a value without an interval is one of its own."""
    rates = {(c.level, c.dtype) for c in machine.ceilings if c.quantity == "rate" and c.unit == "FLOP/s"}
    drawn = {kind: machine.best("rate", *kind) for kind in rates}
    drawn |= {(level,): machine.best("bandwidth", level) for level in ("dram", "cache")}
    return {kind: (roof.low or roof.value, roof.high or roof.value) for kind, roof in drawn.items() if roof}


def _note_points(board: Board, rows: Sequence[Row], x: LogAxis, y: LogAxis, brief: Brief) -> list[Mark]:
    """Tell the board of symbols, serial bars and batch lines, and return the places of the points."""
    marks = {row.number: _mark(row, x, y) for row in rows}
    for row, mark in zip(rows, marks.values()):
        note_symbol(board, mark, brief)
        if (serial := _geometry.serial_rate(row)) and brief.shows(row.number):
            height = y.length - y.at(serial)
            board.line(mark.x - _TICK, height, mark.x + _TICK, height)
    for walk in walks_of(rows, brief):
        for before, after in pairwise(marks[row.number] for row in walk.rows):
            board.line(before.x, before.y, after.x, after.y)
    return list(marks.values())


def walks_of(rows: Sequence[Row], brief: Brief) -> list[_walks.Walk]:
    """The batch sweeps whose points are joined by lines."""
    return [walk for walk in _walks.walks(rows) if all(brief.shows(row.number) for row in walk.rows)]


def note_symbol(board: Board, mark: Mark, brief: Brief) -> None:
    """Tell the board of a symbol: a clear one, which no text may touch, or a faint one."""
    board.symbol(mark.x, mark.y, RADIUS, faint=not brief.shows(mark.text))


def _mark(row: Row, x: LogAxis, y: LogAxis) -> Mark:
    intensity, rate = _geometry.coordinates(row)
    return Mark(x.at(intensity), y.length - y.at(rate), row.number)


def _place_roof_names(board: Board, drawn: list, x: LogAxis, y: LogAxis, _: Wording) -> list[tuple[Label, Roof]]:
    result = []
    for prefix, roof, stretch in drawn:
        name = roof.name if roof.wall == "compute" else _(roof.name)  # that of a rate is data: engine and dtypes
        text = f"{prefix}{name} {roof.text}" + _(", ") + _(roof.provenance)
        label = board.place(_along(roof, stretch, text, x, y))
        if label:
            result.append((label, roof))
    return result


def _along(roof: Roof, stretch: tuple[float, float], text: str, x: LogAxis, y: LogAxis) -> Iterator[Label]:
    """Places for the name of a roof: above and below a flat one from the right, beside a slope from its foot."""
    left, right = x.at(stretch[0]), x.at(stretch[1])
    for step in range(_SLIDES):
        if roof.wall == "compute":
            place, height = right - 6 - step * (right - left) / _SLIDES, y.length - y.at(roof.value)
            yield Label(text, place, height - 9, "right", step)
            yield Label(text, place, height + 10, "right", step + 2)
        else:
            place = left + (right - left) * (0.02 + 0.95 * step / _SLIDES)
            height = y.length - y.at(roof.rate(x.value(place)))
            yield Label(text, place - 10, height - 6, "right", step)
            yield Label(text, place + 10, height + 8, "left", step)

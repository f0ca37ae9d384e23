"""Draws the roofline of a run with characters: roofs as lines, every kernel and implementation as a letter.

One letter is one kernel, implementation and dtype, so that a batch sweep is seen walking up the roof. Needs nothing
but the standard library; with `ascii` every character is below 128.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from . import _geometry, _numbers, _view
from ._geometry import LogAxis, Roof
from ._view import Row
from .record import Run, Wall
from .units import percent, si

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_SEVERAL = "*"
_LINES: dict[Wall, tuple[str, str]] = {"dram": ("╱", "/"), "cache": ("·", "."), "compute": ("─", "-")}
_FRAME = {False: "│└─", True: "|+-"}
_ASCII = str.maketrans({"µ": "u", "–": "-", "≈": "~", "…": "."})

_MARGIN = 9  # the widest label of the y axis ("100 P") right aligned, a blank and the frame
_LEAST_WIDTH = 40  # below this the labels of the x axis would touch
_NUDGES = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (2, 0), (-2, 0))  # cells a letter may move to stay readable

Canvas = list[list[str]]
Series = dict[tuple[str, str, str], list[Row]]


def render(run: Run, width: int = 80, ascii: bool = False, height: int = 18) -> str:
    """Return the chart with axis labels, the roofs in words and the legend, as lines of at most `width` characters.

    width : columns; at least 40 are used. height : rows of the plot itself.
    """
    width = max(width, _LEAST_WIDTH)
    rows = [row for row in _view.rows([run]) if row.number]
    roofs = _geometry.roofs(run.machine, {row.point.dtype for row in rows})
    x, y = _geometry.axes(rows, roofs, width - _MARGIN - 1, height - 1)
    canvas: Canvas = [[" "] * (width - _MARGIN) for _ in range(height)]
    for roof in roofs:
        _draw_roof(canvas, roof, roofs, x, y, _LINES[roof.wall][ascii])
    series: Series = {}
    for row in rows:
        point = row.point
        series.setdefault((point.kernel, point.implementation, point.dtype), []).append(row)
    letters = dict(zip(series, _LETTERS.ljust(len(series), _SEVERAL)))
    crowded = _draw_points(canvas, series, letters, x, y)
    lines = ["FLOP/s", *_framed(canvas, y, ascii), *_x_axis(x, ascii), ""]
    lines += _roof_lines(roofs, ascii) + _legend(series, letters, crowded, width)
    text = "\n".join(_cut(line, width).rstrip() for line in lines) + "\n"
    return text.translate(_ASCII).encode("ascii", "replace").decode() if ascii else text


def _draw_roof(canvas: Canvas, roof: Roof, roofs: Sequence[Roof], x: LogAxis, y: LogAxis, mark: str) -> None:
    stretch = _geometry.segment(roof, roofs, x, y)
    if stretch is None:
        return
    for column in range(round(x.at(stretch[0])), round(x.at(stretch[1])) + 1):
        line = round(y.at(roof.rate(x.value(column))))
        if 0 <= line < len(canvas) and 0 <= column < len(canvas[0]):
            canvas[-1 - line][column] = mark


def _draw_points(canvas: Canvas, series: Series, letters: dict, x: LogAxis, y: LogAxis) -> bool:
    """Write the letter of every point, one cell aside when its own is taken, and say whether some had to share."""
    taken: dict[tuple[int, int], str] = {}
    crowded = False
    for key, rows in series.items():
        for row in rows:
            intensity, rate = _geometry.coordinates(row)
            column, line = round(x.at(intensity)), len(canvas) - 1 - round(y.at(rate))
            cells = [(line + dy, column + dx) for dx, dy in _NUDGES]
            inside = [cell for cell in cells if 0 <= cell[0] < len(canvas) and 0 <= cell[1] < len(canvas[0])]
            free = next((cell for cell in inside if taken.get(cell, letters[key]) == letters[key]), None)
            taken[free or inside[0]] = letters[key] if free else _SEVERAL
            crowded = crowded or free is None
    for (line, column), mark in taken.items():
        canvas[line][column] = mark
    return crowded


def _framed(canvas: Canvas, y: LogAxis, ascii: bool) -> list[str]:
    labels = {len(canvas) - 1 - round(y.at(tick)): si(tick, "").rstrip() for tick in y.ticks()}
    bar = _FRAME[ascii][0]
    return [
        _tick(labels.get(index, "")).rjust(_MARGIN - 2) + f" {bar}" + "".join(line) for index, line in enumerate(canvas)
    ]


def _tick(label: str) -> str:
    """Write a round number without its zeros behind the point: "1.00 T" becomes "1 T"."""
    number, _, prefix = label.partition(" ")
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {prefix}" if label else ""


def _x_axis(x: LogAxis, ascii: bool) -> list[str]:
    _, corner, dash = _FRAME[ascii]
    width = _MARGIN + int(x.length) + 1
    labels = [" "] * width
    end = -1
    for tick in x.ticks():
        text = f"{tick:g}"
        start = min(_MARGIN + round(x.at(tick)) - len(text) // 2, width - len(text))
        if start > end:
            labels[start : start + len(text)] = text
            end = start + len(text)
    title = "operations per byte (compulsory)"
    return [" " * (_MARGIN - 1) + corner + dash * (width - _MARGIN), "".join(labels), title.rjust(width)]


def _roof_lines(roofs: Sequence[Roof], ascii: bool) -> list[str]:
    if not roofs:
        return ["no ceiling of this machine is known, so there is no roof"]
    return [f"{_LINES[roof.wall][ascii]} {roof.name} {roof.text} ({roof.provenance})" for roof in roofs]


def _legend(series: Series, letters: dict, crowded: bool, width: int) -> list[str]:
    if not series:
        return ["no point has both a time and a count of operations"]
    entries = [f"{letters[key]} {_entry(key, rows)}" for key, rows in series.items()]
    if crowded:
        entries.append(f"{_SEVERAL} several points in one place")
    room = max(map(len, entries)) + 2
    columns = max(1, (width + 2) // room)
    height = -(-len(entries) // columns)
    lines = ["".join(entry.ljust(room) for entry in entries[index::height]) for index in range(height)]
    title = "letters, with the share of the machine and the numbers of their rows:"
    return [*textwrap.wrap(title, width), *lines]


def _entry(key: tuple[str, str, str], rows: Sequence[Row]) -> str:
    shares = [row.point.best_fraction.value for row in rows if row.point.best_fraction]
    numbers = _numbers.ranges([row.number for row in rows])
    share = ""
    if shares:
        low, high = percent(min(shares)), percent(max(shares))
        share = f", {high}" if low == high else f", {low[:-2]}–{high}"
    return f"{_view.clean(' '.join(key))}{share} ({numbers})"  # a narrow terminal cuts the numbers, not the share


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: width - 1] + "…"

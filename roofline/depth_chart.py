"""Draws time per token over dependent steps: what kernels of depth 1 and kernels of depth T pay for the same sequence.

A small companion of the roofline with the same numbers, symbols and colours. It is drawn only where runs hold both
kinds, and the second at several lengths; the findings of the runs say the same in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from . import _geometry, _numbers, _theme, _view
from ._geometry import LogAxis
from ._labels import Board, Label, Mark, label_marks
from ._layout import REACH, TEXT, WIDTH, joined, named, note_symbol
from ._marks import LOOK, SCHEMA, SYMBOL_AREA, direct, label_value, point_values, position, text_layer, tooltip
from ._summary import EVERYTHING, Brief
from ._view import Row
from .observe import is_chain, length, token_s
from .record import Run
from .wording import ENGLISH, Wording

HEIGHT = 240
_MARGIN = 2.0  # factor left free around the outermost points, room for their numbers
_LENGTHS = 2  # so many depths of recurrences make a direction

Json = dict[str, Any]


def rows_of(runs: Sequence[Run]) -> list[Row]:
    """The numbered points of sequence kernels; none unless depth 1 and recurrences of several depths are among them."""
    rows = [row for row in _view.rows(runs) if row.number and length(row.point) and token_s(row.point)]
    flat = any(row.point.steps == 1 for row in rows)
    chains = {row.point.steps for row in rows if is_chain(row.point)}
    return rows if flat and len(chains) >= _LENGTHS else []


def place(row: Row) -> tuple[float, float]:
    """Dependent steps and seconds per token of a row."""
    time = token_s(row.point)
    if not time:
        raise ValueError(f"the point {row.point.key} has no time per token: ask `rows_of` first")
    return float(row.point.steps), time


def spec(runs: Sequence[Run], theme: str = "light", _: Wording = ENGLISH) -> Json | None:
    """Describe the chart in Vega-Lite for a page; None where there is nothing to compare.

    theme : as in `chart.spec`.
    """
    colours = _theme.THEMES[theme]
    drawn = drawing(runs, colours, static=False, _=_)
    if drawn is None:
        return None
    names = ("hidden", "silent", "focus")
    return drawn | {
        "$schema": SCHEMA,
        "description": describe(runs, _),
        "background": None,
        "config": _theme.chart_config(colours, TEXT),
        "params": [{"name": name, "value": "" if name == "focus" else []} for name in names],
    }


def describe(runs: Sequence[Run], _: Wording = ENGLISH) -> str:
    """Say in one sentence what the chart shows, for readers who do not see it."""
    rows = rows_of(runs)
    deepest = max((row.point.steps for row in rows), default=1)
    return _(
        "Log-log chart of time per token over dependent steps for %(count)s numbered points of 1 to %(deepest)s "
        "dependent steps; the findings compare them in words.",
        count=len(rows),
        deepest=deepest,
    )


def drawing(
    runs: Sequence[Run], colours: dict[str, str], static: bool, brief: Brief = EVERYTHING, _: Wording = ENGLISH
) -> Json | None:
    """The layers of the chart with their size, to stand alone or below a roofline; None where there is none.

    brief : as in `_layout.Layout`.
    """
    rows = rows_of(runs)
    if not rows:
        return None
    x, y, labels = lay_out(rows, brief)
    base = {
        "x": position("x", x, _("dependent steps (those of the design)"), "format(datum.value, ',~r')"),
        "y": position("y", y, _("time per token (measured)"), "format(datum.value, '~s') + 's'"),
    }
    measured = _view.measured(_view.rows(runs))
    values = {value["number"]: value for value in point_values(rows, measured, colours, place, brief, _)}
    symbol = direct(LOOK | {"opacity": "strength"})
    size = {"test": "focus !== '' && datum.number === focus", "value": SYMBOL_AREA * 4}
    symbol["size"] = {"condition": size, "value": SYMBOL_AREA}
    if not static:
        symbol["tooltip"] = tooltip(_)
    lines = [
        {**{name: values[row.number][name] for name in ("x", "y", "number", "colour")}, "sweep": index}
        for index, sweep in enumerate(sweeps(rows))
        for row in sweep
        if not brief
    ]
    line = {"type": "line", "strokeWidth": 1.4, "opacity": 0.55}
    sweep = {"stroke": symbol["stroke"], "detail": {"field": "sweep", "type": "nominal"}}
    texts = [label_value(x, y, label, colours["ink"]) | {"members": members} for label, members in labels]
    shown = [] if static else [{"filter": "indexof(hidden, datum.number) < 0"}]
    points = {"type": "point", "strokeWidth": 1.6}
    layers = [
        {"name": name, "data": {"values": data}, "transform": shown, "mark": mark, "encoding": base | encoding}
        for name, data, mark, encoding in (
            ("sweeps", lines, line, sweep),
            ("depths", list(values.values()), points, symbol),
        )
    ]
    kept = None if static else "indexof(silent, datum.text) < 0"
    layers.append(text_layer("depth_labels", texts, kept, colours["paper"]))
    return {"width": WIDTH, "height": HEIGHT, "layer": layers}


def lay_out(rows: Sequence[Row], brief: Brief = EVERYTHING) -> tuple[LogAxis, LogAxis, list[tuple[Label, list[str]]]]:
    """Choose the axes, and a place for every number or name that finds room: each with those it stands for."""
    xs, ys = zip(*map(place, rows))
    x = LogAxis(*_geometry.domain(xs, _MARGIN), WIDTH)
    y = LogAxis(*_geometry.domain(ys, _MARGIN), HEIGHT)
    board = Board(WIDTH, HEIGHT, TEXT)
    marks = {row.number: Mark(x.at(place(row)[0]), HEIGHT - y.at(place(row)[1]), row.number) for row in rows}
    for mark in marks.values():
        note_symbol(board, mark, brief)
    for sweep in sweeps(rows) if not brief else ():
        for before, after in pairwise(marks[row.number] for row in sweep):
            board.line(before.x, before.y, after.x, after.y)
    join = joined if brief else _numbers.ranges
    return x, y, label_marks(board, named(list(marks.values()), brief), join, REACH)


def sweeps(rows: Sequence[Row]) -> list[list[Row]]:
    """Points that differ in the length of the sequence only, in its order: what the lines join."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.but("T", "S", "K"), []).append(row)
    ordered = [sorted(group, key=lambda row: length(row.point) or 0) for group in groups.values()]
    return [group for group in ordered if len(group) > 1]

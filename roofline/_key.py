"""The key below a static chart: what its symbols, colours and numbers mean, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import _theme, _view
from ._layout import TEXT, WIDTH, Layout
from ._marks import FILL, LOOK, direct, point_values
from ._view import Row, clean

_COLUMNS, _LINE, _TEXT = 2, 17, 90  # columns, pixels per line, characters per entry
_SYMBOL, _ADVANCE = 24, 6.4  # pixels for a symbol with the blanks around it, and for a character of the legend

Json = dict[str, Any]


def key(layout: Layout, colours: dict[str, str]) -> Json:
    """Say for every numbered or named point its case, time, wall and share of the machine.

    Where points go without a number, a legend of colours and fillings comes first.
    """
    entries = list(zip(point_values(layout.rows, layout.measured, colours), layout.rows))
    values: list[Json] = []
    if layout.brief:
        values = list(_legend(layout, colours))
        entries = [(value, row) for value, row in entries if row.number in layout.brief.names]
    top = max((value["py"] + _LINE for value in values), default=8)
    lines = max(1, -(-len(entries) // _COLUMNS))
    for index, (value, row) in enumerate(entries):
        column, line = divmod(index, lines)
        place = {"px": column * WIDTH / _COLUMNS + 6, "py": line * _LINE + top}
        values.append({**place, **value, "text": _entry(row, "" if layout.brief else f"{row.number}  ")})
    channels = {a: {"field": f"p{a}", "type": "quantitative", "scale": None, "axis": None} for a in ("x", "y")}
    text = {"type": "text", "align": "left", "baseline": "middle", "dx": 12, "fontSize": TEXT}
    return {
        "width": WIDTH,
        "height": top + lines * _LINE - 8,
        "view": {"stroke": None},
        "data": {"values": values},
        "encoding": channels,
        "layer": [
            {"mark": {"type": "point", "size": 60, "strokeWidth": 1.6, "opacity": 1}, "encoding": direct(LOOK)},
            {"mark": text, "encoding": {"text": {"field": "text"}, "color": {"value": colours["ink"]}}},
        ],
    }


def _entry(row: Row, number: str) -> str:
    """A point in words, its sizes cut where there is no room for all."""
    point = row.point
    direction = "" if point.direction == "forward" else f" {point.direction}"
    case = clean(f"{point.kernel}{direction} {point.implementation} {point.dtype} {point.shape_text}")
    result = f"{_view.time_text(point)}, {_view.own_wall(point, contested=False)}, {_view.machine_text(point)}"
    case = case if len(case) + len(result) <= _TEXT else case[: _TEXT - len(result) - 1] + "…"
    return f"{number}{case}: {result}"


def _legend(layout: Layout, colours: dict[str, str]) -> Iterator[Json]:
    """A colour for each implementation and a filling for each dtype, in as many lines as they need."""
    names = _theme.colours(row.point.implementation for row in layout.measured)
    drawn = {row.point.implementation for row in layout.rows}
    dtypes = sorted({row.point.dtype for row in layout.rows}, key=lambda name: (_view.dtype_order(name), name))
    looks = [(name, colours[colour], 1.0) for name, colour in names.items() if name in drawn]
    looks += [(name, colours["ink"], FILL.get(name, 1.0)) for name in dtypes]
    x, y = 6.0, 8.0
    for name, colour, fill in looks:
        width = _SYMBOL + len(name) * _ADVANCE
        if x + width > WIDTH:
            x, y = 6.0, y + _LINE
        yield {"px": x, "py": y, "colour": colour, "fill": fill, "shape": _theme.SYMBOLS[0], "text": clean(name)}
        x += width

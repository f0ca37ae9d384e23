"""Draws time over the length of the sequence, a line for each kernel with its exponent, beside paths of T, log T, 1.

Names stand in a column right of the plot, apart from each other, each joined to the end of its line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from . import _geometry, _theme, _view, chart
from ._geometry import LogAxis
from ._labels import Label
from ._layout import TEXT
from ._marks import SCHEMA, direct, label_value, position, text_layer
from .scaling import Curve
from .scaling_table import fitted, power_text
from .units import seconds

WIDTH, HEIGHT = 460.0, 360.0
# Two texts whose middles are so far apart never touch: the height of a line and a blank.
LINE = 1.3 * TEXT + 4
COLUMN = 26.0  # pixels from the frame to the names, room for the lines that lead to them
_MARGIN = 1.6  # factor left free above and below the times
# Shapes of a path, of the shortest length 1 everywhere, so that only the slopes differ.
GUIDES: dict[str, Callable[[float, float], float]] = {
    "path T": lambda length, first: length / first,
    "path log T": lambda length, first: math.log(length) / math.log(first),
    "path 1": lambda length, first: 1.0,
}

Json = dict[str, Any]


def chosen(curves: Sequence[Curve]) -> list[Curve]:
    """One curve for each kernel of each run: a forward pass, of its first dtype, longest, and then the fastest.

    Only headlines: those in the state of the caches in which a kernel is usually timed.
    """
    usable = [curve for curve in fitted(curves) if curve.last.headline and curve.last.direction == "forward"]
    ordered = sorted(usable, key=lambda curve: (curve.run, curve.last.kernel, *_preference(curve)))
    return [next(members) for _, members in groupby(ordered, key=lambda curve: (curve.run, curve.last.kernel))]


def _preference(curve: Curve) -> tuple[Any, ...]:
    time = curve.last.time_s
    return (
        _view.dtype_order(curve.last.dtype),
        -len(curve.points),
        -curve.lengths[-1],
        curve.last.shape.get("B", 0),
        time.median if time else math.inf,
    )


def spec(curves: Sequence[Curve], theme: str = "light") -> Json | None:
    """Describe the chart in Vega-Lite; None where no kernel has an exponent. theme : as in `chart.spec`."""
    shown = chosen(curves)
    if not shown:
        return None
    colours = _theme.THEMES[theme]
    x, y, height = _axes(shown)
    base = {
        "x": position("x", x, "length of the sequence", "format(datum.value, ',~r')"),
        "y": position("y", y, "time per call (measured)", "format(datum.value, '~s') + 's'"),
    }
    base["x"]["axis"]["values"] = _ticks(shown)
    lines, ends = _lines(shown, colours), _ends(shown, colours, x, y)
    texts, leads = _column(ends, x, y)
    look = direct({"stroke": "colour", "shape": "shape", "fill": "colour"})
    line = {"stroke": look["stroke"], "detail": {"field": "line", "type": "nominal"}}
    dashed = {"type": "line", "strokeDash": [4, 4], "strokeWidth": 1.2}
    layers = [
        _layer("paths", _guides(shown, y, colours), dashed, base | line),
        _layer("leads", leads, {"type": "line", "strokeWidth": 0.8, "clip": False, "opacity": 0.6}, base | line),
        _layer("times", lines, {"type": "line", "strokeWidth": 1.6}, base | line),
        _layer("points", lines, {"type": "point", "size": 60, "fillOpacity": 0.3}, base | look),
        text_layer("names", texts, None, colours["paper"]),
    ]
    layers[3]["encoding"]["tooltip"] = [{"field": name, "type": "nominal"} for name in ("name", "length", "time")]
    return {
        "$schema": SCHEMA,
        "description": describe(curves),
        "background": None if theme == "css" else colours["paper"],
        "config": _theme.chart_config(colours, TEXT),
        "title": {
            "text": "Time over the length of the sequence",
            "subtitle": "the fastest implementation of each kernel, with the power of the length in its time and the "
            "95 % interval; dashed: the slopes of paths",
        },
        "width": WIDTH,
        "height": height,
        "layer": layers,
    }


def describe(curves: Sequence[Curve]) -> str:
    """Say in words what the chart shows, for readers who do not see it."""
    told = [f"{_name(curve)} with the power {power_text(curve.power)}" for curve in chosen(curves)]
    return f"Log-log chart of time over the length of the sequence: {'; '.join(told) or 'nothing has an exponent'}."


def to_svg(curves: Sequence[Curve]) -> str:
    """The picture as SVG. Raises MissingExtra without vl-convert, ValueError where `spec` has nothing to draw."""
    return chart.converter().vegalite_to_svg(_drawable(curves))


def to_png(curves: Sequence[Curve]) -> bytes:
    """The picture as PNG; raises as `to_svg` does."""
    return chart.converter().vegalite_to_png(_drawable(curves), scale=2)


def _drawable(curves: Sequence[Curve]) -> Json:
    made = spec(curves)
    if made is None:
        raise ValueError("no forward curve has lengths enough for an exponent, so there is nothing to draw")
    return made


def _name(curve: Curve) -> str:
    run = f"{_view.run_letter(curve.run)}: " if curve.run else ""
    return _view.clean(f"{run}{curve.last.kernel} {curve.last.implementation} {curve.last.dtype}, {curve.last.cache}")


def _axes(shown: Sequence[Curve]) -> tuple[LogAxis, LogAxis, float]:
    """Axes without a margin on the right, where lines lead to their names; taller where there are many names."""
    lengths = [length for curve in shown for length in curve.lengths]
    times = [point.time_s.median for curve in shown for point in curve.points if point.time_s]
    height = max(HEIGHT, LINE * (len(shown) + len(GUIDES) + 1))
    low, high = _geometry.domain(times, _MARGIN)
    return LogAxis(min(lengths) / 1.1, max(lengths) * 1.1, WIDTH), LogAxis(low, high, height), height


def _ticks(shown: Sequence[Curve]) -> list[int]:
    """The lengths that were measured, thinned out to those that find room."""
    every = sorted({length for curve in shown for length in curve.lengths})
    return every if len(every) <= 9 else every[:: -(-len(every) // 9)]


def _lines(shown: Sequence[Curve], colours: dict[str, str]) -> list[Json]:
    shapes = _theme.symbols(curve.last.kernel for curve in shown)
    return [
        {
            "x": length,
            "y": point.time_s.median,
            "line": _name(curve),
            "name": _name(curve),
            "length": f"{curve.size}={length}",
            "time": f"{seconds(point.time_s.median)} (measured)",
            "colour": colours[f"c{index % 8}"],
            "shape": shapes[curve.last.kernel],
        }
        for index, curve in enumerate(shown)
        for length, point in zip(curve.lengths, curve.points)
        if point.time_s
    ]


def _guides(shown: Sequence[Curve], y: LogAxis, colours: dict[str, str]) -> list[Json]:
    """Paths from one place at the foot of the plot, where the steep one has room to rise; cut at the frame."""
    first, last = _ends_of(shown)
    foot = y.value(y.length * 0.06)
    steps = [first * (last / first) ** (index / 40) for index in range(41)]
    return [
        {"x": length, "y": height, "line": name, "colour": colours["muted"]}
        for name, shape in GUIDES.items()
        for length in steps
        if (height := foot * shape(length, first)) <= y.high
    ]


def _ends_of(shown: Sequence[Curve]) -> tuple[int, int]:
    lengths = [length for curve in shown for length in curve.lengths]
    return max(2, min(lengths)), max(lengths)  # the logarithm of 1 is no path to start from


def _ends(shown: Sequence[Curve], colours: dict[str, str], x: LogAxis, y: LogAxis) -> list[Json]:
    """The last place of every line in pixels from the top left, with its name and colour."""
    found = [
        {
            "x": x.at(curve.lengths[-1]),
            "y": y.length - y.at(curve.last.time_s.median),
            "text": f"{_name(curve)}: {curve.size}^{power_text(curve.power)}",
            "colour": colours[f"c{index % 8}"],
        }
        for index, curve in enumerate(shown)
        if curve.last.time_s
    ]
    for name in GUIDES:
        end = [value for value in _guides(shown, y, colours) if value["line"] == name][-1]
        place = {"x": x.at(end["x"]), "y": y.length - y.at(end["y"])}
        found.append(place | {"text": name, "colour": colours["muted"]})
    return found


def _column(ends: Sequence[Json], x: LogAxis, y: LogAxis) -> tuple[list[Json], list[Json]]:
    """Names in a column, as near to the ends of their lines as they can be without touching, and what leads there."""
    ordered = sorted(ends, key=lambda end: end["y"])
    places = apart([end["y"] for end in ordered], y.length)
    texts, leads = [], []
    for end, place in zip(ordered, places):
        texts.append(label_value(x, y, Label(end["text"], x.length + COLUMN, place, "left"), end["colour"]))
        for across, down in ((end["x"], end["y"]), (x.length + COLUMN - 4, place)):
            lead = {"x": x.value(across), "y": y.value(y.length - down), "line": end["text"]}
            leads.append(lead | {"colour": end["colour"]})
    return texts, leads


def apart(wanted: Sequence[float], height: float) -> list[float]:
    """Heights at least a line apart, in the order of `wanted`, near to it and inside the plot where all find room."""
    low = LINE / 2
    places = []
    for place in wanted:
        places.append(max(place, places[-1] + LINE if places else low))
    high = height - LINE / 2
    for index in reversed(range(len(places))):
        places[index] = min(places[index], high)
        high = places[index] - LINE
    return places


def _layer(name: str, values: list[Json], mark: Json, encoding: Json) -> Json:
    return {"name": name, "data": {"values": values}, "mark": mark, "encoding": encoding}

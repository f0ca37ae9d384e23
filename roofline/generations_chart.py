"""Draws how machines grew: rate, bandwidth and ridge point by year, each with its fitted line and the line's band."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from . import _geometry, _theme, chart, generations, trend
from ._geometry import LinearAxis, LogAxis
from ._labels import Board, Mark, label_marks
from ._layout import RADIUS, REACH, TEXT, joined
from ._marks import SCHEMA, direct, label_value, position, text_layer
from .generations import Of, Rated, growth_of
from .units import si

WIDTH, HEIGHT = 400.0, 340.0
UNITS: dict[Of, str] = {"rate": "FLOP/s", "bandwidth": "B/s", "over": "FLOP/B"}
TITLES: dict[Of, str] = {"rate": "Dense 16-bit rate", "bandwidth": "DRAM bandwidth", "over": "Ridge point"}
COLOURS: dict[Of, str] = {"rate": "compute", "bandwidth": "dram", "over": "serial"}
_MARGIN = 1.8  # factor left free above and below the parts, room for their names
# The symbols of as many vendors as the catalogue has, with their words.
_SYMBOLS = dict(zip(("circles", "squares", "triangles"), _theme.SYMBOLS))
_STEPS = 24  # pieces of a band, whose edges are curved

Json = dict[str, Any]


def spec(parts: Sequence[Rated], theme: str = "light") -> Json:
    """The three panels side by side in Vega-Lite; theme as in `chart.spec`. Parts as `generations.fits` wants them."""
    colours = _theme.THEMES[theme]
    return {
        "$schema": SCHEMA,
        "description": describe(parts),
        "background": None if theme == "css" else colours["paper"],
        "config": _theme.chart_config(colours, TEXT),
        "title": {
            "text": "Datacentre accelerators by year",
            "subtitle": "vendors' figures (hollow: not checked against the sheet); line: fitted growth with its 95 % "
            f"band (derived); {_key(parts)}",
        },
        "spacing": 28,
        "hconcat": [panel(parts, of, theme) for of in generations.WORDS],
    }


def describe(parts: Sequence[Rated]) -> str:
    """Say in words what the panels show, for readers who do not see them."""
    told = [f"{words} {_growth_text(parts, of)}" for of, words in generations.WORDS.items()]
    return f"{len(parts)} datacentre parts, {parts[0].year} to {parts[-1].year}. Growth: {'; '.join(told)}."


def to_svg(parts: Sequence[Rated]) -> str:
    """The picture as SVG. Raises MissingExtra without vl-convert."""
    return chart.converter().vegalite_to_svg(spec(parts))


def to_png(parts: Sequence[Rated]) -> bytes:
    """The picture as PNG. Raises MissingExtra without vl-convert."""
    return chart.converter().vegalite_to_png(spec(parts), scale=2)


def _growth_text(parts: Sequence[Rated], of: Of) -> str:
    _, value, interval = generations.growth_cells("", growth_of(parts, of))
    return f"{value} {interval} in two years"


def panel(parts: Sequence[Rated], of: Of, theme: str = "light") -> Json:
    """One figure of all parts over the year; names stand where they touch nothing, or are left out."""
    colours = _theme.THEMES[theme]
    values = [getattr(part, of) for part in parts]
    x = LinearAxis(parts[0].year - 0.7, parts[-1].year + 0.7, WIDTH)
    y = LogAxis(*_geometry.domain(values, _MARGIN), HEIGHT)
    years = {"field": "x", "type": "quantitative", "scale": {"domain": [x.low, x.high], "nice": False}}
    years["axis"] = {"title": "year", "format": "d", "tickMinStep": 1, "grid": False}
    base = {"x": years, "y": position("y", y, UNITS[of], "format(datum.value, '~s')")}
    look = direct({"stroke": "colour", "fill": "colour", "fillOpacity": "fill", "shape": "shape"})
    look["tooltip"] = [{"field": name, "type": "nominal"} for name in ("part", "figure", "from")]
    shade, colour = {"type": "area", "opacity": 0.18, "color": colours[COLOURS[of]]}, colours[COLOURS[of]]
    layers = [
        ("band", _band(parts, of, x, y), shade, base | {"y2": {"field": "top"}}),
        ("growth", _band(parts, of, x, y, line=True), {"type": "line", "strokeWidth": 1.4, "color": colour}, base),
        ("parts", _points(parts, of, colour), {"type": "point", "size": 70, "strokeWidth": 1.5}, base | look),
    ]
    return {
        "title": {"text": TITLES[of], "subtitle": _growth_text(parts, of), "fontSize": TEXT + 2, "offset": 8},
        "width": WIDTH,
        "height": HEIGHT,
        "layer": [
            *(
                {"name": f"{of}_{name}", "data": {"values": data}, "mark": mark, "encoding": encoding}
                for name, data, mark, encoding in layers
            ),
            text_layer(f"{of}_names", _names(parts, of, x, y, colours["ink"]), None, colours["paper"]),
        ],
    }


def _vendors(parts: Sequence[Rated]) -> list[str]:
    """The vendors, those with the most parts first."""
    return [vendor for vendor, _ in Counter(part.machine.vendor for part in parts).most_common()]


def _key(parts: Sequence[Rated]) -> str:
    """What the symbols mean: "circles NVIDIA, squares AMD"."""
    return ", ".join(f"{word} {vendor}" for word, vendor in zip(_SYMBOLS, _vendors(parts)))


def _points(parts: Sequence[Rated], of: Of, colour: str) -> list[Json]:
    shapes = dict(zip(_vendors(parts), _SYMBOLS.values()))
    return [
        {
            "x": part.year,
            "y": getattr(part, of),
            "part": part.machine.name,
            "figure": si(getattr(part, of), UNITS[of]),
            "from": part.mark,
            "colour": colour,
            "fill": 0.0 if part.assumed else 0.75,
            "shape": shapes[part.machine.vendor],
        }
        for part in parts
    ]


def _band(parts: Sequence[Rated], of: Of, x: LinearAxis, y: LogAxis, line: bool = False) -> list[Json]:
    """The fitted line, or the band in which the mean of parts of a year lies, over the years of the parts."""
    fitted = trend.line([part.year for part in parts], [math.log(getattr(part, of)) for part in parts])
    first, last = parts[0].year, parts[-1].year
    found = []
    for index in range(_STEPS + 1):
        year = first + (last - first) * index / _STEPS
        at = fitted.at(year)
        low, top = (at.value, at.value) if line else (at.low, at.high)
        found.append({"x": year, "y": max(math.exp(low), y.low), "top": min(math.exp(top), y.high)})
    return found


def _names(parts: Sequence[Rated], of: Of, x: LinearAxis, y: LogAxis, colour: str) -> list[Json]:
    board = Board(WIDTH, HEIGHT, TEXT)
    marks = [Mark(x.at(part.year), HEIGHT - y.at(getattr(part, of)), part.id) for part in parts]
    for mark in marks:
        board.symbol(mark.x, mark.y, RADIUS)
    line = _band(parts, of, x, y, line=True)
    for before, after in pairwise(line):
        board.line(x.at(before["x"]), HEIGHT - y.at(before["y"]), x.at(after["x"]), HEIGHT - y.at(after["y"]))
    return [label_value(x, y, label, colour) for label, _ in label_marks(board, marks, joined, REACH)]

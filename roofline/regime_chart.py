"""Draws the regime map in Vega-Lite: two maps side by side, a letter in every cell, measured points on top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import _theme, chart, regime
from ._layout import TEXT
from ._marks import SCHEMA
from ._view import clean
from .record import Grid
from .regime import Cell, Spot

CELL = 30  # pixels of a cell: four digits of the chart's text size have room below it

Json = dict[str, Any]


def spec(grids: Sequence[Grid], spots: Sequence[Spot], steps: int, machine: str, theme: str = "light") -> Json:
    """The maps of a machine, which is named, at so many steps, side by side; theme as in `chart.spec`."""
    colours = _theme.THEMES[theme]
    return {
        "$schema": SCHEMA,
        "description": describe(grids, steps),
        "background": colours["paper"],
        "config": _theme.chart_config(colours, TEXT),
        "title": {
            "text": f"Which wall binds {grids[0].kernel} {grids[0].dtype} on {clean(machine)}",
            "subtitle": [f"{steps} steps, caches cold, modelled. {regime.KEY}", regime.CIRCLES_KEY],
            "offset": 16,
        },
        "spacing": 24,
        "hconcat": [_map(grid, spots, steps, colours) for grid in grids],
    }


def describe(grids: Sequence[Grid], steps: int) -> str:
    """Say in words what the maps show, for readers who do not see them."""
    told = (f"{regime.TITLES[grid.design]}: {regime.share_in_words(grid, steps)}" for grid in grids)
    first = grids[0]
    return f"Maps of the wall that binds {first.kernel} {first.dtype} over batch and hidden size, {steps} steps; " + (
        "; ".join(told) + "."
    )


def to_svg(grids: Sequence[Grid], spots: Sequence[Spot], steps: int, machine: str) -> str:
    """The picture as SVG. Raises MissingExtra without vl-convert."""
    return chart.converter().vegalite_to_svg(spec(grids, spots, steps, machine))


def to_png(grids: Sequence[Grid], spots: Sequence[Spot], steps: int, machine: str) -> bytes:
    """The picture as PNG. Raises MissingExtra without vl-convert."""
    return chart.converter().vegalite_to_png(spec(grids, spots, steps, machine), scale=2)


def _map(grid: Grid, spots: Sequence[Spot], steps: int, colours: dict[str, str]) -> Json:
    shown = [cell for cell in regime.cells(grid) if steps == cell.T]
    values = [_value(cell, colours) for cell in shown]
    places = sorted(regime.places(grid, spots, steps).items())
    marked, near = ([{"B": str(B), "H": str(H)} for (H, B), exact in places if exact is kind] for kind in (True, False))
    circle = {"type": "point", "shape": "circle", "size": 320, "stroke": colours["ink"]}
    sizes = {name: [str(int(size)) for size in grid.axes[name]] for name in ("B", "H")}
    place = {
        "x": {"field": "B", "type": "ordinal", "sort": sizes["B"], "title": "batch B", "axis": {"labelAngle": 0}},
        "y": {"field": "H", "type": "ordinal", "sort": sizes["H"][::-1], "title": "hidden size H = inputs I"},
    }
    fill = {"field": "colour", "type": "nominal", "scale": None}
    layers = [
        ("cells", values, {"type": "rect", "opacity": 0.22}, {"fill": fill}),
        ("letters", values, {"type": "text", "fontSize": TEXT}, {"text": {"field": "letter"}, "color": fill}),
        ("measured", marked, circle, {}),
        ("nearest", near, circle | {"strokeDash": [3, 2.5]}, {}),
    ]
    return {
        "title": {
            "text": regime.TITLES[grid.design],
            "subtitle": regime.share_in_words(grid, steps),
            "fontSize": TEXT + 1,
        },
        "width": CELL * len(sizes["B"]),
        "height": CELL * len(sizes["H"]),
        "layer": [
            {"name": f"{grid.design}_{name}", "data": {"values": data}, "mark": mark, "encoding": place | encoding}
            for name, data, mark, encoding in layers
        ],
    }


def _value(cell: Cell, colours: dict[str, str]) -> Json:
    return {"B": str(cell.B), "H": str(cell.H), "letter": cell.letter, "colour": colours[cell.wall or "muted"]}

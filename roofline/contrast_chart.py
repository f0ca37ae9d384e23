"""Draws the contrast: time per token over the length, a line for each layer, beside the least possible time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import _theme, chart
from ._layout import TEXT
from ._marks import SCHEMA
from .contrast import Row

Json = dict[str, Any]

WIDTH, HEIGHT = 340, 280
# Layers are told apart by a symbol and a dash as well as by a colour.
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "stroke")
DIRECTIONS = {"forward": "forward pass", "backward": "gradients", "both": "training step"}


def spec(rows: Sequence[Row], dtype: str, theme: str = "light") -> Json:
    """One panel for each direction; filled symbols are measured, hollow ones the best possible floor (modelled)."""
    colours = _theme.THEMES[theme]
    directions = list(dict.fromkeys(row.direction for row in rows))
    return {
        "$schema": SCHEMA,
        "description": describe(rows),
        "background": colours["paper"],
        "config": _theme.chart_config(colours, TEXT),
        "title": {
            "text": f"Time per token of complete layers, {dtype}",
            "subtitle": "solid lines: measured; dashed: the best possible floor (modelled)",
            "offset": 12,
        },
        "hconcat": [_panel(rows, direction, colours) for direction in directions],
    }


def describe(rows: Sequence[Row]) -> str:
    """Say in words what the picture shows, for readers who do not see it."""
    measured = [row for row in rows if row.token_s]
    if not measured:
        return f"Least possible times per token of {len({row.layer for row in rows})} layers; nothing was measured."
    least = min(measured, key=lambda row: row.token_s or 0.0)
    most = max(measured, key=lambda row: row.token_s or 0.0)
    count = len({row.layer for row in measured})
    return (
        f"Time per token of {count} layers over the length of the sequence: the least is that of {least.layer} at "
        f"T={least.shape['T']}, the most that of {most.layer} at T={most.shape['T']}."
    )


def to_svg(rows: Sequence[Row], dtype: str) -> str:
    """The picture as SVG. Raises MissingExtra without vl-convert."""
    return chart.converter().vegalite_to_svg(spec(rows, dtype))


def _panel(rows: Sequence[Row], direction: str, colours: dict[str, str]) -> Json:
    layers = list(dict.fromkeys(row.layer for row in rows))
    values = []
    for row in rows:
        least = row.least_s / row.work.tokens if row.least_s and row.work.tokens else None
        times = {"measured": row.token_s, "least": least}
        values += [
            {"T": row.shape["T"], "layer": row.layer, "kind": kind, "time": time}
            for kind, time in times.items()
            if time and row.direction == direction
        ]
    scale = {"domain": layers, "range": [colours[f"c{index % 8}"] for index in range(len(layers))]}
    shapes = {"domain": layers, "range": list(SYMBOLS[: len(layers)])}
    legend = {"orient": "bottom", "columns": 4, "title": None}
    encoding = {
        "x": {"field": "T", "type": "quantitative", "scale": {"type": "log", "base": 2}, "title": "length T"},
        "y": {
            "field": "time",
            "type": "quantitative",
            "scale": {"type": "log"},
            "title": "time per token",
            "axis": {"labelExpr": "format(datum.value, '~s') + 's'"},
        },
        "color": {"field": "layer", "type": "nominal", "scale": scale, "legend": legend},
        "shape": {"field": "layer", "type": "nominal", "scale": shapes, "legend": legend},
        "detail": {"field": "kind"},
    }
    dash = {"field": "kind", "scale": {"domain": ["measured", "least"], "range": [[1, 0], [3, 4]]}, "legend": None}
    filled = {"condition": {"test": "datum.kind === 'measured'", "value": 1.0}, "value": 0.35}
    marks = [
        {"mark": {"type": "line"}, "encoding": encoding | {"strokeDash": dash}},
        {"mark": {"type": "point", "size": 60}, "encoding": encoding | {"opacity": filled}},
    ]
    title = {"text": DIRECTIONS[direction], "fontSize": TEXT + 1}
    return {"title": title, "width": WIDTH, "height": HEIGHT, "data": {"values": values}, "layer": marks}

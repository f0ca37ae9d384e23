"""Draws the log-log roofline of one or several runs: one Vega-Lite specification for the page, SVG, PNG and PDF.

Every point has a number that the tables of the same runs resolve; static pictures carry that table as their key, and
of very many points only those that speak for their kernels, by name. All text is placed here, in pixels, so that none
overlaps. vl-convert renders without a browser and is imported on use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import _geometry, _theme, _view, depth_chart
from ._geometry import LogAxis
from ._key import key
from ._layout import TEXT, WIDTH, Layout, lay_out, walks_of
from ._marks import LOOK, SCHEMA, SYMBOL_AREA, direct, label_value, point_values, position, text_layer, tooltip
from ._view import Row, clean
from .record import Run
from .wording import ENGLISH, Wording

_AWAY = 0.35  # opacity of the serial wall of a point that another wall stops
_EDGE = 3  # pixels from the frame within which a bar would look cut
_SHOWN = "indexof(hidden, datum.number) < 0"
_SCALE = 3.0  # pixels of a PNG per pixel of the layout, sharp on paper and dense screens

Json = dict[str, Any]


def to_svg(runs: Sequence[Run]) -> str:
    """Render the chart with its key as SVG. Raises MissingExtra without vl-convert."""
    return converter().vegalite_to_svg(spec(runs, "light", static=True))


def to_png(runs: Sequence[Run]) -> bytes:
    """Render the chart with its key as PNG. Raises MissingExtra without vl-convert."""
    return converter().vegalite_to_png(spec(runs, "light", static=True), scale=_SCALE)


def to_pdf(runs: Sequence[Run]) -> bytes:
    """Render the chart with its key as PDF. Raises MissingExtra without vl-convert."""
    return converter().vegalite_to_pdf(spec(runs, "light", static=True))


def converter() -> Any:
    """The module vl_convert. Raises MissingExtra where it is not installed."""
    try:
        import vl_convert
    except ImportError as error:
        raise _view.MissingExtra("vl-convert-python", "Drawing a chart") from error
    return vl_convert


def spec(runs: Sequence[Run], theme: str = "light", static: bool = False, _: Wording = ENGLISH) -> Json:
    """Describe the chart in Vega-Lite.

    theme : "light", "dark", or "css" for a page whose style sheet defines the colours as custom properties.
    static : add a title and the key below the chart; otherwise tooltips and the parameters `hidden` (numbers of points
        that are not shown), `silent` (labels that are not shown) and `focus` (the number of an emphasised point).
    _ : the language of the fixed texts.
    """
    layout = lay_out(runs, static, _)
    colours = _theme.THEMES[theme]
    chart: Json = {
        "width": WIDTH,
        "height": layout.height,
        "layer": [
            *_roof_layers(layout, colours, _),
            *_point_layers(layout, colours, static, _),
            text_layer("roof_labels", _roof_label_values(layout, colours), None, colours["paper"]),
            text_layer("labels", _label_values(layout, colours), "indexof(silent, datum.text) < 0", colours["paper"]),
        ],
    }
    whole: Json = {
        "$schema": SCHEMA,
        "description": describe(runs, _),
        "background": colours["paper"] if static else None,
    }
    whole["config"] = _theme.chart_config(colours, TEXT)
    whole["params"] = [{"name": "hidden", "value": []}, {"name": "silent", "value": []}, {"name": "focus", "value": ""}]
    if static:
        below = depth_chart.drawing(runs, colours, static=True, brief=layout.brief, _=_)
        parts = [chart, *([below] if below else []), key(layout, colours)]
        whole |= {"title": _title(runs, layout), "spacing": 14, "vconcat": parts}
    else:
        whole |= chart
    return whole


def describe(runs: Sequence[Run], _: Wording = ENGLISH) -> str:
    """Say in one sentence what the chart shows, for readers who do not see it."""
    machines = ", ".join(dict.fromkeys(clean(run.machine.name) for run in runs))
    count = sum(bool(row.number) for row in _view.rows(runs))
    return _(
        "Log-log roofline of %(machines)s: operations per second over operations per compulsory byte for %(count)s "
        "numbered points, below the roofs of DRAM, cache and compute; the table lists every point by its number.",
        machines=machines,
        count=count,
    )


def unlabelled(drawing: Json) -> list[str]:
    """Numbers of points for which a chart of `spec(...)` has no room; the table and pointing at them still tell."""
    layers = {layer["name"]: layer["data"]["values"] for layer in drawing["layer"]}
    named = {number for label in layers["labels"] for number in label["members"]}
    return [value["number"] for value in layers["points"] if value["number"] not in named]


def _encoding(layout: Layout, _: Wording) -> Json:
    intensity = _("operations per byte (compulsory traffic, modelled)")
    return {
        "x": position("x", layout.x, intensity, "format(datum.value, ',~r')"),
        "y": position("y", layout.y, _("FLOP/s (measured)"), "format(datum.value, '~s')"),
    }


def _roof_layers(layout: Layout, colours: dict[str, str], _: Wording) -> list[Json]:
    dashes: dict[str, list[int]] = {"dram": [], "cache": [7, 4], "compute": []}
    layers = []
    for index, (_prefix, roof, (low, high)) in enumerate(layout.roofs):
        values = [{"x": x, "y": roof.rate(x)} for x in (low, high)]
        mark = {"type": "line", "stroke": colours[roof.wall], "strokeWidth": 2, "strokeDash": dashes[roof.wall]}
        encoding = _encoding(layout, _)
        layers.append({"name": f"roof_{index}", "data": {"values": values}, "mark": mark, "encoding": encoding})
    return layers


def _point_layers(layout: Layout, colours: dict[str, str], static: bool, _: Wording) -> list[Json]:
    """Lines of batch sweeps, bars of serial walls, and the points on top."""
    drawn = point_values(layout.rows, layout.measured, colours, brief=layout.brief, _=_)
    values = {value["number"]: value for value in drawn}
    walks = [
        {**{name: values[row.number][name] for name in ("x", "y", "number", "colour")}, "walk": index}
        for index, walk in enumerate(walks_of(layout.rows, layout.brief))
        for row in walk.rows
    ]
    barred = [row for row in layout.rows if layout.brief.shows(row.number)]
    bars = [bar for row in barred if (bar := _serial_bar(row, values[row.number]["x"], layout.y))]
    base, symbol = _encoding(layout, _), direct(LOOK | {"opacity": "strength"})
    size = {"test": "focus !== '' && datum.number === focus", "value": SYMBOL_AREA * 4}
    symbol["size"] = {"condition": size, "value": SYMBOL_AREA}
    if not static:
        symbol["tooltip"] = tooltip(_)
    line = {"type": "line", "strokeWidth": 1.4, "opacity": 0.55}
    bar = {"type": "point", "shape": "stroke", "size": 200, "stroke": colours["serial"], "strokeWidth": 2}
    point = {"type": "point", "strokeWidth": 1.6}
    walk = {"stroke": symbol["stroke"], "detail": {"field": "walk", "type": "nominal"}}
    layers = (
        ("walks", walks, line, base | walk),
        ("serial", bars, bar, base | direct({"opacity": "strength"})),
        ("points", list(values.values()), point, base | symbol),
    )
    shown = [] if static else [{"filter": _SHOWN}]
    return [
        {"name": name, "data": {"values": data}, "transform": shown, "mark": mark, "encoding": encoding}
        for name, data, mark, encoding in layers
    ]


def _serial_bar(row: Row, x: float, y: LogAxis) -> Json | None:
    """The bar of a point's serial wall: strong where the chain stops the point. None outside the frame."""
    rate = _geometry.serial_rate(row)
    if not rate or not _EDGE <= y.at(rate) <= y.length - _EDGE:
        return None
    binding = "serial" in (row.point.bound, row.point.contested_with)
    return {"x": x, "y": rate, "number": row.number, "strength": 1.0 if binding else _AWAY}


def _label_values(layout: Layout, colours: dict[str, str]) -> list[Json]:
    return [
        label_value(layout.x, layout.y, label, colours["ink"]) | {"members": members}
        for label, members in layout.labels
    ]


def _roof_label_values(layout: Layout, colours: dict[str, str]) -> list[Json]:
    return [label_value(layout.x, layout.y, label, colours[roof.wall]) for label, roof in layout.roof_labels]


def _title(runs: Sequence[Run], layout: Layout) -> Json:
    names = [clean(f"{run.machine.name}, {run.created[:10]}") for run in runs]
    if len(runs) > 1:
        names = [f"{_view.run_letter(index)}: {name}" for index, name in enumerate(names)]
    points = "Lines join batch sizes."
    if layout.brief:
        faint = len(layout.rows) - len(layout.brief.clear)
        points += f" Named: the fastest implementation of each kernel's largest case; faint: {faint} other points."
    return {
        "text": "Roofline of " + "; ".join(names),
        "subtitle": [
            f"Short bars: the rate that the chain of dependent steps allows. {points}",
            "Below: time (measured), wall (modelled; in brackets where the time is more than twice that floor) and "
            "share of what the best possible implementation reaches (modelled).",
        ],
    }

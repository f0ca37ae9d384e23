"""Parts that all Vega-Lite charts of a report share: axes, the look of a point, and texts placed in pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from . import _geometry, _theme, _view
from ._geometry import LinearAxis, LogAxis
from ._labels import Label
from ._layout import TEXT
from ._summary import EVERYTHING, Brief
from ._view import Row, clean
from .units import si
from .wording import ENGLISH, Wording

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
SYMBOL_AREA = 95  # about 10 pixels across
FILL = {"fp32": 0.12, "tf32": 0.4, "fp16": 0.7}  # wider types are hollower; everything else is filled
_EDGE = 3  # pixels, half of them outside of the letters: within the blank that the layout leaves around a text

Json = dict[str, Any]


def position(axis: str, scale: LogAxis, title: str, unit: str) -> Json:
    """A position channel with a fixed domain, so that the places computed here are the places on the screen.

    unit : the Vega expression that writes a tick, from `datum.value`.
    """
    return {
        "field": axis,
        "type": "quantitative",
        "scale": {"type": "log", "domain": [scale.low, scale.high], "nice": False, "clamp": False},
        "axis": {"title": title, "values": scale.ticks(), "labelExpr": unit, "labelOverlap": True, "format": "~g"},
    }


def direct(channels: dict[str, str]) -> Json:
    """Channels whose fields hold the very value to draw, without a scale."""
    kinds = {channel: "quantitative" if "pacity" in channel else "nominal" for channel in channels}
    return {channel: {"field": field, "type": kinds[channel], "scale": None} for channel, field in channels.items()}


LOOK = {"stroke": "colour", "fill": "colour", "fillOpacity": "fill", "shape": "shape"}
_FAINT = 0.28  # opacity of a point that another one speaks for
TOOLTIP = ("point", "shape of the case", "time", "wall", "share of machine", "share of design", "rate", "chain allows")


def tooltip(_: Wording) -> list[Json]:
    """The channel that shows what `TOOLTIP` names, with its names in the language of the page."""
    return [{"field": name, "type": "nominal", "title": _(name)} for name in TOOLTIP]


def point_values(
    rows: Sequence[Row],
    among: Sequence[Row],
    colours: dict[str, str],
    place: Callable[[Row], tuple[float, float]] = _geometry.coordinates,
    brief: Brief = EVERYTHING,
    _: Wording = ENGLISH,
) -> list[Json]:
    """What a chart knows of every point: place, number, look and the lines of its tooltip.

    among : all measured rows of the report, so that a kernel looks the same on every chart and in the legend.
    brief : which points are drawn faintly.
    """
    names = _theme.colours(row.point.implementation for row in among)
    shapes = _theme.symbols(row.point.kernel for row in among)
    result = []
    for row in rows:
        point = row.point
        texts = (
            clean(f"{row.number}  {point.kernel} {point.implementation} {point.dtype} {point.direction}"),
            clean(point.shape_text),
            f"{_view.time_text(point)} {_view.interval_text(point)}",
            _view.own_wall(point, _),
            _view.machine_text(point),
            _view.design_text(point),
            _view.rate_text(point),
            si(_geometry.serial_rate(row), "FLOP/s"),
        )
        look = {
            "colour": colours[names[point.implementation]],
            "shape": shapes[point.kernel],
            "fill": FILL.get(point.dtype, 1.0),
            "strength": 1.0 if brief.shows(row.number) else _FAINT,
        }
        x, y = place(row)
        result.append({"x": x, "y": y, "number": row.number, **look, **dict(zip(TOOLTIP, texts))})
    return result


def text_layer(name: str, values: list[Json], shown: str | None, paper: str) -> Json:
    """A layer of texts, each at its place and twice: first with an edge of the background, which covers what is below.

    shown : the Vega expression that keeps a text. paper : the colour of the background.
    """
    edge = {"stroke": paper, "strokeWidth": _EDGE, "strokeJoin": "round", "aria": False}
    return {
        "name": name,
        "data": {"values": values},
        "transform": [{"filter": shown}] if shown else [],
        "layer": [
            {
                "transform": [{"filter": f"datum.align === '{align}'"}],
                "mark": {"type": "text", "align": align, "baseline": "middle", "fontSize": TEXT, **look},
                "encoding": {
                    **{axis: {"field": axis, "type": "quantitative"} for axis in ("x", "y")},
                    "text": {"field": "text"},
                    "color": {"field": "colour", "type": "nominal", "scale": None},
                },
            }
            for align in ("left", "center", "right")
            if any(value["align"] == align for value in values)
            for look in (edge, {})
        ],
    }


def label_value(x_axis: LogAxis | LinearAxis, y_axis: LogAxis, label: Label, colour: str) -> Json:
    """A text at the place that the layout found for it."""
    x, y = x_axis.value(label.x), y_axis.value(y_axis.length - label.y)
    return {"x": x, "y": y, "text": label.text, "align": label.align, "colour": colour}

"""Colours and symbols of charts and page: the same names in light and dark."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

# Latin letters first, then Chinese ones of macOS, Windows and Linux.
FONT = (
    "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Arial, "
    "'PingFang SC', 'Microsoft YaHei', 'Noto Sans CJK SC', sans-serif"
)

# Contrast of text colours on their background is at least 4.5:1, of symbols and lines at least 3:1.
LIGHT = {
    "paper": "#ffffff",
    "panel": "#f6f7f9",
    "ink": "#1b2430",
    "muted": "#566273",
    "faint": "#e3e7ec",
    "dram": "#1f5fae",
    "cache": "#0b7285",
    "compute": "#3d4a5c",
    "serial": "#9c36b5",
    "bad": "#b42318",
    "c0": "#6b7686",
    "c1": "#1f6fd0",
    "c2": "#0b8a7d",
    "c3": "#7048c8",
    "c4": "#d9480f",
    "c5": "#c2255c",
    "c6": "#8f6a00",
    "c7": "#2b8a3e",
    "c8": "#1c1f9a",
    "c9": "#e0409f",
    "c10": "#77400f",
    "c11": "#0a5c1e",
    "c12": "#0a93c4",
    "c13": "#4b0a6e",
    "c14": "#8a1020",
    "c15": "#b07cc6",
    "c16": "#c97d5d",
}
DARK = {
    "paper": "#12161c",
    "panel": "#1a2029",
    "ink": "#e8ecf1",
    "muted": "#a3afbf",
    "faint": "#2a323d",
    "dram": "#6cb0ff",
    "cache": "#4fc9d8",
    "compute": "#b6c2d1",
    "serial": "#da8ff0",
    "bad": "#ff8a80",
    "c0": "#97a3b3",
    "c1": "#62a8ff",
    "c2": "#3fcfb8",
    "c3": "#b197fc",
    "c4": "#ff9256",
    "c5": "#ff7eab",
    "c6": "#e0b93a",
    "c7": "#69db7c",
    "c8": "#5c6bff",
    "c9": "#ffb8de",
    "c10": "#c08a5e",
    "c11": "#c0eb4f",
    "c12": "#4dd9ff",
    "c13": "#3f8f5c",
    "c14": "#c9506e",
    "c15": "#8a5fb5",
    "c16": "#ffd8b8",
}
# On the page every colour is a property of the style sheet, so one chart serves light, dark and print.
CSS = {name: f"var(--{name})" for name in LIGHT}

THEMES = {"light": LIGHT, "dark": DARK, "css": CSS}

# SVG paths in a square from -1 to 1 around the origin.
SYMBOLS = (
    "M1,0A1,1,0,1,1,-1,0A1,1,0,1,1,1,0Z",
    "M-0.88,-0.88H0.88V0.88H-0.88Z",
    "M0,-1.15L1.1,0.85H-1.1Z",
    "M0,-1.25L1.05,0L0,1.25L-1.05,0Z",
    "M0,1.15L1.1,-0.85H-1.1Z",
    "M-0.4,-1.1H0.4V-0.4H1.1V0.4H0.4V1.1H-0.4V0.4H-1.1V-0.4H-0.4Z",
    "M0,-1.2L0.35,-0.37L1.14,-0.37L0.5,0.14L0.7,0.97L0,0.49L-0.7,0.97L-0.5,0.14L-1.14,-0.37L-0.35,-0.37Z",
    "M-1.15,0L0.85,-1.1V1.1Z",
    "M1.15,0L-0.85,-1.1V1.1Z",
    "M0.00,-1.10L0.95,-0.55L0.95,0.55L0.00,1.10L-0.95,0.55L-0.95,-0.55Z",
    "M0.00,-1.12L1.07,-0.35L0.66,0.91L-0.66,0.91L-1.07,-0.35Z",
    "M-1.05,-1.05H1.05L-1.05,1.05H1.05Z",
    "M-1.05,-1.05V1.05L1.05,-1.05V1.05Z",
    "M-0.75,-1.1L0,-0.4L0.75,-1.1L1.1,-0.75L0.4,0L1.1,0.75L0.75,1.1L0,0.4L-0.75,1.1L-1.1,0.75L-0.4,0L-1.1,-0.75Z",
    "M-1.1,0.55A1.1,1.1,0,0,1,1.1,0.55Z",
    "M-1.1,-0.55A1.1,1.1,0,0,0,1.1,-0.55Z",
)

_FAMILIES = {"reference": "c0", "torch": "c1", "compile": "c3", "triton": "c4"}
# As many as implementations that have no family, so that no two look alike on a chart of all kernels.
_OTHERS = ("c2", "c5", "c6", "c7", *(f"c{index}" for index in range(8, 17)))


def colours(implementations: Iterable[str]) -> dict[str, str]:
    """A colour name for each implementation: fixed for the common four, the others in order of their names."""
    names = sorted(set(implementations))
    rest = [name for name in names if name not in _FAMILIES]
    chosen = {name: _OTHERS[index % len(_OTHERS)] for index, name in enumerate(rest)}
    return {name: _FAMILIES.get(name) or chosen[name] for name in names}


def symbols(kernels: Iterable[str]) -> dict[str, str]:
    """A symbol for each kernel, in order of their names."""
    return {name: SYMBOLS[index % len(SYMBOLS)] for index, name in enumerate(sorted(set(kernels)))}


def chart_config(colours: dict[str, str], text: int) -> dict[str, Any]:
    """The look of a Vega-Lite chart: quiet frame and axes, labels of `text` pixels."""
    return {
        "font": FONT,
        "view": {"stroke": colours["faint"]},
        "title": {
            "anchor": "start",
            "fontSize": 17,
            "fontWeight": 600,
            "subtitleFontSize": 12,
            "subtitlePadding": 6,
            "offset": 16,
            "color": colours["ink"],
            "subtitleColor": colours["muted"],
        },
        "axis": {
            "labelFontSize": text,
            "titleFontSize": 12,
            "titleFontWeight": 500,
            "titlePadding": 10,
            "labelColor": colours["muted"],
            "titleColor": colours["muted"],
            "gridColor": colours["faint"],
            "domainColor": colours["faint"],
            "tickColor": colours["faint"],
        },
    }

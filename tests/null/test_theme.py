"""Looks: colours that can be told apart, and the same symbol and colour for a name in charts, key and legend."""

from __future__ import annotations

import math
import re
from itertools import combinations

import pytest
import samples

from seqroof.kernels import _catalog
from seqroof.roofline import _theme, _view, chart, page_points
from seqroof.roofline.record import Run
from seqroof.roofline.wording import ENGLISH

GPU = samples.run("gpu")
OFF = {"achieved": None}, {"status": "invalid"}, {"headline": False}
MANY = samples.run(
    points=tuple(
        point.model_copy(update={"implementation": f"own_{point.implementation}"})
        for point in samples.crowd(150).points
    )
)


def points_of(drawing: dict) -> list[dict]:
    return next(entry for entry in drawing["layer"] if entry["name"] == "points")["data"]["values"]


@pytest.mark.parametrize("run", [GPU, MANY], ids=["few", "many"])
@pytest.mark.parametrize("off", OFF, ids=["no operations", "invalid", "no headline"])
def test_legend_charts_and_key_agree_beside_a_kernel_that_is_on_no_chart(run: Run, off: dict) -> None:
    """The one that is on no chart is the first in the order of symbols and colours."""
    absent = run.points[0].model_copy(update={"kernel": "a_copy", "implementation": "a_row"} | off)
    given = [run.model_copy(update={"points": (absent, *run.points)})]
    rows = {row.number: row.point for row in _view.rows(given) if row.number}
    measured = _view.measured(_view.rows(given))
    assert {"a_copy"} == {row.point.kernel for row in measured} - {point.kernel for point in rows.values()}
    kernels, implementations, *_rest = page_points.Facets(given, measured).filters(ENGLISH)
    symbols = {option["name"]: option["symbol"] for option in kernels["options"]}
    colours = {option["name"]: option["colour"] for option in implementations["options"]}
    for value in points_of(chart.spec(given, "css")):
        point = rows[value["number"]]
        assert (value["shape"], value["colour"]) == (symbols[point.kernel], colours[point.implementation])
    picture = chart.spec(given, static=True)
    drawn = {value["number"]: value for value in points_of(picture["vconcat"][0])}
    keyed = picture["vconcat"][-1]["data"]["values"]
    for value in (value for value in keyed if "number" in value):
        assert all(value[name] == drawn[value["number"]][name] for name in ("shape", "colour", "fill"))
    named = {value["text"]: value["colour"] for value in keyed if "number" not in value}
    assert bool(named) == (run is MANY) and "a_row" not in named
    for number, value in drawn.items():
        assert named.get(rows[number].implementation, value["colour"]) == value["colour"]


def test_themes_have_the_same_colours_and_enough_contrast() -> None:
    assert _theme.LIGHT.keys() == _theme.DARK.keys() == _theme.CSS.keys()
    for theme in (_theme.LIGHT, _theme.DARK):
        for name, colour in theme.items():
            if name not in ("paper", "panel", "faint"):
                least = 3.0 if re.fullmatch(r"c\d+", name) else 4.5
                assert contrast(colour, theme["paper"]) >= least, name


def test_every_implementation_has_a_colour_and_every_kernel_a_symbol_of_its_own() -> None:
    kernels = [_catalog.load(name) for name in _catalog.kernel_names()]
    names = {name for kernel in kernels for name in kernel.implementations}
    found = _theme.colours(names)
    for theme in (_theme.LIGHT, _theme.DARK):
        used = [theme[found[name]] for name in names]
        assert min(difference(*pair) for pair in combinations(used, 2)) >= APART
    assert len(set(_theme.symbols(kernel.name for kernel in kernels).values())) == len(kernels)


APART = 0.08  # in Oklab: four times what an eye just tells apart side by side


def difference(one: str, other: str) -> float:
    """The distance of two colours in Oklab (Ottosson, 2020)."""
    return math.dist(oklab(one), oklab(other))


def oklab(colour: str) -> list[float]:
    """Lightness, green to red, and blue to yellow of a colour."""
    rgb = linear(colour)
    cones = [math.cbrt(sum(w * part for w, part in zip(row, rgb))) for row in TO_CONES]
    return [sum(w * cone for w, cone in zip(row, cones)) for row in TO_OKLAB]


TO_CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
TO_OKLAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


def linear(colour: str) -> list[float]:
    """The light of red, green and blue, of a colour as style sheets write it."""
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    return [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2."""

    def luminance(colour: str) -> float:
        red, green, blue = linear(colour)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)

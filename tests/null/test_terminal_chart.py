"""The roofline in characters: golden pictures, and every awkward set of points."""

from __future__ import annotations

from pathlib import Path

import pytest
import samples
from hypothesis import given, settings
from hypothesis import strategies as st

from seqroof.roofline import terminal_chart
from seqroof.roofline.record import Achieved, Intensity, Point, Run

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("kind, width, ascii", [("gpu", 80, False), ("cpu", 60, True)])
def test_picture_is_the_recorded_one(kind: str, width: int, ascii: bool) -> None:
    recorded = (GOLDEN / f"roofline_{kind}_{width}.txt").read_text(encoding="utf-8")
    assert terminal_chart.render(samples.run(kind), width, ascii) == recorded


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("ascii", [False, True])
def test_no_line_is_wider_than_the_terminal(width: int, ascii: bool) -> None:
    for run in (samples.run("gpu"), samples.run("cpu"), samples.hostile_run()):
        lines = terminal_chart.render(run, width, ascii).splitlines()
        assert max(map(len, lines)) <= width
        if ascii:
            assert all(line.isascii() for line in lines)


def test_letters_are_resolved_by_the_legend() -> None:
    run = samples.run("gpu")
    text = terminal_chart.render(run, 100)
    series = {(p.kernel, p.implementation, p.dtype) for p in run.points if p.status == "ok"}
    for names in series:
        assert " ".join(names) in text
    plot, _, legend = text.partition("letters,")
    for line in legend.splitlines()[1:]:
        assert any(line[0] in row.partition("│")[2] for row in plot.splitlines())


def moved(point: Point, intensity: float | None, flops_per_s: float) -> Point:
    """The point somewhere else on the chart."""
    achieved = Achieved(flops_per_s=flops_per_s, bytes_per_s=1.0, streamed_bytes_per_s=1.0)
    return point.model_copy(update={"intensity": Intensity(compulsory=intensity), "achieved": achieved})


def base() -> Point:
    return samples.point("lstm_step", "torch", {"B": 1, "I": 64, "H": 64}, "fp32", 0.5, samples.machine("cpu"))


def roofless(run: Run) -> Run:
    return run.model_copy(update={"machine": run.machine.model_copy(update={"ceilings": ()})})


def test_awkward_runs_still_make_a_picture() -> None:
    cases = {
        "one point": (base(),),
        "equal points": (base(), base()),
        "no intensity": (moved(base(), None, 1e9),),
        "zero rate": (moved(base(), 1.0, 0.0),),
        "zero intensity": (moved(base(), 0.0, 1e9),),
        "far apart": (moved(base(), 1e-6, 1.0), moved(base(), 1e9, 1e18)),
        "no point": (),
    }
    for name, points in cases.items():
        run = samples.run("cpu", points=points)
        for candidate in (run, roofless(run)):
            text = terminal_chart.render(candidate, 80)
            assert "FLOP/s" in text and "operations per byte" in text, name
            drawn = "a lstm_step" in text
            assert drawn == (name in ("one point", "equal points", "far apart")), name
        assert "no ceiling" in terminal_chart.render(roofless(run), 80)


def test_equal_points_of_different_series_are_both_visible() -> None:
    other = base().model_copy(update={"implementation": "triton"})
    plot = terminal_chart.render(samples.run("cpu", points=(base(), other)), 80).partition("letters,")[0]
    cells = [row.partition("│")[2] for row in plot.splitlines()]
    assert any("a" in row for row in cells) and any("b" in row for row in cells)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(1e-9, 1e12), st.floats(1e-3, 1e21)), max_size=8),
    st.integers(20, 200),
    st.integers(4, 40),
)
def test_any_positive_points_fit_the_frame(places: list[tuple[float, float]], width: int, height: int) -> None:
    points = tuple(moved(base(), x, y) for x, y in places)
    lines = terminal_chart.render(samples.run("cpu", points=points), width, height=height).splitlines()
    assert max(map(len, lines)) <= max(width, 40)
    assert sum("│" in line for line in lines) == height

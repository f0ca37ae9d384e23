"""Prints a run as aligned tables on a terminal of any width.

Columns are dropped by width, least important first; a number is never wrapped or cut. Colour repeats what the words
say and rich leaves it away for `NO_COLOR` and pipes. rich is imported when something is printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import _seen, _steps, _terminal, _view, fleet, stated
from ._unmeasured import unmeasured
from ._view import Row, clean
from .machine import Ceiling
from .record import Point, Run
from .units import percent, si
from .wording import ENGLISH, Wording

if TYPE_CHECKING:
    from rich.console import Console

WALL_STYLES = {"compute": "green", "dram": "blue", "cache": "cyan", "serial": "magenta"}

_GAPS = (2, 1)  # blanks between columns: the wider one where every column fits
_NAME_LIMIT = 20  # longest implementation name that may share a line with numbers
_CAUSES = 3  # causes of one kind of warning that are told in full; points say the rest in the record
_HOW_LEAST = 24  # a narrower column of methods would say nothing


@dataclass(frozen=True)
class Column:
    """A column: `rank` 0 is always shown, and of the others the highest rank is the first to go."""

    title: str
    rank: int
    right: bool = False


_COLUMNS = (
    Column("#", 0, right=True),
    Column("sizes", 0),
    Column("implementation", 0),
    Column("dtype", 0),
    Column("time", 0, right=True),
    Column("±", 1, right=True),
    Column("per step", 2, right=True),
    Column("wall", 0),
    Column("best wall", 5),
    Column("machine", 0, right=True),
    Column("design", 3, right=True),
    Column("rate", 4, right=True),
    Column("status", 0),
)
_SIZES, _INTERVAL, _STEP = 1, 5, 6  # columns that stand only where a row has something to say in them
_VALUABLE = 3  # sooner than lose a column of a lower rank, sizes move into headings of their own
_WALL_COLUMNS = {7: "bound", 8: "best_bound"}


def render(run: Run, console: Console, all_points: bool = False) -> None:
    """Print points, what was not measured and why, warnings, observations and ceilings.

    all_points : also print the points that are not headlines (the other cache state and the other clocks).
    """
    measured = _view.measured(_view.rows([run]))
    shown = [row for row in measured if all_points or row.point.headline]
    advices = _view.Advices(shown)
    _heading(run, console)
    if run.devices:
        _devices(run, console)
    if any(row.point.step_s for row in shown):
        _terminal.say(console, _steps.STEP_NOTE, "dim")
    if shown:
        _points(shown, advices, console)
    hidden = len(measured) - len(shown)
    if hidden:
        _terminal.say(console, f"{hidden} more points, with the other cache state or clock, are in the record.", "dim")
    _unmeasured(run.points, console)
    _invalid(shown, console)
    _warnings([*advices.all, *_seen.of_run([run])], console)
    if run.observations:
        _terminal.title(console, "Observations")
        for observation in run.observations:
            _terminal.say(console, clean(observation.text), indent=2)
    ceilings(run.machine.ceilings, console)


def ceilings(of: Sequence[Ceiling], console: Console) -> None:
    """Print ceilings with their provenance, one line each."""
    _terminal.title(console, "Ceilings")
    if not of:
        _terminal.say(console, "No ceiling of this machine is known: run `seqroof ceilings` to measure them.", indent=2)
        return
    lines = [_terminal.encodable(ceiling_cells(ceiling), console) for ceiling in of]
    titles = _terminal.encodable(("ceiling", "value", "±", "provenance", "how"), console)
    widths = [max(map(_terminal.width_of, column)) for column in zip(titles, *lines)]
    room = console.width - sum(widths[:4]) - 4 * _GAPS[0] - 2
    widths[4] = room if room >= _HOW_LEAST else 0
    for index, cells in enumerate([titles, *lines]):
        style = "bold" if index == 0 else ""
        _terminal.row(console, cells, widths, (False, True, True, False, False), _GAPS[0], style=style, indent=2)
    _beside(of, console)


def _beside(of: Sequence[Ceiling], console: Console) -> None:
    """Print measured limits beside derived and stated ones, where there are any."""
    rows = [_terminal.encodable(found.cells(), console) for found in stated.side_by_side(of)]
    if not rows:
        return
    _terminal.title(console, "Measured beside stated")
    lines = [_terminal.encodable(stated.TITLES, console), *rows]
    widths = [max(map(_terminal.width_of, column)) for column in zip(*lines)]
    for index, cells in enumerate(lines):
        style = "bold" if index == 0 else ""
        _terminal.row(console, cells, widths, (False, True, True, True, True), _GAPS[0], style=style, indent=2)
    _terminal.say(console, stated.NOTE, "dim", indent=2)


def ceiling_cells(ceiling: Ceiling, _: Wording = ENGLISH) -> tuple[str, str, str, str, str]:
    """Write a ceiling as name, value, half width of its interval, provenance and method."""
    name = " ".join(clean(part) for part in (ceiling.level, ceiling.quantity, ceiling.dtype) if part)
    if ceiling.pattern:
        name += f", {clean(ceiling.pattern)}"
    if ceiling.scope:
        name += f", {clean(ceiling.scope)}"
    spread = f"±{percent(ceiling.spread / 2)}" if ceiling.low is not None and ceiling.high is not None else ""
    when = f", {clean(ceiling.when)}" if ceiling.when else ""
    return name, si(ceiling.value, ceiling.unit), spread, _(ceiling.provenance), clean(ceiling.how) + when


def _heading(run: Run, console: Console) -> None:
    counts = {
        s: sum(p.status == s for p in run.points)
        for s in ("ok", "wrong", "crashed", "hung", "oom", "skipped", "invalid")
    }
    words = ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "no points"
    state = "" if run.state == "complete" else ", interrupted: what was measured is kept"
    _terminal.say(console, f"{clean(run.machine.name)}: {words}{state}", "bold")
    _terminal.say(console, _view.NUMBERS_NOTE, "dim")
    if seen := _seen.run_text(run):
        _terminal.say(console, seen, "dim")


def _devices(run: Run, console: Console) -> None:
    """Print the devices of a fleet, fastest first; only the remarks may be cut."""
    _terminal.title(console, "Devices")
    lines = [_terminal.encodable([clean(cell) for cell in cells], console) for cells in fleet.cells(run)]
    titles = _terminal.encodable(fleet.TITLES, console)
    widths = [max(map(_terminal.width_of, column)) for column in zip(titles, *lines)]
    for index, cells in enumerate([titles, *lines]):
        right = (True, False, True, True, True, False)
        _terminal.row(console, cells, widths, right, _GAPS[0], style="bold" if index == 0 else "", indent=2)
    _terminal.say(console, fleet.note(run), "dim", indent=2)


def _points(shown: Sequence[Row], advices: _view.Advices, console: Console) -> None:
    titles = _terminal.encodable([column.title for column in _COLUMNS], console)
    sections, cells, widths = _laid_out(shown, _view.SIZES_LIMIT, titles, advices, console)
    gap, dropped = _drop_columns(widths, console.width)
    if _too_narrow(widths, gap, dropped, console.width):
        sections, cells, widths = _laid_out(shown, 0, titles, advices, console)
        gap, dropped = _drop_columns(widths, console.width)
    aligned = [column.right for column in _COLUMNS]
    console.print()
    _terminal.row(console, titles, widths, aligned, gap, style="bold")
    for (title, members), lines in zip(sections, cells):
        _terminal.say(console, title, "bold cyan")
        previous = ""
        for (row, _), line in zip(members, lines):
            if line[1] == previous:
                line[1] = ""
            else:
                previous = line[1]
            styles = {
                index: WALL_STYLES.get(getattr(row.point, name) or "", "") for index, name in _WALL_COLUMNS.items()
            }
            _terminal.row(console, line, widths, aligned, gap, styles)
            if detail := _steps.detail_text(row.point):
                _terminal.say(console, detail, "dim", indent=widths[0] + gap)
    if dropped:
        _terminal.say(console, f"Left out for lack of width: {', '.join(dropped)}.", "dim")


def _laid_out(
    shown: Sequence[Row], limit: int, titles: list[str], advices: _view.Advices, console: Console
) -> tuple[list[tuple[str, list[tuple[Row, str]]]], list[list[list[str]]], list[int]]:
    """Sections with at most `limit` characters of sizes per row, their cells, and the width that each column needs."""
    sections = _view.sections(shown, limit)
    cells = [
        [_terminal.encodable(_cells(row, sizes, advices), console) for row, sizes in members] for _, members in sections
    ]
    widths = [
        max(map(_terminal.width_of, column)) for column in zip(titles, *(line for lines in cells for line in lines))
    ]
    said = {
        _SIZES: any(sizes for _, members in sections for _, sizes in members),
        _INTERVAL: any(row.point.time_s for row in shown),
        _STEP: any(row.point.step_s for row in shown),
    }
    return sections, cells, [width if said.get(index, True) else 0 for index, width in enumerate(widths)]


def _too_narrow(widths: Sequence[int], gap: int, dropped: Sequence[str], room: int) -> bool:
    """Whether a valuable column is missing, or the last one will be cut."""
    used = [width for width in widths if width]
    lost = any(column.title in dropped and column.rank < _VALUABLE for column in _COLUMNS)
    return lost or sum(used) + gap * (len(used) - 1) > room


def _drop_columns(widths: list[int], room: int) -> tuple[int, list[str]]:
    """Choose the gap, set the widths of the least important columns to 0 until the rest fits, and name those."""
    dropped = []
    for index in sorted(range(len(_COLUMNS)), key=lambda i: -_COLUMNS[i].rank):
        used = [width for width in widths if width]
        gap = next((gap for gap in _GAPS if sum(used) + gap * (len(used) - 1) <= room), None)
        if gap is not None or _COLUMNS[index].rank == 0:
            return gap or min(_GAPS), dropped
        if widths[index]:
            dropped.append(_COLUMNS[index].title)
        widths[index] = 0
    return min(_GAPS), dropped


def _cells(row: Row, sizes: str, advices: _view.Advices) -> list[str]:
    point = row.point
    name = clean(point.implementation)
    return [
        row.number,
        sizes,
        name if _terminal.width_of(name) <= _NAME_LIMIT else name[: _NAME_LIMIT - 1] + "…",
        clean(point.dtype),
        _view.time_text(point),
        _view.interval_text(point),
        _steps.step_text(point),
        _view.own_wall(point),
        _view.wall_text(point.best_bound),
        _view.machine_text(point),
        _view.design_text(point),
        _view.rate_text(point),
        _view.status_text(point) + advices.marks(point),
    ]


def _unmeasured(points: Sequence[Point], console: Console) -> None:
    for group in unmeasured(points):
        noun = "point" if group.count == 1 else "points"
        _terminal.title(console, f"{group.status}: {group.count} {noun}, {group.reason}")
        for name, cases in group.lines:
            _terminal.say(console, f"{name}: {'; '.join(cases)}", indent=2)


def _invalid(shown: Sequence[Row], console: Console) -> None:
    invalid = [row.point for row in shown if row.point.status == "invalid"]
    if invalid:
        _terminal.title(console, "invalid: measured, but not to be believed and in no percentage")
    for point in invalid:
        _terminal.say(
            console, clean(f"{point.kernel} {point.implementation} {_view.case_text(point)}: {point.reason}"), indent=2
        )


def _warnings(advices: Sequence[_view.Advice], console: Console) -> None:
    if advices:
        _terminal.title(console, "Warnings")
    for advice in advices:
        causes = [f"{cause} ({', '.join(names)})" for cause, names in advice.causes]
        more = f"; {len(causes) - _CAUSES} more in the record" if len(causes) > _CAUSES else ""
        text = f"({advice.letter}) {advice.id}: {'; '.join(causes[:_CAUSES])}{more}. Advice: {advice.advice}."
        _terminal.say(console, text, indent=2)

"""Writes a run as Markdown: the same sections in the same order as its page, every chart as a table or in letters."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from . import (
    _seen,
    _steps,
    _view,
    _walks,
    contrast,
    fleet,
    page_answer,
    page_claims,
    page_map,
    page_points,
    page_run,
    page_story,
    regime,
    stated,
    what_if,
)
from ._unmeasured import unmeasured
from ._view import clean
from .observe import by_importance
from .record import Run
from .table import ceiling_cells
from .wording import ENGLISH as _

_POINTS = ("#", "kernel", "implementation", "sizes", "device", "dtype", "direction", "cache", "clock", "time", "±")
_POINTS += ("per step", "launch tax", "wall", "seen", "machine", "design", "rate", "status")
_OPTIONAL = ("device", "per step", "launch tax", "seen")  # of fleets, of sequences, and of experiments
_SHOWN = {
    "layer": "layer",
    "#": "number",
    "implementation": "implementation",
    "steps": "steps",
    "per token": "time",
    "tokens/s": "rate",
    "wall": "wall",
    "machine": "machine",
    "design": "design",
    "roof": "roof",
    "energy": "energy",
}


def markdown(run: Run, sections: Collection[str] = ()) -> str:
    """A run as Markdown tables, lists and letters; a section without content is left out.

    sections : the anchors of those that are wanted, without a title; none for the whole.
    """
    rows = _view.rows([run])
    measured = _view.measured(rows)
    equal = contrast.equal_layers(run.points)
    board = page_claims.board([run], _)
    parts = {
        "question": [
            page_story.question(page_map.is_of_the_argument(run), _),
            "",
            *_list(page_answer.answer([run], rows, equal, board, _)),
        ],
        "machine": _machine(run),
        "roofline": _kernels(run, measured),
        "walks": [line for walk in _walks.walks(rows) for line in _walk(walk)],
        "map": _maps(run),
        "contrast": _equal(run, equal, rows),
        "claims": _claims(run, board),
        "helps": _helps(run, rows),
        "method": _method(run, measured),
    }
    lines = [] if sections else [f"# {_escape(run.machine.name)}", "", _escape(page_run.summary(run, _))]
    for anchor, (_name, heading) in page_story.headings(_).items():
        if parts[anchor] and anchor in (sections or parts):
            lines += ["", f"## {heading}", "", *parts[anchor]]
    return "\n".join(lines) + "\n"


def _machine(run: Run) -> list[str]:
    titles = ("wall", "limit", "value", "provenance", "it limits")
    walls = [(_view.WALL_NAMES[row[0]], *row[1:]) for row in page_story.walls(run, _)]
    lines = [page_story.floor_note(_), ""]
    lines += [*table(titles, walls), "", page_story.ridge(run, _), ""] if walls else []
    if run.devices:
        lines += [*table(fleet.TITLES, fleet.cells(run)), "", fleet.note(run), ""]
    beside = [found.cells() for found in stated.side_by_side(run.machine.ceilings)]
    lines += ["### Measured beside stated", "", *table(stated.TITLES, beside), "", stated.NOTE, ""] if beside else []
    ceilings = [ceiling_cells(ceiling) for ceiling in run.machine.ceilings]
    return [*lines, "### Ceilings", "", *table(("ceiling", "value", "±", "provenance", "how"), ceilings)]


def _kernels(run: Run, measured: list[_view.Row]) -> list[str]:
    lines = [_view.NUMBERS_NOTE, ""]
    lines += [seen, ""] if (seen := _seen.run_text(run)) else []
    lines += table(*_without_empty(_POINTS, [_point_cells(row) for row in measured]))
    lines += _parts(measured) + _second_clocks(measured)
    seen = _seen.cells(measured)
    lines += ["", "### Clocks, energy and counted bytes", "", *table(_seen.TITLES, seen)] if seen else []
    lines += (
        ["", "### Findings", "", *_list(found.text for found in by_importance(run.observations))]
        if run.observations
        else []
    )
    return lines


def _walk(of: _walks.Walk) -> list[str]:
    cells = []
    for row in page_points.walk(of, _)["rows"]:
        name = f"{row['wall']} ({row['change']})" if row["change"] else row["wall"]
        cells.append((str(row["batch"]), row["time"], row["ratio"], name, row["machine"]))
    return [f"### {_escape(of.name)}", "", *table(("B", "time", "× before", "wall", "of machine"), cells), ""]


def _maps(run: Run) -> list[str]:
    """Both maps of each kernel in letters, at the length that the page shows first."""
    lines = _list(page_map.unmapped([run], _))
    found = page_map.maps([run], _)
    lines += [page_map.intro(_), ""] if found else []
    for one in found:
        length = one["lengths"][one["shown"]]
        lines += [f"### {_escape(one['title'])}", "", f"T={length['T']}; {regime.KEY}; {regime.STARS}. Modelled.", ""]
        for design in length["designs"]:
            lines += [f"{design['title']}: {design['share']}.", "", "```", *design["letters"], "```", ""]
            lines += [*_list(design["changes"]), ""]
        lines += [one["spots"], "", *_list(one["disagreements"]), ""]
    return lines


def _equal(run: Run, groups: Sequence[contrast.Equal], rows: Sequence[_view.Row]) -> list[str]:
    if not page_map.is_of_the_argument(run):
        return []
    lines = []
    for found in page_claims.equal(groups, {id(row.point): row.number for row in rows}, _):
        for group in found["groups"]:
            cells = [tuple(str(row[name]) for name in _SHOWN.values()) for row in group["rows"]]
            title = f"{group['title']}; {found['words']} (rows of {found['rows']})"
            lines += [_escape(title), "", *table(tuple(_SHOWN), cells), ""]
    return [page_claims.equal_intro(_), "", *lines] if lines else [page_claims.no_equal(_)]


def _claims(run: Run, board: page_claims.Json) -> list[str]:
    if not page_map.is_of_the_argument(run):
        return []
    found = [*board["claims"], *board["folded"]]
    cells = [
        (
            claim["id"],
            claim["word"],
            claim["claim"],
            claim["source"],
            *(dict(claim["lines"]).get(name, "") for name in _LINES),
        )
        for claim in sorted(found, key=lambda claim: int(claim["id"].lstrip("C")))
    ]
    return table(("id", "verdict", "claim", "source", *_LINES), cells) if cells else [page_claims.no_claims(_)]


_LINES = ("needed", "found", "compared", "where", "beside", "missing")


def _helps(run: Run, rows: Sequence[_view.Row]) -> list[str]:
    found = page_story.helps([run], rows)
    titles = ("#", "kernel", "implementation", "case", "measured", "estimate", "measured / estimate")
    names = [what_if.RESOURCES[name][0] for name in what_if.RATES]
    fields = ("number", "kernel", "implementation", "case", "time", "estimate", "ratio")
    cells = [(*(row[name] for name in fields), *row["shares"]) for row in found]
    note = "Per cent of the estimate (not of the measured time) that one per cent more of a resource saves (modelled)."
    texts = f"{page_story.model_error([run], rows, _)} {page_story.unexplained(found, _)}".strip()
    return [note, "", *table((*titles, *names), cells), "", texts] if found else []


def _method(run: Run, measured: list[_view.Row]) -> list[str]:
    lines = [_view.METHOD_NOTE]
    advices = [*_view.Advices(measured).all, *_seen.of_run([run])]
    if advices:
        cells = [(a.id, cause, a.advice, ", ".join(names)) for a in advices for cause, names in a.causes]
        lines += ["", "### Warnings", "", *table(("warning", "cause", "advice", "points"), cells)]
    absent = unmeasured(run.points)
    lines += ["", "### Not measured"] if absent else []
    for group in absent:
        lines += ["", f"**{group.status}**: {_escape(group.reason)}", ""]
        lines += [f"- {_escape(name)}: {_escape('; '.join(cases))}" for name, cases in group.lines]
    return [*lines, "", "### Environment", "", *table(("field", "value"), page_run.environment(run, _))]


def _list(texts: Iterable[str]) -> list[str]:
    return [f"- {_escape(text)}" for text in texts]


def _without_empty(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> tuple[tuple[str, ...], list]:
    """Leave out the optional columns that no row fills."""
    kept = [i for i, title in enumerate(titles) if title not in _OPTIONAL or any(row[i] for row in rows)]
    return tuple(titles[i] for i in kept), [tuple(row[i] for i in kept) for row in rows]


def _parts(measured: list[_view.Row]) -> list[str]:
    """The phases that were run alone, as a table of their own."""
    cells = [
        (
            row.number or f"{row.point.implementation} {_view.case_text(row.point)} {row.point.cache}",
            clean(part.name),
            _view.time_text(part),
            _view.interval_text(part),
            _view.own_wall(part),
            _view.machine_text(part),
            _view.design_text(part),
        )
        for row in measured
        for part in row.point.parts
        if part.time_s
    ]
    titles = ("point", "part, measured alone", "time", "±", "wall", "machine", "design")
    return ["", "### Parts", "", *table(titles, cells)] if cells else []


def _second_clocks(measured: list[_view.Row]) -> list[str]:
    """The device's records beside the clocks that times come from; a host's raw clock is told once for all points."""
    cells = [
        (
            row.number or f"{row.point.implementation} {_view.case_text(row.point)}",
            row.point.cache,
            _view.time_text(row.point),
            _steps.records_text(row.point),
        )
        for row in measured
        if _steps.records_text(row.point)
    ]
    titles = ("point", "cache", "time by events", "second clock")
    return ["", "### Second clocks", "", *table(titles, cells)] if cells else []


def _point_cells(row: _view.Row) -> tuple[str, ...]:
    point = row.point
    reason = f": {point.reason}" if point.reason else ""
    warned = f" ({', '.join(warning.id for warning in point.warnings)})" if point.warnings else ""
    return (
        row.number,
        point.kernel,
        point.implementation,
        _view.sizes_text(point.shape),
        "" if point.device is None else str(point.device),
        point.dtype,
        point.direction,
        point.cache,
        point.clock,
        _view.time_text(point),
        _view.interval_text(point),
        _steps.step_text(point),
        _steps.tax_text(point),
        _view.own_wall(point),
        point.attribution.wall if point.attribution else "",
        _view.machine_text(point),
        _view.design_text(point),
        _view.rate_text(point),
        point.status + reason + warned,
    )


def table(titles: tuple[str, ...], rows: list) -> list[str]:
    """The lines of a table: its titles, and rows of as many texts."""
    return [
        f"| {' | '.join(titles)} |",
        f"|{'|'.join(' --- ' for _ in titles)}|",
        *(f"| {' | '.join(map(_escape, cells))} |" for cells in rows),
    ]


def _escape(text: str) -> str:
    """Text that is neither markup nor HTML nor the end of a table cell."""
    text = clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{character}" if character in "\\`*[]|" else character for character in text)

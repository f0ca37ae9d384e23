"""What the page says, as its templates name it: findings, tables, walks, maps, layers, claims and what would help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import (
    _seen,
    _steps,
    _view,
    _walks,
    chart,
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
from .next_command import next_command
from .observe import by_importance
from .record import WALLS, Run
from .table import ceiling_cells
from .wording import Wording

# Verdicts by shape, within a circle of radius 8: a check, a cross, a half disc, a ring.
_MARKS = {
    "SUPPORTED": "M-7,0L-2,5.5L7,-5.5",
    "REFUTED": "M-6,-6L6,6M-6,6L6,-6",
    "CONDITIONAL": "M0,-7A7,7,0,0,0,0,7ZM0,-7A7,7,0,0,1,0,7",
    "INCONCLUSIVE": "M7,0A7,7,0,1,1,-7,0A7,7,0,1,1,7,0",
}

Json = dict[str, Any]


def content(runs: Sequence[Run], _: Wording) -> Json:
    """Everything that the templates fill in but the charts, the scripts and the style."""
    rows = _view.rows(runs)
    equal = page_claims.layers(runs)
    board = page_claims.board(runs, _)
    parts: Json = _points(runs, rows, _) | _story(runs, rows, equal, _) | {"board": board}
    parts |= {
        "title": page_run.title(runs),
        "question": page_story.question(parts["of_the_argument"], _),
        "headings": {anchor: heading for anchor, (_name, heading) in page_story.headings(_).items()},
        "runs": [_run(prefix, run, _) for prefix, run in zip(page_run.prefixes(runs), runs)],
        "answer": page_answer.answer(runs, rows, equal, board, _),
        "wall_names": {wall: _(_view.WALL_NAMES[wall]) for wall in WALLS},
        "walls": [_(_view.WALL_NAMES[wall]) for wall in WALLS],
        "floor_note": page_story.floor_note(_),
        "method_note": _(_view.METHOD_NOTE),
        "device_titles": [_(title) for title in fleet.TITLES],
        "stated_titles": [_(title) for title in stated.TITLES],
        "stated_note": _(stated.NOTE),
    }
    return parts | {"contents": _contents(parts, _)}


def _contents(parts: Json, _: Wording) -> list[tuple[str, str]]:
    """The sections that the page has, in its order: (anchor, name)."""
    absent = {
        "walks": not parts["walks"],
        "map": not (parts["maps"] or parts["unmapped"]),
        "contrast": not parts["of_the_argument"],
        "claims": not parts["of_the_argument"],
        "helps": not parts["helps"],
    }
    return [(anchor, name) for anchor, (name, _heading) in page_story.headings(_).items() if not absent.get(anchor)]


def _points(runs: Sequence[Run], rows: Sequence[_view.Row], _: Wording) -> Json:
    """What the tables, filters and walks hold."""
    measured = _view.measured(rows)
    headline, others = ([row for row in measured if row.point.headline is flag] for flag in (True, False))
    crowded = bool(others) and len(measured) > page_points.MOST_ROWS
    facets, advices = page_points.Facets(runs, measured), _view.Advices(measured)
    first, rest = page_points.chosen(_walks.walks(rows))
    stepped = any(row.point.step_s is not None for row in measured)
    prefixes = page_run.prefixes(runs)
    notes = [_(_view.NUMBERS_NOTE), *([_(_steps.STEP_NOTE)] if stepped else [])]
    return {
        "findings": _findings(runs),
        "description": chart.describe(runs, _),
        "filters": facets.filters(_),
        "numbers_note": " ".join(notes),
        "seen": [prefix + text for prefix, run in zip(prefixes, runs) if (text := _seen.run_text(run))],
        "stepped": stepped,
        "columns": page_points.columns(stepped, _),
        "bar": page_points.BAR,
        "sections": page_points.sections(headline, runs, facets, advices, _),
        "others": [] if crowded else page_points.sections(others, runs, facets, advices, _),
        "others_left_out": crowded,
        "headline_count": len(headline),
        "most_open": page_points.MOST_OPEN,
        "others_count": len(others),
        "most_findings": page_points.MOST_FINDINGS,
        "walks": [page_points.walk(walk, _, prefixes[walk.rows[0].run]) for walk in first],
        "other_walks": [page_points.walk(walk, _, prefixes[walk.rows[0].run]) for walk in rest],
        "warnings": [*advices.all, *_seen.of_run(runs)],
    }


def _story(runs: Sequence[Run], rows: Sequence[_view.Row], equal: Sequence[contrast.Equal], _: Wording) -> Json:
    """What the sections around the points hold."""
    numbers = {id(row.point): row.number for row in rows}
    helped = page_story.helps(runs, rows)
    return {
        "of_the_argument": any(map(page_map.is_of_the_argument, runs)),
        "maps": page_map.maps(runs, _),
        "unmapped": page_map.unmapped(runs, _),
        "map_intro": page_map.intro(_),
        "map_key": _("%(key)s; %(circles)s.", key=_(regime.KEY), circles=_(regime.CIRCLES)),
        "equal_intro": page_claims.equal_intro(_),
        "equal": page_claims.equal(equal, numbers, _),
        "metered": any(point.energy and point.energy.per_token_j for group in equal for point in group.points),
        "no_equal": page_claims.no_equal(_),
        "no_claims": page_claims.no_claims(_),
        "verdict_marks": _MARKS,
        "helps": helped,
        "model_error": page_story.model_error(runs, rows, _),
        "unexplained": page_story.unexplained(helped, _),
        "resources": [(name, _(what_if.RESOURCES[name][0])) for name in what_if.RATES],
    }


def _findings(runs: Sequence[Run]) -> list[str]:
    return [
        prefix + clean(found.text)
        for prefix, run in zip(page_run.prefixes(runs), runs)
        for found in by_importance(run.observations)
    ]


def _run(prefix: str, run: Run, _: Wording) -> Json:
    return {
        "tool": clean(run.tool),
        "letter": prefix,
        "machine": clean(run.machine.name),
        "summary": (f"{clean(run.machine.name)}, " if prefix else "") + page_run.summary(run, _),
        "devices": [[clean(cell) for cell in cells] for cells in fleet.cells(run)],
        "devices_note": _(fleet.note(run)),
        "walls": page_story.walls(run, _),
        "ridge": page_story.ridge(run, _),
        "ceilings": [ceiling_cells(ceiling, _) for ceiling in run.machine.ceilings],
        "beside": [found.cells(_) for found in stated.side_by_side(run.machine.ceilings)],
        "environment": page_run.environment(run, _),
        "unmeasured": unmeasured(run.points),
        "next_command": clean(next_command(run)),
    }

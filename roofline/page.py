"""Writes one or several runs as one HTML page that works offline and lets no name on it become code.

The page tells the runs as a story: the question and the short answer, the machine, where each kernel stands, what a
larger batch costs, which wall binds where, layers of equal size, the claims, what would help, and how it was measured.
It holds the charts (Vega-Lite, its libraries inlined and compressed), every table, and a content-security policy that
permits exactly its own scripts and style sheet, by their hashes. jinja2 and vl-convert are imported when it is written.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from . import (
    _numbers,
    _seen,
    _steps,
    _theme,
    _view,
    _walks,
    chart,
    contrast,
    depth_chart,
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
from ._view import clean
from .observe import by_importance, next_command
from .record import WALLS, Run
from .table import ceiling_cells
from .wording import SOURCE, Wording

_FOLDER = Path(__file__).parent
# What the interpreter imports from vega-util; the bundle of vl-convert does not give that module out.
_VEGA_UTIL = """
const ascending = (a, b) => (a < b || a == null) && b != null ? -1 : (a > b || b == null) && a != null ? 1 : 0;
const isString = (value) => typeof value === "string";
const DisallowedObjectProperties = new Set(["__proto__", ...Object.getOwnPropertyNames(Object.prototype)]);
"""

# Verdicts by shape, within a circle of radius 8: a check, a cross, a half disc, a ring.
_MARKS = {
    "SUPPORTED": "M-7,0L-2,5.5L7,-5.5",
    "REFUTED": "M-6,-6L6,6M-6,6L6,-6",
    "CONDITIONAL": "M0,-7A7,7,0,0,0,0,7ZM0,-7A7,7,0,0,1,0,7",
    "INCONCLUSIVE": "M7,0A7,7,0,1,1,-7,0A7,7,0,1,1,7,0",
}

Json = dict[str, Any]


def render(runs: Sequence[Run], language: str = SOURCE) -> str:
    """Return the page. Raises MissingExtra without jinja2 or vl-convert.

    Raises ValueError, with a sentence, when there is no run, and for a language that is not known.
    """
    if not runs:
        raise ValueError("a page needs at least one run, and none was given")
    wording = Wording(language)
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError as error:
        raise _view.MissingExtra("jinja2", "Writing a page") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    environment.install_gettext_callables(wording.gettext, wording.ngettext, newstyle=True)  # type: ignore[attr-defined]
    (library, script), style, drawing = _scripts(), _style(), chart.spec(runs, "css", _=wording)
    depth = depth_chart.spec(runs, "css", wording)
    content = _content(runs, wording)
    for design in (design for one in content["maps"] for length in one["lengths"] for design in length["designs"]):
        design["svg"] = Markup(design["svg"])
    return environment.get_template("page.html.j2").render(
        language=wording.tag,
        translated=language != SOURCE,
        policy=_policy((library, script), style),
        style=Markup(style),
        library=_packed(library),
        script=Markup(script),
        chart_data=Markup(_inert_json(drawing)),
        depth_data=Markup(_inert_json(depth)) if depth else "",
        depth_description=depth_chart.describe(runs, wording),
        unlabelled=_numbers.ranges(chart.unlabelled(drawing)),
        **content,
    )


def _inert_json(value: Json) -> str:
    """JSON that cannot leave its script element: no `<`, `>` or `&` is left in it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(scripts: Sequence[str], style: str) -> str:
    allowed = " ".join(_hash(script) for script in scripts)
    return f"default-src 'none'; script-src {allowed}; style-src {_hash(style)}; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@lru_cache(maxsize=1)
def _scripts() -> tuple[str, str]:
    """The Vega libraries, and what runs on them: the expression interpreter and the page's own script."""
    bundle = chart.converter().javascript_bundle()
    own = f"{_interpreter()}\n{(_FOLDER / 'page.js').read_text(encoding='utf-8')}"
    return _embeddable(bundle), _embeddable(own)


@lru_cache(maxsize=1)
def _packed(script: str) -> str:
    """A script as the page carries it: compressed, a third of its size, in letters that end no element."""
    return base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode()


def _interpreter() -> str:
    """vega-interpreter 2.3.2 (BSD-3) as a plain script: its import is replaced, its export becomes a global name."""
    module = (_FOLDER / "vega-interpreter.js").read_text(encoding="utf-8")
    module = re.sub(r"import \{[^}]*\} from 'vega-util';", lambda _: _VEGA_UTIL, module)
    module = module.replace("export { expression as expressionInterpreter };", "return expression;")
    return f"const expressionInterpreter = (() => {{\n{module}}})();"


def _embeddable(script: str) -> str:
    """A script that may stand inside a script element: browsers normalise line ends before they hash it."""
    return script.replace("\r\n", "\n").replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _style() -> str:
    def colours(theme: dict[str, str]) -> str:
        return ":root{" + "".join(f"--{name}:{value};" for name, value in theme.items()) + "}"

    dark = f"@media screen and (prefers-color-scheme: dark){{{colours(_theme.DARK)}}}"
    return f"{colours(_theme.LIGHT)}\n{dark}\n{(_FOLDER / 'page.css').read_text(encoding='utf-8')}"


def _content(runs: Sequence[Run], _: Wording) -> Json:
    rows = _view.rows(runs)
    equal = contrast.equal_layers([point for run in runs for point in run.points])
    board = page_claims.board(runs, _)
    parts: Json = _points(runs, rows, _) | _story(runs, rows, equal, _) | {"board": board}
    parts |= {
        "title": page_run.title(runs),
        "question": page_story.question(parts["of_the_argument"], _),
        "headings": {anchor: heading for anchor, (_name, heading) in page_story.headings(_).items()},
        "runs": [_run(index, run, len(runs) > 1, _) for index, run in enumerate(runs)],
        "answer": page_answer.answer(runs, rows, equal, board, _),
        "wall_names": {wall: _(_view.WALL_NAMES[wall]) for wall in WALLS},
        "walls": [_(_view.WALL_NAMES[wall]) for wall in WALLS],
        "method_note": _(_view.METHOD_NOTE),
        "unmeasured": _view.unmeasured(row.point for row in rows),
        "next_command": next_command(runs[0]),
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
    measured = [row for row in rows if row.point.status in _view.MEASURED]
    headline, others = ([row for row in measured if row.point.headline is flag] for flag in (True, False))
    facets, advices = page_points.Facets(runs, measured), _view.Advices(measured)
    first, rest = page_points.chosen(_walks.walks(rows))
    stepped = any(row.point.step_s is not None for row in measured)
    notes = [_(_view.NUMBERS_NOTE), *([_(_steps.STEP_NOTE)] if stepped else [])]
    return {
        "findings": _findings(runs),
        "description": chart.describe(runs, _),
        "filters": facets.filters(_),
        "numbers_note": " ".join(notes),
        "seen": [text for run in runs if (text := _seen.run_text(run))],
        "stepped": stepped,
        "columns": page_points.columns(stepped, _),
        "bar": page_points.BAR,
        "sections": page_points.sections(headline, runs, facets, advices, _),
        "others": page_points.sections(others, runs, facets, advices, _),
        "headline_count": len(headline),
        "most_open": page_points.MOST_OPEN,
        "others_count": len(others),
        "most_findings": page_points.MOST_FINDINGS,
        "walks": [page_points.walk(walk, _) for walk in first],
        "other_walks": [page_points.walk(walk, _) for walk in rest],
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
    prefixes = [f"{_view.run_letter(index)}: " if len(runs) > 1 else "" for index in range(len(runs))]
    return [
        prefix + clean(found.text) for prefix, run in zip(prefixes, runs) for found in by_importance(run.observations)
    ]


def _run(index: int, run: Run, several: bool, _: Wording) -> Json:
    return {
        "tool": clean(run.tool),
        "letter": f"{_view.run_letter(index)}: " if several else "",
        "machine": clean(run.machine.name),
        "summary": (f"{clean(run.machine.name)}, " if several else "") + page_run.summary(run, _),
        "devices": [[clean(cell) for cell in cells] for cells in fleet.cells(run)],
        "devices_note": _(fleet.note(run)),
        "walls": page_story.walls(run, _),
        "ridge": page_story.ridge(run, _),
        "ceilings": [ceiling_cells(ceiling, _) for ceiling in run.machine.ceilings],
        "beside": [found.cells(_) for found in stated.side_by_side(run.machine.ceilings)],
        "environment": page_run.environment(run, _),
    }

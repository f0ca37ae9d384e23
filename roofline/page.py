"""Writes one or several runs as one HTML page that works offline and lets no name on it become code.

The page holds the chart (Vega-Lite, its libraries inlined), every table, and a content-security policy that permits
exactly its own scripts and style sheet, by their hashes. jinja2 and vl-convert are imported when a page is written.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from . import _numbers, _seen, _steps, _theme, _view, _walks, chart, depth_chart, fleet, stated
from ._marks import FILL
from ._view import Row, clean
from .observe import next_command
from .record import WALLS, Run, Wall
from .table import ceiling_cells
from .units import seconds

_FOLDER = Path(__file__).parent
_BAR = 48  # pixels of a full bar in the table
_PLAIN = _theme.SYMBOLS[0]
# What the interpreter imports from vega-util; the bundle of vl-convert does not give that module out.
_VEGA_UTIL = """
const ascending = (a, b) => (a < b || a == null) && b != null ? -1 : (a > b || b == null) && a != null ? 1 : 0;
const isString = (value) => typeof value === "string";
const DisallowedObjectProperties = new Set(["__proto__", ...Object.getOwnPropertyNames(Object.prototype)]);
"""

Json = dict[str, Any]


def render(runs: Sequence[Run]) -> str:
    """Return the page. Raises MissingExtra without jinja2 or vl-convert, and ValueError when there is no run."""
    if not runs:
        raise ValueError("a page needs at least one run, and none was given")
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
    )
    scripts, style, drawing = _scripts(), _style(), chart.spec(runs, "css")
    depth = depth_chart.spec(runs, "css")
    return environment.get_template("page.html.j2").render(
        policy=_policy(scripts, style),
        style=Markup(style),
        scripts=[Markup(script) for script in scripts],
        chart_data=Markup(_inert_json(drawing)),
        depth_data=Markup(_inert_json(depth)) if depth else "",
        depth_description=depth_chart.describe(runs),
        stated=stated,
        unlabelled=_numbers.ranges(chart.unlabelled(drawing)),
        **_content(runs),
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


def _content(runs: Sequence[Run]) -> Json:
    rows = _view.rows(runs)
    measured = [row for row in rows if row.point.status in _view.MEASURED]
    headline, others = ([row for row in measured if row.point.headline is flag] for flag in (True, False))
    facets = _Facets(runs, measured)
    stepped = any(row.point.step_s is not None for row in measured)
    advices = _view.Advices(measured)
    return {
        "title": "; ".join(dict.fromkeys(clean(run.machine.name) for run in runs)),
        "runs": [_run(index, run, len(runs) > 1) for index, run in enumerate(runs)],
        "findings": _findings(runs),
        "description": chart.describe(runs),
        "filters": facets.filters(),
        "numbers_note": _view.NUMBERS_NOTE + (f" {_steps.STEP_NOTE}" if stepped else ""),
        "seen": [text for run in runs if (text := _seen.run_text(run))],
        "stepped": stepped,
        "method_note": _view.METHOD_NOTE,
        "bar": _BAR,
        "walls": [_view.WALL_NAMES[wall] for wall in WALLS],
        "sections": _sections(headline, runs, facets, advices),
        "others": _sections(others, runs, facets, advices),
        "others_count": len(others),
        "walks": [_walk(walk) for walk in _walks.walks(rows)],
        "warnings": [*advices.all, *_seen.of_run(runs)],
        "unmeasured": _view.unmeasured(row.point for row in rows),
        "next_command": next_command(runs[0]),
        "device_titles": fleet.TITLES,
    }


def _findings(runs: Sequence[Run]) -> list[str]:
    prefixes = [f"{_view.run_letter(index)}: " if len(runs) > 1 else "" for index in range(len(runs))]
    return [prefix + clean(found.text) for prefix, run in zip(prefixes, runs) for found in run.observations]


class _Facets:
    """The filters, which are the legend too: short ids for kernels, implementations, dtypes and runs."""

    def __init__(self, runs: Sequence[Run], rows: Sequence[Row]) -> None:
        points = [row.point for row in rows]
        self._kernels = _theme.symbols(point.kernel for point in points)
        self._implementations = _theme.colours(point.implementation for point in points)
        dtypes = {point.dtype for point in points}
        self._dtypes = sorted(dtypes, key=lambda name: (_view.dtype_order(name), name))
        self._runs = [clean(f"{_view.run_letter(index)}: {run.machine.name}") for index, run in enumerate(runs)]

    def of(self, row: Row) -> str:
        """The ids of a row, parted by blanks."""
        kernel, implementation = list(self._kernels), list(self._implementations)
        return (
            f"k{kernel.index(row.point.kernel)} i{implementation.index(row.point.implementation)} "
            f"d{self._dtypes.index(row.point.dtype)} r{row.run}"
        )

    def filters(self) -> list[Json]:
        """Titles and options with their swatches; a filter that could hide only everything is left out."""
        muted, ink = _theme.CSS["muted"], _theme.CSS["ink"]
        kernels = [_option("k", i, name, symbol, muted) for i, (name, symbol) in enumerate(self._kernels.items())]
        implementations = [
            _option("i", i, name, _PLAIN, _theme.CSS[colour])
            for i, (name, colour) in enumerate(self._implementations.items())
        ]
        dtypes = [_option("d", i, name, _PLAIN, ink, FILL.get(name, 1.0)) for i, name in enumerate(self._dtypes)]
        runs = [_option("r", i, name, "", "") for i, name in enumerate(self._runs)]
        titles = ("kernel", "implementation", "dtype", "run")
        groups = zip(titles, (kernels, implementations, dtypes, runs))
        return [{"title": title, "options": options} for title, options in groups if title != "run" or len(options) > 1]


def _option(letter: str, index: int, name: str, symbol: str, colour: str, fill: float = 1.0) -> Json:
    return {"facet": f"{letter}{index}", "name": clean(name), "symbol": symbol, "colour": colour, "fill": fill}


def _run(index: int, run: Run, several: bool) -> Json:
    measured = sum(point.status == "ok" for point in run.points)
    took = f" in {run.duration_s:.0f} s" if run.duration_s is not None else ""
    state = "" if run.state == "complete" else " Interrupted: what was measured is kept."
    day, _, time = run.created.partition("T")
    environment = run.environment.model_dump()
    clocks = environment.pop("clocks")
    facts = [(name.replace("_", " "), value) for name, value in environment.items() if value not in ("", None)]
    facts += [(f"clock {name}", value) for name, value in clocks.items() if value is not None]
    facts += [
        ("command", run.command),
        ("commit", run.commit or "not recorded"),
        ("tool", run.tool),
        ("seed", run.seed),
    ]
    return {
        "tool": clean(run.tool),
        "letter": f"{_view.run_letter(index)}: " if several else "",
        "machine": clean(run.machine.name),
        "summary": clean(
            (f"{run.machine.name}, " if several else "")
            + f"{day} {time[:5]} UTC, {f'suite {run.suite}, ' if run.suite else ''}"
            f"{measured} of {len(run.points)} points measured{took}.{state}"
        ),
        "devices": [[clean(cell) for cell in cells] for cells in fleet.cells(run)],
        "devices_note": fleet.note(run),
        "ceilings": [ceiling_cells(ceiling) for ceiling in run.machine.ceilings],
        "beside": [found.cells for found in stated.side_by_side(run.machine.ceilings)],
        "environment": [(clean(name), clean(str(value))) for name, value in facts],
    }


def _sections(rows: Sequence[Row], runs: Sequence[Run], facets: _Facets, advices: _view.Advices) -> list[Json]:
    result = []
    for title, members in _view.sections(rows):
        prefix = f"{_view.run_letter(members[0][0].run)}: " if len(runs) > 1 else ""
        cells = [_row(row, sizes, facets, advices) for row, sizes in members]
        result.append({"title": prefix + title, "rows": cells})
    return result


def _row(row: Row, sizes: str, facets: _Facets, advices: _view.Advices) -> Json:
    point = row.point
    floors = [getattr(point.floors_s, wall) if point.floors_s else None for wall in WALLS]
    highest = max((floor for floor in floors if floor is not None), default=None)
    share = point.best_fraction.value if point.best_fraction else None
    wall = _view.wall_text(point.bound, point.contested_with)
    best = _view.wall_text(point.best_bound)
    return {
        "number": row.number,
        "facets": facets.of(row),
        "sizes": sizes,
        "implementation": clean(point.implementation),
        "dtype": clean(point.dtype),
        "time": _view.time_text(point),
        "interval": _view.interval_text(point),
        "step": _steps.step_text(point),
        "detail": "; ".join(filter(None, (_steps.detail_text(point), _steps.records_text(point)))),
        "wall": wall if point.best_bound in (point.bound, None) else f"{wall} (best possible: {best})",
        "wall_class": point.bound or "",
        "share": None if share is None else round(_BAR * min(max(share, 0.0), 1.0), 1),
        "machine": _view.machine_text(point),
        "design": _view.design_text(point),
        "rate": _view.rate_text(point),
        "floors": [{"text": seconds(f), "highest": f is not None and f == highest} for f in floors],
        "status": _view.status_text(point),
        "marks": advices.marks(point),
        "gap": clean(". ".join(text for text in (point.reason, point.gap) if text)),
    }


def _walk(walk: _walks.Walk) -> Json:
    changes: dict[int, tuple[Wall, Wall]] = {batch: (old, new) for batch, old, new in walk.changes()}
    rows = []
    before = None
    for row in walk.rows:
        point = row.point
        batch = point.shape["B"]
        change = ""
        if batch in changes:
            old, new = changes[batch]
            change = f"{_view.wall_text(old)} gives way to {_view.wall_text(new)}"
        time = point.time_s.median if point.time_s else None
        rows.append(
            {
                "batch": batch,
                "time": _view.time_text(point),
                "ratio": f"{time / before:.2f}" if time and before else "",
                "wall": _view.wall_text(point.bound, point.contested_with),
                "machine": _view.machine_text(point),
                "change": change,
            }
        )
        before = time
    return {"name": walk.name, "rows": rows}

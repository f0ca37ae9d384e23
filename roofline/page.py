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

from . import _numbers, _theme, _view, chart, depth_chart
from .page_content import content
from .record import Run
from .wording import SOURCE, Wording

_FOLDER = Path(__file__).parent
# What the interpreter imports from vega-util; the bundle of vl-convert does not give that module out.
_VEGA_UTIL = """
const ascending = (a, b) => (a < b || a == null) && b != null ? -1 : (a > b || b == null) && a != null ? 1 : 0;
const isString = (value) => typeof value === "string";
const DisallowedObjectProperties = new Set(["__proto__", ...Object.getOwnPropertyNames(Object.prototype)]);
"""

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
    told = content(runs, wording)
    for design in (design for one in told["maps"] for length in one["lengths"] for design in length["designs"]):
        design["svg"] = Markup(design["svg"])
    return environment.get_template("page.html.j2").render(
        language=wording.tag,
        translated=language != SOURCE,
        policy=_policy((library, script), style),
        style=Markup(style),
        library=_packed(library),
        script=Markup(script),
        chart_data=_packed(json.dumps(drawing, allow_nan=False)),
        depth_data=_packed(json.dumps(depth, allow_nan=False)) if depth else "",
        depth_description=depth_chart.describe(runs, wording),
        unlabelled=_numbers.ranges(chart.unlabelled(drawing)),
        **told,
    )


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


@lru_cache(maxsize=4)
def _packed(text: str) -> str:
    """A script or a drawing as the page carries it: compressed, and in letters that end no element."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


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

"""The fixed texts of a page: what its templates and its code look up, so that a translation can be held complete."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import get_args

import jinja2
import samples

from seqroof.roofline import _steps, _view, claims, contrast, fleet, page_claims, page_points, regime, stated, wording
from seqroof.roofline._marks import TOOLTIP
from seqroof.roofline.attribution import SEEN_WORDS
from seqroof.roofline.claim_verdict import WORDS
from seqroof.roofline.machine import Provenance
from seqroof.roofline.walls import WALLS_ON_A_MAP
from seqroof.roofline.what_if import RATES, RESOURCES

FOLDER = Path(wording.__file__).parent
TEMPLATES = sorted(FOLDER.glob("page*.html.j2"))
_DRAWN = ("regime.py", "chart.py", "depth_chart.py", "_layout.py", "_marks.py")
MODULES = [*sorted(FOLDER.glob("page*.py")), *(FOLDER / name for name in _DRAWN)]


def environment() -> jinja2.Environment:
    """An environment that reads the templates as the page does."""
    return jinja2.Environment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.i18n"])


def of_templates() -> set[str]:
    """The texts that the templates look up."""
    reader = environment()
    found = set()
    for path in TEMPLATES:
        texts = reader.extract_translations(path.read_text(encoding="utf-8"))  # type: ignore[attr-defined]
        # A call with values is a tuple: its text, and None for every value.
        found |= {text if isinstance(text, str) else text[0] for _line, _function, text in texts}
    return found


def of_code() -> set[str]:
    """The texts that stand as they are in calls of `_` in the code that makes sentences of the page."""
    found = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_"):
                continue
            if node.args and isinstance(node.args[0], ast.Constant):
                found.add(str(node.args[0].value))
    return found


def of_tables() -> set[str]:
    """The texts that stand in tables and constants of the code, which a page looks up by name."""
    words = (_view.WALL_NAMES, WALLS_ON_A_MAP, SEEN_WORDS, regime.TITLES, contrast.NAMES)
    words += (page_claims.CLASS_WORDS, page_claims.DIRECTIONS)
    found = {text for table in words for text in table.values()}
    found |= {
        *WORDS,
        *get_args(Provenance),
        *TOOLTIP,
        *stated.TITLES,
        *fleet.TITLES,
        regime.KEY,
        regime.CIRCLES_KEY,
        stated.NOTE,
    }
    found |= {_view.NUMBERS_NOTE, _view.METHOD_NOTE, _steps.STEP_NOTE, fleet.note(samples.run("cpu"))}
    found |= {title for title, _numeric in page_points.columns(True, wording.ENGLISH)}
    found |= {RESOURCES[name][0] for name in RATES}
    return found | {text for claim in claims.all_claims() for text in (claim.hypothesis, claim.test, claim.source)}


def known() -> set[str]:
    """Every fixed text of a page: what a translation has to hold."""
    return of_templates() | of_code() | of_tables()

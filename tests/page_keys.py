"""The fixed texts of a page: what its templates and its code look up, so that a translation can be held complete."""

from __future__ import annotations

import ast
from pathlib import Path

import jinja2

from seqroof.roofline import wording

FOLDER = Path(wording.__file__).parent
TEMPLATES = sorted(FOLDER.glob("page*.html.j2"))
MODULES = [*sorted(FOLDER.glob("page*.py")), FOLDER / "regime.py"]


def environment() -> jinja2.Environment:
    """An environment that reads the templates as the page does."""
    return jinja2.Environment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.i18n"])


def of_templates() -> set[str]:
    """The texts that the templates look up."""
    reader = environment()
    found = set()
    for path in TEMPLATES:
        texts = reader.extract_translations(path.read_text(encoding="utf-8"))  # type: ignore[attr-defined]
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

"""Writes the generated parts of the pages under `docs/`, each between its two marks; a test keeps them as written.

    python -m seqroof.scripts.documents           # after a change of a claim, or of a run under results/

What holds numbers is rendered from the recorded runs, so that no page says what no run shows.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from seqroof.roofline import claims_page, generations
from seqroof.roofline.catalogue import machines
from seqroof.roofline.markdown import markdown, table
from seqroof.roofline.store import load

ROOT = Path(__file__).resolve().parents[1]
# The sections of a run's report that the argument needs; how each was measured stands in the report itself.
ARGUMENT = ("question", "claims", "contrast", "map")


def argument() -> str:
    """What the recorded runs of the claims' suite say, newest first."""
    recorded = [(load(path), path.parent.relative_to(ROOT)) for path in (ROOT / "results").glob("*/claims/run.json")]
    parts = []
    for run, folder in sorted(recorded, key=lambda entry: entry[0].created, reverse=True):
        made = f"`{folder}`, {run.created[:10]}, commit `{run.commit[:12]}`: `seqroof report {folder}` shows all of it."
        below = re.sub(r"^(#+ )", r"#\1", markdown(run, ARGUMENT), flags=re.MULTILINE)
        parts.append(f"## {run.machine.name}\n\nRecorded in {made}\n{below}")
    return "\n".join(parts).rstrip() or "No run of the claims' suite has been recorded yet."


def growth() -> str:
    """How fast rates, bandwidths and ridge points of datacentre parts grew, by the catalogue."""
    cells = [generations.growth_cells(*entry) for entry in generations.growths(machines().values())]
    return "\n".join(table(("per two years", "factor", "95 % interval"), cells))


# Page and mark -> what stands between the marks.
PARTS: dict[tuple[str, str], Callable[[], str]] = {
    ("docs/claims.md", "claims"): claims_page.table,
    ("docs/argument.md", "runs"): argument,
    ("docs/argument.md", "growth"): growth,
}


def written(page: str, name: str, text: str) -> str:
    """The page with the text between the marks of that name; raises `ValueError` where they are missing."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"the page needs the lines {begin} and {end}; what is generated is written between them")
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def pages() -> dict[Path, str]:
    """Every page with generated parts, as it should read."""
    found: dict[Path, str] = {}
    for (name, mark), made in PARTS.items():
        path = ROOT / name
        text = found.get(path) or path.read_text(encoding="utf-8")
        found[path] = written(text, mark, made())
    return found


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")

"""Writes the table of claims into `docs/claims.md`, between its two marks; a test keeps them equal."""

from __future__ import annotations

from pathlib import Path

from .claims import all_claims

PAGE = Path(__file__).resolve().parents[1] / "docs" / "claims.md"
BEGIN, END = "<!-- claims: begin -->", "<!-- claims: end -->"
_CPU = {"yes": "all", "time": "seconds; joules need a meter"}


def table() -> str:
    """The claims as a table in Markdown, with every threshold and its reason below."""
    lines = ["| id | claim | whose | what has to hold | on a CPU |", "| --- | --- | --- | --- | --- |"]
    for claim in all_claims():
        cells = (claim.id, claim.hypothesis, claim.source, claim.condition, _CPU[claim.cpu])
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Why these thresholds:", "", "| id | threshold | because |", "| --- | --- | --- |"]
    for claim in all_claims():
        for name, threshold in claim.thresholds.items():
            lines.append(f"| {claim.id} | {name} = {threshold.value:g} | {threshold.reason} |")
    return "\n".join(lines)


def written(page: str) -> str:
    """The page with the table between its marks; raises `ValueError` where the marks are missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page needs the lines {BEGIN} and {END}; the table is written between them")
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

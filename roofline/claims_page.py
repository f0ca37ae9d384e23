"""The claims as a table in Markdown, for the page of the method; `scripts.documents` writes it there."""

from __future__ import annotations

from .claims import all_claims

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

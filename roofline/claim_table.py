"""Prints verdicts as blocks of lines that fit any terminal; colour repeats what the words say."""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Any

from ._view import clean
from .claim_board import Board, rows

if TYPE_CHECKING:
    from rich.console import Console

STYLES = {"SUPPORTED": "green", "REFUTED": "red", "CONDITIONAL": "yellow", "INCONCLUSIVE": "dim"}
# Longer lines are hard to read, however wide the terminal.
_WIDEST = 120
_ID, _VERDICT = 5, 14  # characters of the two columns on the left
_LINES = {
    "condition": "needed: ",
    "rows": "compared: ",
    "numbers": "found: ",
    "region": "",
    "beside": "beside: ",
    "missing": "missing: ",
    "rests": "rests on ",
}


def render(found: Board, console: Console) -> None:
    """Print the verdicts machine after machine, each with its numbers, region, second line and what is missing."""
    for group in _machines(rows(found)):
        usual = Counter((row["machine"], row["run"]) for row in group).most_common(1)[0][0]
        _say(console, _rests_on(*usual), "bold")
        for row in group:
            own = (row["machine"], row["run"])
            _block(console, row | {"rests": "" if own == usual else _rests_on(*own)})
        console.print()
    counts = {word: sum(entry.verdict == word for entry in found.claims) for word in STYLES}
    for line in textwrap.wrap(", ".join(f"{count} {word}" for word, count in counts.items() if count), console.width):
        _say(console, line, "")


def _machines(entries: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The rows of every machine: each of them begins with the first claim."""
    starts = [index for index, row in enumerate(entries) if row["id"] == entries[0]["id"]]
    return [entries[start:end] for start, end in zip(starts, [*starts[1:], len(entries)])]


def _rests_on(machine: str, run: str) -> str:
    if not machine:
        return "Without a run"
    return clean(machine) + (f", run {clean(run)}" if run else "")


def _block(console: Console, row: dict[str, Any]) -> None:
    width = min(console.width, _WIDEST)
    room = max(20, width - _ID - _VERDICT)
    for index, line in enumerate(textwrap.wrap(clean(row["claim"]), room)):
        left = f"{row['id']:<{_ID}}" if index == 0 else " " * _ID
        word = row["verdict"] if index == 0 else ""
        console.print(left, end="", markup=False)
        console.print(f"{word:<{_VERDICT}}", style=STYLES.get(word, ""), end="", markup=False)
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for name, prefix in _LINES.items():
        for line in textwrap.wrap(prefix + clean(row[name]), room) if row[name] else ():
            _say(console, " " * (_ID + _VERDICT) + line, "dim")


def _say(console: Console, text: str, style: str) -> None:
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

"""Lines on a terminal of any width: prose wrapped at words, rows of a table, and only what the encoding can print.

rich is imported when something is printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import _view

if TYPE_CHECKING:
    from rich.console import Console


def encodable(cells: Sequence[str], console: Console) -> list[str]:
    """The cells with what the console cannot print replaced."""
    return [_view.encodable(cell, console.encoding) for cell in cells]


def width_of(text: str) -> int:
    """Columns that a text takes on a terminal."""
    from rich.cells import cell_len

    return cell_len(text)


def title(console: Console, text: str) -> None:
    """Print a heading below an empty line."""
    console.print()
    say(console, text, "bold")


def say(console: Console, text: str, style: str = "", indent: int = 0) -> None:
    """Print prose, wrapped at words, its later lines indented below the first."""
    from rich.text import Text

    text = _view.encodable(text, console.encoding)
    for index, line in enumerate(Text(text, style).wrap(console, max(console.width - 2 * indent, 20))):
        line.rstrip()
        console.print(Text(" " * (indent if index == 0 else 2 * indent)) + line, soft_wrap=True)


def row(
    console: Console,
    cells: Sequence[str],
    widths: Sequence[int],
    right: Sequence[bool],
    gap: int,
    styles: dict[int, str] | None = None,
    style: str = "",
    indent: int = 0,
) -> None:
    """Print one row; columns of width 0 are left out, and only the last column may be cut."""
    from rich.text import Text

    line = Text(" " * indent, style=style)
    for index, (cell, width) in enumerate(zip(cells, widths)):
        if width:
            blanks = " " * (width - width_of(cell))
            line.append(blanks + cell if right[index] else cell + blanks, style=(styles or {}).get(index, ""))
            line.append(" " * gap)
    line.rstrip()
    whole = _view.encodable("…", console.encoding) == "…"
    console.print(line, no_wrap=True, overflow="ellipsis" if whole else "crop")

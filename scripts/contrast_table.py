"""The table of `seqroof contrast`: which columns a terminal has room for, and their cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.table import Table

from seqroof.roofline import _view
from seqroof.roofline.contrast import Row
from seqroof.roofline.record import Fraction
from seqroof.roofline.units import percent, seconds, si


@dataclass(frozen=True)
class Column:
    """A column of the table. spare : left out where the terminal has no room for it."""

    title: str
    spare: bool
    cell: Callable[[Row], str]

    def width(self, rows: Sequence[Row]) -> int:
        """Characters that it needs."""
        return max(map(len, (self.title, *map(self.cell, rows))))


def _least(row: Row) -> str:
    return seconds(row.least_s / row.work.tokens) if row.least_s and row.work.tokens else "-"


COLUMNS = (
    Column("layer", False, lambda row: row.layer),
    Column("parameters", True, lambda row: si(row.work.parameters, "").strip()),
    Column("FLOP", True, lambda row: si(row.work.flops, "").strip()),
    Column("bytes", True, lambda row: si(row.work.compulsory_bytes, "B")),
    Column("peak", True, lambda row: _bytes(row.point.peak_memory_bytes if row.point else None)),
    Column("saved", True, lambda row: si(row.work.saved_bytes, "B")),
    Column("depth", False, lambda row: str(row.work.depth)),
    Column("least", False, _least),
    Column("wall", False, lambda row: _view.WALL_NAMES[row.bound] if row.bound else "-"),
    Column("per token", False, lambda row: seconds(row.token_s) if row.token_s else "-"),
    Column("tokens/s", False, lambda row: si(row.tokens_per_s, "").strip() if row.tokens_per_s else "-"),
    Column("machine", False, lambda row: _share(row.fractions[0])),
    Column("design", False, lambda row: _share(row.fractions[1])),
    Column("roof", True, lambda row: _share(row.fractions[2])),
    Column("energy", True, lambda row: si(row.joules_per_token, "J") if row.joules_per_token else "-"),
)


def layout(rows: Sequence[Row], room: int) -> tuple[dict[Column, int], int]:
    """The columns of which something is known with their widths, the first spare ones left out until all fit.

    Returns the blanks between them too: one where two do not fit.
    """
    widths = {column: column.width(rows) for column in COLUMNS if any(column.cell(row) != "-" for row in rows)}
    for column in [column for column in widths if column.spare]:
        if _needed(widths, 2) > room:
            del widths[column]
    return widths, 2 if _needed(widths, 2) <= room else 1


def _needed(widths: dict[Column, int], gap: int) -> int:
    return sum(widths.values()) + gap * (len(widths) - 1)


def table(rows: Sequence[Row], widths: dict[Column, int], gap: int) -> Table:
    """One row for each layer, in columns that all tables share."""
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    for column, width in widths.items():
        left = column.title in ("layer", "wall")
        table.add_column(column.title, justify="left" if left else "right", no_wrap=True, min_width=width)
    for row in rows:
        table.add_row(*(column.cell(row) for column in widths))
    return table


def _bytes(value: int | None) -> str:
    return si(value, "B") if value else "-"


def _share(value: Fraction | None) -> str:
    return percent(value.value) if value else "-"

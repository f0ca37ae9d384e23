"""The points on a page: filters that are the legend too, tables by case, and the walks up the roof."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import _steps, _theme, _view, _walks, page_run
from ._marks import FILL
from ._view import Row, clean
from .claims import USUAL
from .record import WALLS, Run, Wall
from .regime import MAPPED
from .units import seconds
from .wording import Wording

BAR = 48  # pixels of a full bar in the table
# A longer table is folded, so that what follows it is found.
MOST_OPEN = 40
# A row takes a kilobyte: with more than so many, those that are no headlines stay in the record, so that a page of the
# standard suite keeps below 1.5 MB.
MOST_ROWS = 600
MOST_FINDINGS = 6
MOST_WALKS = 6  # two rows of three on a wide window
_PLAIN = _theme.SYMBOLS[0]

Json = dict[str, Any]


class Facets:
    """The filters, which are the legend too: short ids for kernels, implementations, dtypes and runs."""

    def __init__(self, runs: Sequence[Run], rows: Sequence[Row]) -> None:
        points = [row.point for row in rows]
        self._kernels = _theme.symbols(point.kernel for point in points)
        self._implementations = _theme.colours(point.implementation for point in points)
        dtypes = {point.dtype for point in points}
        self._dtypes = sorted(dtypes, key=lambda name: (_view.dtype_order(name), name))
        self._runs = page_run.labels(runs)

    def of(self, row: Row) -> str:
        """The ids of a row, parted by blanks."""
        kernel, implementation = list(self._kernels), list(self._implementations)
        return (
            f"k{kernel.index(row.point.kernel)} i{implementation.index(row.point.implementation)} "
            f"d{self._dtypes.index(row.point.dtype)} r{row.run}"
        )

    def filters(self, _: Wording) -> list[Json]:
        """Titles and options with their swatches; a filter that could hide only everything is left out."""
        muted, ink = _theme.CSS["muted"], _theme.CSS["ink"]
        kernels = [_option("k", i, name, symbol, muted) for i, (name, symbol) in enumerate(self._kernels.items())]
        implementations = [
            _option("i", i, name, _PLAIN, _theme.CSS[colour])
            for i, (name, colour) in enumerate(self._implementations.items())
        ]
        dtypes = [_option("d", i, name, _PLAIN, ink, FILL.get(name, 1.0)) for i, name in enumerate(self._dtypes)]
        runs = [_option("r", i, name, "", "") for i, name in enumerate(self._runs)]
        titles = (_("kernel"), _("implementation"), _("dtype"), _("run"))
        groups = zip(titles, (kernels, implementations, dtypes, runs))
        return [
            {"title": title, "options": options} for title, options in groups if options is not runs or len(runs) > 1
        ]


def _option(letter: str, index: int, name: str, symbol: str, colour: str, fill: float = 1.0) -> Json:
    return {"facet": f"{letter}{index}", "name": clean(name), "symbol": symbol, "colour": colour, "fill": fill}


def columns(stepped: bool, _: Wording) -> list[tuple[str, bool]]:
    """The titles of the table of points before its floors: (title, whether it is of numbers)."""
    numeric = ("#", "time", "±", "per step", "design", "rate")
    names = ("#", "sizes", "implementation", "dtype", "time", "±", "status", "per step")
    names += ("wall", "machine", "design", "rate")
    return [(_(name), name in numeric) for name in names if stepped or name != "per step"]


def wall_text(_: Wording, wall: Wall | None, contested_with: Wall | None = None) -> str:
    """A wall in the language of the page, with the one that contests it."""
    return _view.wall_text(wall, contested_with, _)


def sections(
    rows: Sequence[Row], runs: Sequence[Run], facets: Facets, advices: _view.Advices, _: Wording
) -> list[Json]:
    """The tables of points: a heading with the sizes that its rows have in common, and their cells."""
    result = []
    for title, members in _view.sections(rows):
        prefix = page_run.prefixes(runs)[members[0][0].run]
        cells = [_row(row, sizes, facets, advices, _) for row, sizes in members]
        result.append({"title": prefix + title, "rows": cells})
    return result


def _row(row: Row, sizes: str, facets: Facets, advices: _view.Advices, _: Wording) -> Json:
    point = row.point
    floors = [getattr(point.floors_s, wall) if point.floors_s else None for wall in WALLS]
    highest = max((floor for floor in floors if floor is not None), default=None)
    share = point.best_fraction.value if point.best_fraction else None
    wall = _view.own_wall(point, _)
    best = _("best possible: %(wall)s", wall=wall_text(_, point.best_bound))
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
        "wall": wall if point.best_bound in (point.bound, None) else f"{wall} ({best})",
        "wall_class": point.bound or "",
        "share": None if share is None else round(BAR * min(max(share, 0.0), 1.0), 1),
        "machine": _view.machine_text(point),
        "design": _view.design_text(point),
        "rate": _view.rate_text(point),
        "floors": [{"text": seconds(f), "highest": f is not None and f == highest} for f in floors],
        "status": _view.status_text(point),
        "marks": advices.marks(point),
        "gap": clean(". ".join(text for text in (point.reason, point.gap) if text)),
    }


def chosen(walks: Sequence[_walks.Walk]) -> tuple[list[_walks.Walk], list[_walks.Walk]]:
    """The sweeps to show at once, those of recurrences and of many batches first, and the others."""
    recurrent = (*MAPPED, "lstm_step")
    order = sorted(walks, key=lambda walk: (walk.rows[0].point.kernel not in recurrent, -len(walk.rows)))
    return order[:MOST_WALKS], order[MOST_WALKS:]


def short_sizes(shape: dict[str, int]) -> str:
    """The sizes of a case without those that are as they usually are."""
    return _view.sizes_text({name: size for name, size in shape.items() if USUAL.get(name) != size})


def walk(of: _walks.Walk, _: Wording, prefix: str = "") -> Json:
    """A batch sweep as rows, each with what it costs more than the one before and where walls change.

    prefix : of its run, in front of its name where a page has several.
    """
    changes: dict[int, tuple[Wall, Wall]] = {batch: (old, new) for batch, old, new in of.changes()}
    rows = []
    before = None
    for row in of.rows:
        point = row.point
        batch = point.shape["B"]
        change = ""
        if batch in changes:
            old, new = changes[batch]
            change = _("model: %(old)s gives way to %(new)s", old=wall_text(_, old), new=wall_text(_, new))
        time = point.time_s.median if point.time_s else None
        rows.append(
            {
                "batch": batch,
                "time": _view.time_text(point),
                "ratio": f"{time / before:.2f}" if time and before else "",
                "wall": _view.own_wall(point, _),
                "machine": _view.machine_text(point),
                "change": change,
            }
        )
        before = time
    return {"name": prefix + of.name, "rows": rows}

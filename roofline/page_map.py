"""The regime map on a page: both designs at every length that the run stored, drawn as SVG, a slider to choose one.

Every length is in the page, so that the slider needs no data and a reader without JavaScript sees one of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from . import claims, contrast, regime
from ._view import clean
from .page_run import prefixes
from .record import Grid, Run
from .regime import Cell, Spot
from .wording import Wording

# The length that is shown first and without JavaScript: that of the walks of the quick suite.
SHOWN = 128
# Pixels of a cell and of the room for the sizes beside and below: twelve batches have room on a telephone.
WIDE, HIGH, LEFT, BELOW = 26, 22, 46, 38
MOST_LISTED = 12
_NEAR = {True: "", False: ' class="near"'}

Json = dict[str, Any]


def argument_kernels() -> set[str]:
    """The kernels that the argument is about: those of its claims, and complete layers."""
    return {case.kernel for claim in claims.all_claims() for case in claim.cases} | set(contrast.NAMES)


def is_of_the_argument(run: Run) -> bool:
    """Whether a run has a point of such a kernel, so that map, contrast and claims mean something on its page."""
    known = argument_kernels()
    return any(point.kernel in known for point in run.points)


def intro(_: Wording) -> str:
    """What a map shows."""
    return _(
        "Each field is a batch B and a hidden size H, with as many inputs. Modelled, from the walls of this machine, "
        "with cold caches, for one layer forward: first the design that the argument describes, then the best possible "
        "one."
    )


def maps(runs: Sequence[Run], _: Wording) -> list[Json]:
    """The maps of all runs: one for every kernel and dtype that is stored."""
    found = []
    for prefix, run in zip(prefixes(runs), runs):
        names = list(dict.fromkeys((grid.kernel, grid.dtype) for grid in run.grids))
        for kernel, dtype in names:
            grids = regime.kept(run, kernel, dtype)
            if grids and is_of_the_argument(run):
                found.append(_map(prefix, run, grids, _) | {"id": f"map{len(found)}"})
    return found


def unmapped(runs: Sequence[Run], _: Wording) -> list[str]:
    """A sentence for each run that should have a map and has none."""
    return [
        _(
            "%(run)sThis run holds no map (older version, or interrupted). What shows it: %(command)s",
            run=prefix,
            command="seqroof map lstm --on RUN",
        )
        for prefix, run in zip(prefixes(runs), runs)
        if not run.grids and is_of_the_argument(run)
    ]


def _map(letter: str, run: Run, grids: tuple[Grid, Grid], _: Wording) -> Json:
    kernel, dtype = grids[0].kernel, grids[0].dtype
    spots = regime.spots(run.points, kernel, dtype)
    lengths = [int(steps) for steps in grids[0].axes["T"]]
    shown = min(lengths, key=lambda steps: abs(steps - SHOWN))
    listed = regime.disagreements(spots, _)
    return {
        "title": clean(
            _(
                "%(letter)s%(kernel)s %(dtype)s on %(machine)s",
                letter=letter,
                kernel=kernel,
                dtype=dtype,
                machine=run.machine.name,
            )
        ),
        "spots": regime.agreement(spots, _) if spots else _("This run has no point that lies on this map."),
        "disagreements": [clean(text) for text in listed[:MOST_LISTED]],
        "more": max(0, len(listed) - MOST_LISTED),
        "shown": lengths.index(shown),
        "lengths": [
            {"T": steps, "designs": [_design(grid, steps, spots, _) for grid in grids], "shown": steps == shown}
            for steps in lengths
        ],
    }


def _design(grid: Grid, steps: int, spots: Sequence[Spot], _: Wording) -> Json:
    marked = regime.places(grid, spots, steps)
    return {
        "title": _(regime.TITLES[grid.design]),
        "share": regime.share_in_words(grid, steps, _),
        "changes": regime.changes(grid, steps, _),
        "letters": regime.drawn(grid, steps, spots),
        "svg": svg(grid, steps, marked),
        "box": f"0 0 {LEFT + WIDE * len(grid.axes['B']) + 4} {HIGH * len(grid.axes['H']) + BELOW}",
    }


def svg(grid: Grid, steps: int, marked: dict[tuple[int, int], bool]) -> str:
    """One map without its frame: bands of equal walls, a line of letters for each hidden size, circles at points.

    marked : the places of `regime.places`; the circle of one that is only near to a point is dashed.

    Holds numbers and fixed letters only. The hidden size grows upwards, the batch to the right.
    """
    batches, sizes = ([int(size) for size in grid.axes[name]] for name in ("B", "H"))
    height = HIGH * len(sizes)
    parts = []
    rows = itertools.groupby((cell for cell in regime.cells(grid) if steps == cell.T), key=lambda cell: cell.H)
    for line, (H, row) in enumerate(rows):
        top = height - HIGH * (line + 1)
        cells = list(row)
        parts += [_band(cells, first, count, top) for first, count in _bands(cells)]
        across = " ".join(str(LEFT + WIDE * i + WIDE // 2) for i in range(len(cells)))
        middle = top + HIGH // 2 + 4
        parts.append(f'<text class="n" x="{LEFT - 7}" y="{middle}">{H}</text>')
        parts.append(f'<text x="{across}" y="{middle}">{"".join(cell.letter for cell in cells)}</text>')
        parts += [
            f'<circle{_NEAR[marked[H, B]]} cx="{LEFT + WIDE * i + WIDE // 2}" cy="{top + HIGH // 2}" r="9.5"/>'
            for i, B in enumerate(batches)
            if (H, B) in marked
        ]
    for i, B in enumerate(batches):
        parts.append(f'<text x="{LEFT + WIDE * i + WIDE // 2}" y="{height + 16}">{_short(B)}</text>')
    parts.append(f'<text x="{LEFT + WIDE * len(batches) // 2}" y="{height + 33}">B</text>')
    parts.append(f'<text class="n" x="{LEFT - 7}" y="{height + 16}">H</text>')
    return "".join(parts)


def _bands(cells: Sequence[Cell]) -> list[tuple[int, int]]:
    """Neighbours with the same wall: the first of them and how many."""
    found, first = [], 0
    for _, group in itertools.groupby(cells, key=lambda cell: cell.wall):
        count = len(list(group))
        found.append((first, count))
        first += count
    return found


def _band(cells: Sequence[Cell], first: int, count: int, top: int) -> str:
    wall = cells[first].wall or "unknown"
    return f'<rect class="{wall}" x="{LEFT + WIDE * first}" y="{top}" width="{WIDE * count}" height="{HIGH}"/>'


def _short(size: int) -> str:
    """A batch in at most four characters: 2048 as 2k."""
    return f"{size // 1024}k" if size >= 1024 and size % 1024 == 0 else str(size)

"""The regime map: which wall binds a recurrence at every batch, hidden size and length, and where one gives way.

The argument that this tool puts to the test says that an LSTM waits for bandwidth. The map says where the model agrees:
for the design that the argument describes, which reads its weights again at every step, and for the best possible one.
Modelled, except for the measured points on it. Pure functions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from . import claims
from .attribution import SEEN_WORDS, agrees, why_not
from .experiments import SeenWall
from .floors import CONTEST_SHARE, FloorSet, best_floors, own_floors
from .machine import Machine
from .record import WALLS, Grid, Point, Run, Wall
from .units import percent
from .walls import WALL_NAMES, WALLS_ON_A_MAP, holds
from .wording import ENGLISH, Wording
from .work import Work

# Kernels with a batch, steps and one hidden size: those whose weights are what the argument is about.
MAPPED = ("lstm", "gru", "rnn")

BATCHES = tuple(2**n for n in range(12))
HIDDEN = tuple(2**n for n in range(5, 14))
STEPS = (1, 16, 128, 1024)
# One letter for each wall, for terminals and readers without colours; a small letter where two walls contest.
LETTERS: dict[Wall, str] = {"compute": "C", "dram": "D", "cache": "L", "serial": "S"}
UNKNOWN = "?"
TITLES = {"streamed": "weights read again at every step", "best": "the best possible design"}
# Digits of a stored floor: a wall contests another within 10 %, and a picture shows less.
DIGITS = 3
# What stands beside a letter: where nothing was measured, nearest to a measured point, and at one.
_MARKS = {None: " ", False: "+", True: "*"}
STARS = "* measured, with warm caches, by a design of its own; + nearest to such a point of the same length"
CIRCLES = (
    "circle: measured, with warm caches, by a design of its own; dashed: nearest to such a point of the same length"
)
KEY = "C compute, D DRAM, L last cache, S the chain of steps; a small letter: another wall is within 10 %"

WorkOf = Callable[[int, int, int], Work]


def work_of(kernel: Any, dtype: str) -> WorkOf:
    """The work of a loaded kernel at (B, H, T): forward, with inputs as wide as the state."""
    return lambda B, H, T: kernel.module.work(kernel.shape(B=B, T=T, I=H, H=H), dtype, "forward")


def main_dtype(machine: Machine) -> str:
    """The dtype that counts first on a machine: fp32 on a processor, bf16 elsewhere."""
    return claims.dtypes("cpu" if machine.device == "cpu" else "cuda")[0]


def stored(grid: Grid) -> Grid:
    """A map as a record keeps it, with rounded floors."""

    def rounded(value: float | None) -> float | None:
        return None if value is None else float(f"{value:.{DIGITS - 1}e}")

    return grid.model_copy(update={"floors_s": {wall: tuple(map(rounded, of)) for wall, of in grid.floors_s.items()}})


def kept(run: Run, kernel: str, dtype: str) -> tuple[Grid, Grid] | None:
    """Both maps of a kernel from a record, the streamed design's first; None where it does not hold them."""
    found = {grid.design: grid for grid in run.grids if (grid.kernel, grid.dtype) == (kernel, dtype)}
    return (found["streamed"], found["best"]) if {"streamed", "best"} <= set(found) else None


def grids(kernel: str, work_of: WorkOf, dtype: str, machine: Machine) -> tuple[Grid, Grid]:
    """Floors of the streamed and of the best design over batch, hidden size and steps; cold, forward.

    work_of : the work at (B, H, T), with inputs as wide as the state.
    """
    axes = {"T": STEPS, "H": HIDDEN, "B": BATCHES}
    works = [work_of(B, H, T) for T, H, B in itertools.product(*axes.values())]
    streamed = [own_floors(work, dtype, "reread", "launch", machine, "cold") for work in works]
    best = [best_floors(work, dtype, machine, "cold") for work in works]

    def made(design: str, sets: list[FloorSet]) -> Grid:
        floors = {wall: tuple(getattr(entry.floors, wall) for entry in sets) for wall in WALLS}
        return Grid.model_validate(
            {"kernel": kernel, "dtype": dtype, "design": design, "axes": axes, "floors_s": floors}
        )

    return made("streamed", streamed), made("best", best)


@dataclass(frozen=True)
class Cell:
    """What binds at one place of a map, of the walls that are known; modelled."""

    B: int
    H: int
    T: int
    wall: Wall | None
    contested: bool

    @property
    def letter(self) -> str:
        """The wall in one letter."""
        if self.wall is None:
            return UNKNOWN
        return LETTERS[self.wall].lower() if self.contested else LETTERS[self.wall]


def cells(grid: Grid) -> list[Cell]:
    """All places of a map, in the order of its axes T, H, B."""
    found = []
    for index, (T, H, B) in enumerate(itertools.product(*(grid.axes[name] for name in ("T", "H", "B")))):
        known: dict[Wall, float] = {wall: value for wall in WALLS if (value := grid.floors_s[wall][index])}
        wall = max(known, key=known.__getitem__, default=None)
        rest = max((value for other, value in known.items() if other != wall), default=0.0)
        contested = wall is not None and rest >= CONTEST_SHARE * known[wall]
        found.append(Cell(int(B), int(H), int(T), wall, contested))
    return found


def unknown(grid: Grid) -> list[Wall]:
    """The walls of which this machine's catalogue row says nothing, so that the map cannot show them."""
    return [wall for wall in WALLS if all(value is None for value in grid.floors_s[wall])]


@dataclass(frozen=True)
class Boundary:
    """Along one hidden size, from small to large batches: the walls in order, each with its first batch."""

    H: int
    T: int
    walls: tuple[tuple[Wall, int], ...]

    def text(self, _: Wording = ENGLISH) -> str:
        """The walls as a sentence part: "DRAM up to B=128, then compute"."""
        names = [_(WALLS_ON_A_MAP[wall]) for wall, first in self.walls]
        lasts = [first // 2 for wall, first in self.walls[1:]]
        if not lasts:
            return _("%(wall)s at every batch", wall=names[0])
        parts = [_("%(wall)s up to B=%(last)s", wall=wall, last=last) for wall, last in zip(names, lasts)]
        return _(", then ").join([*parts, names[-1]])


def boundaries(grid: Grid, steps: int) -> list[Boundary]:
    """Where walls change with the batch, for every hidden size at so many steps; unknown places are left out."""
    found = []
    for H, row in itertools.groupby((cell for cell in cells(grid) if steps == cell.T), key=lambda cell: cell.H):
        walls: list[tuple[Wall, int]] = []
        for cell in row:
            if cell.wall is not None and (not walls or walls[-1][0] != cell.wall):
                walls.append((cell.wall, cell.B))
        if walls:
            found.append(Boundary(H, steps, tuple(walls)))
    return found


def share_in_words(grid: Grid, steps: int, _: Wording = ENGLISH) -> str:
    """How much of the map bears the argument out, or why that cannot be said."""
    absent = unknown(grid)
    if absent:
        return _(
            "not known on this machine: %(walls)s; letters are of the other walls, and prove nothing",
            walls=", ".join(_(WALLS_ON_A_MAP[wall]) for wall in absent),
        )
    return _("a bandwidth binds at %(share)s of the places", share=percent(bandwidth_share(grid, steps)))


def bandwidth_share(grid: Grid, steps: int) -> float:
    """The share of the map's places, at so many steps, where a bandwidth binds: what the argument claims."""
    shown = [cell for cell in cells(grid) if steps == cell.T and cell.wall]
    return sum(cell.wall in ("dram", "cache") for cell in shown) / len(shown) if shown else 0.0


@dataclass(frozen=True)
class Spot:
    """A measured point on the map.

    seen : the wall that experiments show without floors, where they were made; `why` tells what they rest on.
    holds : whether it runs at half of its floor's speed or better, so that the modelled wall is what holds it.
    """

    B: int
    H: int
    T: int
    implementation: str
    modelled: Wall | None
    seen: SeenWall | None
    agrees: bool | None
    holds: bool = False
    why: str = ""


def spots(points: Iterable[Point], kernel: str, dtype: str) -> list[Spot]:
    """The measured headline points of a kernel that lie on its map: one plain layer, forward, I = H."""
    found = []
    for point in points:
        shape = point.shape
        plain = all(shape.get(name, 1) == 1 for name in ("L", "D", "dilation")) and not shape.get("ragged")
        plain = plain and shape.get("I") == shape.get("H") and shape.get("B", 0) > 0
        if (point.kernel, point.dtype, point.direction) != (kernel, dtype, "forward") or not plain:
            continue
        if point.status != "ok" or not point.headline or point.time_s is None or not {"B", "H"} <= set(shape):
            continue
        seen = point.attribution.wall if point.attribution else None
        why = why_not(point) if point.attribution else ""
        sizes = (shape["B"], shape["H"], shape.get("T", 1))
        found.append(Spot(*sizes, point.implementation, point.bound, seen, agrees(point), holds(point), why))
    return found


def agreement(of: Sequence[Spot], _: Wording = ENGLISH) -> str:
    """How far experiments without floors bear the modelled walls of measured points out, in words."""
    if of and all(spot.seen is None for spot in of):
        return _(
            "%(points)s measured points; no experiment without floors was made on them "
            "(seqroof profile --attribution makes them).",
            points=len(of),
        )
    told = [spot for spot in of if spot.agrees is not None]
    text = _(
        "%(points)s measured points; experiments without floors name a wall for %(told)s of them",
        points=len(of),
        told=len(told),
    )
    if not told:
        return text + _(".")
    agreed = sum(spot.agrees is True for spot in told)
    text += _(
        " and agree with the modelled wall of the point's own design on %(agreed)s (%(share)s).",
        agreed=agreed,
        share=percent(agreed / len(told)),
    )
    held = [spot for spot in told if spot.holds]
    if agreed == len(told) or not held:
        return text
    return text + _(
        " Of the %(held)s of these that run at half of their floor's speed or better, on %(agreed)s.",
        held=len(held),
        agreed=sum(spot.agrees is True for spot in held),
    )


def disagreements(of: Sequence[Spot], _: Wording = ENGLISH) -> list[str]:
    """Every measured point whose experiments name another wall than the model, with what they measured."""
    return [
        _(
            "B=%(B)s, H=%(H)s, T=%(T)s %(name)s: %(modelled)s modelled, %(seen)s seen",
            B=spot.B,
            H=spot.H,
            T=spot.T,
            name=spot.implementation,
            modelled=_(WALL_NAMES[spot.modelled]) if spot.modelled else UNKNOWN,
            seen=_(SEEN_WORDS[spot.seen or "undetermined"]),
        )
        + (f" ({spot.why})" if spot.why else "")
        for spot in of
        if spot.agrees is False
    ]


def changes(grid: Grid, steps: int, _: Wording = ENGLISH) -> list[str]:
    """The boundaries in words, neighbouring hidden sizes with the same walls together."""
    told = []
    for text, group in itertools.groupby(boundaries(grid, steps), key=lambda boundary: boundary.text(_)):
        sizes = [boundary.H for boundary in group]
        span = f"H={sizes[0]}"
        told.append((_("%(low)s to %(high)s", low=span, high=sizes[-1]) if len(sizes) > 1 else span) + f": {text}")
    return told


def places(grid: Grid, on: Iterable[Spot], steps: int) -> dict[tuple[int, int], bool]:
    """The (H, B) of a map at which points of exactly so many steps were measured, with True.

    With False those that are only nearest to a measured point, on logarithmic scales. None on the map of the best
    possible design, which nobody measured.
    """
    found: dict[tuple[int, int], bool] = {}
    for spot in on:
        if grid.design == "streamed" and steps == spot.T:
            place = (_nearest(spot.H, grid.axes["H"]), _nearest(spot.B, grid.axes["B"]))
            found[place] = found.get(place, False) or place == (spot.H, spot.B)
    return found


def _nearest(size: float, of: Sequence[float]) -> int:
    return int(min(of, key=lambda entry: max(entry / size, size / entry)))


def drawn(grid: Grid, steps: int, on: Iterable[Spot] = ()) -> list[str]:
    """The map at so many steps in letters: a line for each hidden size, a column for each batch; `STARS` beside."""
    marked = places(grid, on, steps)
    lines = ["     H  B=" + "".join(f"{int(B):<5}" for B in grid.axes["B"]).rstrip()]
    for H, row in itertools.groupby((cell for cell in cells(grid) if steps == cell.T), key=lambda cell: cell.H):
        marks = ((cell.letter, _MARKS[marked.get((H, cell.B))]) for cell in row)
        letters = "".join(f"{letter}{mark}   " for letter, mark in marks)
        lines.append(f"{H:>6}    {letters.rstrip()}")
    return lines

"""The regime map: which wall binds a recurrence at every batch, hidden size and length, and where one gives way.

The argument that this tool puts to the test says that an LSTM waits for bandwidth. The map says where the model agrees:
for the design that the argument describes, which reads its weights again at every step, and for the best possible one.
Modelled, except for the measured points on it. Pure functions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .attribution import agrees
from .experiments import SeenWall
from .floors import CONTEST_SHARE, FloorSet, best_floors, own_floors
from .machine import Machine
from .record import WALLS, Grid, Point, Wall
from .units import percent
from .walls import WALLS_ON_A_MAP
from .work import Work

BATCHES = tuple(2**n for n in range(12))
HIDDEN = tuple(2**n for n in range(5, 14))
STEPS = (1, 16, 128, 1024)
# One letter for each wall, for terminals and readers without colours; a small letter where two walls contest.
LETTERS: dict[Wall, str] = {"compute": "C", "dram": "D", "cache": "L", "serial": "S"}
UNKNOWN = "?"
KEY = "C compute, D DRAM, L last cache, S the chain of steps; a small letter: another wall is within 10 %"

WorkOf = Callable[[int, int, int], Work]


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

    @property
    def text(self) -> str:
        """The walls as a sentence part: "DRAM up to B=128, then compute"."""
        parts = []
        for index, (wall, _) in enumerate(self.walls):
            last = self.walls[index + 1][1] // 2 if index + 1 < len(self.walls) else None
            parts.append(f"{WALLS_ON_A_MAP[wall]} up to B={last}" if last else WALLS_ON_A_MAP[wall])
        return ", then ".join(parts) if len(parts) > 1 else f"{parts[0]} at every batch"


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


def share_in_words(grid: Grid, steps: int) -> str:
    """How much of the map bears the argument out, or why that cannot be said."""
    absent = unknown(grid)
    if absent:
        names = ", ".join(WALLS_ON_A_MAP[wall] for wall in absent)
        return f"not known on this machine: {names}; letters are of the other walls, and prove nothing"
    return f"a bandwidth binds at {percent(bandwidth_share(grid, steps))} of the places"


def bandwidth_share(grid: Grid, steps: int) -> float:
    """The share of the map's places, at so many steps, where a bandwidth binds: what the argument claims."""
    shown = [cell for cell in cells(grid) if steps == cell.T and cell.wall]
    return sum(cell.wall in ("dram", "cache") for cell in shown) / len(shown) if shown else 0.0


@dataclass(frozen=True)
class Spot:
    """A measured point on the map. seen : the wall that experiments show without floors, where they were made."""

    B: int
    H: int
    T: int
    implementation: str
    modelled: Wall | None
    seen: SeenWall | None
    agrees: bool | None


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
        sizes = (shape["B"], shape["H"], shape.get("T", 1))
        found.append(Spot(*sizes, point.implementation, point.bound, seen, agrees(point)))
    return found


def changes(grid: Grid, steps: int) -> list[str]:
    """The boundaries in words, neighbouring hidden sizes with the same walls together."""
    told = []
    for text, group in itertools.groupby(boundaries(grid, steps), key=lambda boundary: boundary.text):
        sizes = [boundary.H for boundary in group]
        told.append(f"H={sizes[0]}" + (f" to {sizes[-1]}" if len(sizes) > 1 else "") + f": {text}")
    return told


def places(grid: Grid, on: Iterable[Spot], steps: int) -> set[tuple[int, int]]:
    """The (H, B) of the map that measured points are nearest to, on logarithmic scales, at so many steps."""
    return {
        (_nearest(spot.H, grid.axes["H"]), _nearest(spot.B, grid.axes["B"]))
        for spot in on
        if _nearest(spot.T, grid.axes["T"]) == steps
    }


def _nearest(size: float, of: Sequence[float]) -> int:
    return int(min(of, key=lambda entry: max(entry / size, size / entry)))


def drawn(grid: Grid, steps: int, on: Iterable[Spot] = ()) -> list[str]:
    """The map at so many steps in letters: a line for each hidden size, a column for each batch, * at points."""
    marked = places(grid, on, steps)
    lines = ["     H  B=" + "".join(f"{int(B):<5}" for B in grid.axes["B"]).rstrip()]
    for H, row in itertools.groupby((cell for cell in cells(grid) if steps == cell.T), key=lambda cell: cell.H):
        letters = "".join(f"{cell.letter}{'*' if (H, cell.B) in marked else ' '}   " for cell in row)
        lines.append(f"{H:>6}    {letters.rstrip()}")
    return lines

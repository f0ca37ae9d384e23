"""The names of the walls, for every table, chart and sentence, and whether one holds a measured point.

"serial" is the chain of steps that wait for another.
"""

from __future__ import annotations

from .record import WALLS, Part, Point, Wall

# In a column; in a sentence about a map, whose columns have no room for a reason; and in full.
WALL_NAMES: dict[Wall, str] = {"compute": "compute", "dram": "DRAM", "cache": "cache", "serial": "serial"}
WALLS_ON_A_MAP: dict[Wall, str] = {**WALL_NAMES, "serial": "the chain"}
WALL_WORDS: dict[Wall, str] = {
    "compute": "compute",
    "dram": "DRAM bandwidth",
    "cache": "cache bandwidth",
    "serial": "the chain of dependent steps",
}
# Share of the highest floor's speed from which that wall explains more of the time than anything else.
HOLDS = 0.5


def share_of_floor(point: Point | Part) -> float:
    """The highest floor of the own design of a point or part over its measured time; 0 where either is not known."""
    known = [floor for wall in WALLS if point.floors_s and (floor := getattr(point.floors_s, wall))]
    return max(known) / point.time_s.median if known and point.time_s else 0.0


def holds(point: Point | Part) -> bool:
    """Whether the modelled wall explains more of a point's time than anything else.

    Where it does not, the model says only which floor is the highest, not what takes the rest of the time.
    """
    return share_of_floor(point) >= HOLDS

"""The names of the walls, for every table, chart and sentence. "serial" is the chain of steps that wait for another."""

from __future__ import annotations

from .record import Wall

# In a column; in a sentence about a map, whose columns have no room for a reason; and in full.
WALL_NAMES: dict[Wall, str] = {"compute": "compute", "dram": "DRAM", "cache": "cache", "serial": "serial"}
WALLS_ON_A_MAP: dict[Wall, str] = {**WALL_NAMES, "serial": "the chain"}
WALL_WORDS: dict[Wall, str] = {
    "compute": "compute",
    "dram": "DRAM bandwidth",
    "cache": "cache bandwidth",
    "serial": "the chain of dependent steps",
}

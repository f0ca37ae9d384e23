"""Places text on a chart so that no two texts overlap: greedy, in pixels, before anything is drawn.

Pixels count from the top left corner of the plot. Widths are estimates that err to the wide side, because the font of
the reader is not known.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

Align = Literal["left", "center", "right"]

_ADVANCE = 0.66  # width of a character in units of the font size: digits of wide fonts such as Verdana take 0.64
_WIDE = 1.0  # the same of a Chinese, Japanese or Korean character, which fills a square
_LINE = 1.3  # height of a line in units of the font size
_BLANK = 2.0  # least pixels between two texts
_TILE = 32.0  # pixels: about the size of a label, so that a label touches few tiles
_CROSSING = 3.0  # pixels of way that a text rather goes than cover another piece of a line
_COVERING = 5.0  # the same for a faint symbol; for more, texts move to the symbols of others
_LEVELS = 20  # directions tried around a point
_MERGE_RADII = (0.0, 7.0, 11.0, 16.0, 22.0, 30.0)  # points this close share a label when their own find no room


def advance(text: str) -> float:
    """The width of a text in units of the font size: wide characters, as those of Chinese, fill a square."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return wide * _WIDE + (len(text) - wide) * _ADVANCE


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        """Say whether two rectangles share any area."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def distance(self, x: float, y: float) -> float:
        """Distance from a place to the nearest edge; 0 inside."""
        return math.hypot(max(self.left - x, 0, x - self.right), max(self.top - y, 0, y - self.bottom))


@dataclass(frozen=True)
class Label:
    """A text centred vertically at y, and aligned to x.

    cost : how much worse this place is than the best one, in pixels.
    """

    text: str
    x: float
    y: float
    align: Align = "center"
    cost: float = 0.0

    def box(self, size: float) -> Box:
        """The room this text needs at a font size in pixels, the blank around it included."""
        width, height = advance(self.text) * size, _LINE * size
        left = self.x - {"left": 0.0, "center": width / 2, "right": width}[self.align]
        return Box(left - _BLANK, self.y - height / 2, left + width + _BLANK, self.y + height / 2)


class Obstacles:
    """Boxes, found again by the tiles of the plot that they touch."""

    def __init__(self) -> None:
        self._tiles: dict[tuple[int, int], list[Box]] = {}

    def add(self, box: Box) -> None:
        """Note a box."""
        for tile in _tiles(box):
            self._tiles.setdefault(tile, []).append(box)

    def count(self, box: Box) -> int:
        """How many noted boxes share area with this one."""
        return len({other for tile in _tiles(box) for other in self._tiles.get(tile, ()) if box.overlaps(other)})


def _tiles(box: Box) -> Iterator[tuple[int, int]]:
    for column in range(int(box.left // _TILE), int(box.right // _TILE) + 1):
        for row in range(int(box.top // _TILE), int(box.bottom // _TILE) + 1):
            yield column, row


@dataclass
class Board:
    """A plot of `width` x `height` pixels with what is already on it.

    size : font size of its texts. solid : texts and symbols, which no text may touch.
    soft : lines, which a text avoids where it can. faint : symbols, which it avoids more.
    """

    width: float
    height: float
    size: float
    solid: Obstacles = field(default_factory=Obstacles)
    soft: Obstacles = field(default_factory=Obstacles)
    faint: Obstacles = field(default_factory=Obstacles)

    def line(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Note a straight line as soft obstacle, in pieces of a few pixels."""
        pieces = max(1, int(max(abs(x1 - x0), abs(y1 - y0)) / 5))
        for index in range(pieces + 1):
            x, y = x0 + (x1 - x0) * index / pieces, y0 + (y1 - y0) * index / pieces
            self.soft.add(Box(x - 1, y - 1, x + 1, y + 1))

    def symbol(self, x: float, y: float, radius: float, faint: bool = False) -> None:
        """Note a symbol, as solid obstacle unless it is faint."""
        (self.faint if faint else self.solid).add(Box(x - radius, y - radius, x + radius, y + radius))

    def place(self, candidates: Iterable[Label]) -> Label | None:
        """Put the cheapest candidate that touches nothing solid, counting its own cost and what it crosses or covers.

        Returns None when all of them clash or leave the plot.
        """
        best: tuple[float, Label, Box] | None = None
        for label in candidates:
            box = label.box(self.size)
            inside = box.left >= 0 and box.top >= 0 and box.right <= self.width and box.bottom <= self.height
            if (best and label.cost >= best[0]) or not inside or self.solid.count(box):
                continue
            cost = label.cost + _CROSSING * self.soft.count(box) + _COVERING * self.faint.count(box)
            if best is None or cost < best[0]:
                best = (cost, label, box)
        if best is None:
            return None
        self.solid.add(best[2])
        return best[1]


@dataclass(frozen=True)
class Mark:
    """A point on the chart, in pixels, and the text that names it."""

    x: float
    y: float
    text: str


def around(mark: Mark, distances: Sequence[float] = (12, 15, 19, 25, 32, 39, 45)) -> Iterator[Label]:
    """Candidates around a mark, the nearest first; to the right, above and below before the left."""
    for distance in distances:
        for index in range(_LEVELS):
            turn = (index + 1) // 2 * (-1) ** index
            angle = 2 * math.pi * turn / _LEVELS - math.pi / 4
            wide = distance + max(len(mark.text) - 2, 0) * 3  # long texts need more way to the side than up
            yield Label(mark.text, mark.x + wide * math.cos(angle), mark.y + distance * math.sin(angle), cost=distance)


def label_marks(
    board: Board, marks: Sequence[Mark], join: Callable[[Sequence[str]], str], reach: float
) -> list[tuple[Label, list[str]]]:
    """Label every mark, joining the texts of marks that lie together where there is no room for all.

    join : makes one text of several (`join(["4", "5", "6"])` is "4-6").
    reach : farthest edge of a label from each mark it names, in pixels.
    Returns each label with the texts it stands for; marks that found no room are in none.
    """
    groups = [[mark] for mark in marks]
    labels: list[tuple[Label, list[str]]] = []
    for radius in _MERGE_RADII:
        failed = []
        for group in _merged(groups, radius):
            texts = [mark.text for mark in group]
            label = board.place(_for_group(group, join(texts), board.size, reach))
            if label is None:
                failed.append(group)
            else:
                labels.append((label, texts))
        groups = failed
    return labels


def _merged(groups: list[list[Mark]], radius: float) -> list[list[Mark]]:
    """Regroup all marks so that those of one group lie within a radius of each other; radius 0 keeps the groups."""
    if not radius:
        return groups
    result: list[list[Mark]] = []
    for mark in (mark for group in groups for mark in group):
        near = next((g for g in result if all(math.hypot(m.x - mark.x, m.y - mark.y) <= radius for m in g)), None)
        if near is None:
            result.append([mark])
        else:
            near.append(mark)
    return result


def _for_group(group: list[Mark], text: str, size: float, reach: float) -> Iterator[Label]:
    middle = Mark(sum(m.x for m in group) / len(group), sum(m.y for m in group) / len(group), text)
    for label in around(middle):
        box = label.box(size)
        if all(box.distance(mark.x, mark.y) <= reach for mark in group):
            yield label

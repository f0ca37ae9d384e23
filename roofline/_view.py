"""What table, charts, page and exports share: which points are shown, how they are numbered, and their names in words.

A number beside a point on any chart is the number of its row in any table of the same runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from .extras import installing
from .record import Part, Point, Run, Wall, Warning_
from .units import percent, seconds, si
from .walls import WALL_NAMES, holds
from .wording import ENGLISH, Wording

MEASURED = ("ok", "invalid")

_WILD = 10.0  # an interval wider than ten times the value says only that there is no result

SIZES_LIMIT = 20  # characters of differing sizes that may share a line with numbers

DTYPE_ORDER = ("fp32", "tf32", "fp16", "bf16")

NUMBERS_NOTE = (
    "Measured: time and rates; time is the median with its interval. Modelled: walls and percentages, from the counted "
    "work against the ceilings of this machine: "
    "“machine” is the share of what the best possible implementation reaches, “design” of what this "
    "implementation's own design allows. A wall written “a ≈ b” means that b is within 10 % of a; one in brackets is "
    "the highest floor of a time that is more than twice it."
)

METHOD_NOTE = (
    "Results are checked against a float64 reference before they are timed. One-step kernels are timed cold (caches "
    "flushed before each call) and sequences warm, because their later steps find warm caches whatever was flushed."
)


class MissingExtra(ImportError):
    """An optional package is not installed. The text says which command installs it."""

    def __init__(self, package: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed. Install it with: {installing('report')}"
        )


@dataclass(frozen=True)
class Row:
    """A point with its place in the report.

    number : the label beside it on charts ("7", or "B7" in the second of several runs); empty when it is on no chart.
    run : the index of its run.
    """

    number: str
    run: int
    point: Point

    def but(self, *sizes: str) -> tuple[object, ...]:
        """What it has in common with rows that differ in these sizes alone; the other sizes come last."""
        rest = tuple((name, size) for name, size in self.point.shape.items() if name not in sizes)
        point = self.point
        names = (point.kernel, point.implementation, point.dtype, point.direction, point.cache, point.clock)
        return (self.run, point.device, *names, rest)


def clean(text: str) -> str:
    """Replace control characters, so that no name can move the cursor, colour a terminal or break a line."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


_ASCII = str.maketrans(
    {
        "µ": "u",
        "±": "+-",
        "×": "x",
        "≈": "~",
        "→": "->",
        "–": "-",
        "…": ".",
        "“": '"',
        "”": '"',
        "\N{REPLACEMENT CHARACTER}": "?",
    }
)


def encodable(text: str, encoding: str) -> str:
    """The text as a terminal of this encoding can show it: "µ" becomes "u" where there is no "µ"."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_ASCII).encode(encoding, "replace").decode(encoding)
    return text


def on_chart(point: Point) -> bool:
    """Say whether a point has both coordinates of a roofline chart and a result that may be scored."""
    return (
        point.status == "ok"
        and point.headline
        and point.time_s is not None
        and point.achieved is not None
        and point.achieved.flops_per_s > 0
        and point.intensity is not None
        and (point.intensity.compulsory or 0) > 0
    )


def rows(runs: Sequence[Run]) -> list[Row]:
    """All points of all runs in reading order, numbered where a chart shows them."""
    result = []
    for index, run in enumerate(runs):
        prefix = run_letter(index) if len(runs) > 1 else ""
        count = 0
        for point in sorted(run.points, key=reading_order):
            count += on_chart(point)
            result.append(Row(f"{prefix}{count}" if on_chart(point) else "", index, point))
    return result


def measured(of: Sequence[Row]) -> list[Row]:
    """The rows with a result. Symbols and colours are chosen from these, so that charts and legends agree on them."""
    return [row for row in of if row.point.status in MEASURED]


def run_letter(index: int) -> str:
    """Name a run among several: A, B, ... Z, then AA, BB, ..."""
    turn, letter = divmod(index, 26)
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[letter] * (turn + 1)


def reading_order(point: Point) -> tuple:
    """Sort key: kernel, direction, sizes, dtype, implementation, then the headline before its repetitions."""
    sizes = tuple(sorted(point.shape.items(), key=lambda item: item[0] == "B"))
    return (
        point.kernel,
        point.direction,
        -1 if point.device is None else point.device,
        sizes,
        dtype_order(point.dtype),
        point.implementation,
        not point.headline,
        point.cache,
    )


def sections(of: Sequence[Row], limit: int = SIZES_LIMIT) -> list[tuple[str, list[tuple[Row, str]]]]:
    """Put rows under headings that hold their common sizes, so that only the differing sizes stand in each row.

    Returns (heading, [(row, its own sizes), ...]) for each kernel, direction, cache state and clock, split further
    where the differing sizes would have more than `limit` characters; with 0 every size is in its heading.
    """
    ordered = sorted(of, key=lambda row: (row.run, *_group_key(row.point)))
    groups = groupby(ordered, key=lambda row: (row.run, *_group_key(row.point)))
    return [section for _, group in groups for section in _split_section(list(group), limit)]


def _group_key(point: Point) -> tuple:
    device = -1 if point.device is None else point.device
    return (point.kernel, point.direction, point.cache, point.clock, ",".join(point.shape), device)


def _split_section(group: list[Row], limit: int) -> list[tuple[str, list[tuple[Row, str]]]]:
    shapes = [row.point.shape for row in group]
    common = {name: size for name, size in shapes[0].items() if all(shape[name] == size for shape in shapes)}
    differing = [sizes_text({n: s for n, s in shape.items() if n not in common}) for shape in shapes]
    if max(map(len, differing)) > limit:
        parts = groupby(group, key=lambda row: row.point.shape_text)
        return [section for _, part in parts for section in _split_section(list(part), limit)]
    point = group[0].point
    where = "" if point.device is None else f", device {point.device}"
    heading = f"{point.kernel} {point.direction}, {point.cache} ({point.clock}){where} {sizes_text(common)}"
    return [(clean(heading.rstrip()), list(zip(group, differing)))]


def sizes_text(shape: dict[str, int]) -> str:
    """Write sizes as they are typed: "B=1,I=64"."""
    return clean(",".join(f"{name}={size}" for name, size in shape.items()))


def wall_text(wall: Wall | None, contested_with: Wall | None = None, _: Wording = ENGLISH) -> str:
    """Write a wall, with the one that contests it: "DRAM ≈ serial"."""
    if wall is None:
        return "-"
    return _(WALL_NAMES[wall]) + (f" ≈ {_(WALL_NAMES[contested_with])}" if contested_with else "")


def own_wall(point: Point | Part, _: Wording = ENGLISH, contested: bool = True) -> str:
    """Write the wall of a point's own design: alone and in brackets where something else takes more of its time."""
    if point.bound and point.time_s and not holds(point):
        return f"({wall_text(point.bound, None, _)})"
    return wall_text(point.bound, getattr(point, "contested_with", None) if contested else None, _)


def time_text(point: Point | Part) -> str:
    """Write the median time: "4.31 ms"."""
    return seconds(point.time_s.median) if point.time_s else "-"


def interval_text(point: Point | Part) -> str:
    """Write the larger half of the interval of the median: "±0.9 %"."""
    if point.time_s is None:
        return ""
    t = point.time_s
    half = max(t.high - t.median, t.median - t.low) / t.median
    return f"±{percent(half)}" if half < _WILD else f">{percent(_WILD)}"


def machine_text(point: Point | Part) -> str:
    """Write the share of the best possible implementation on this machine."""
    return percent(point.best_fraction.value if point.best_fraction else None)


def design_text(point: Point | Part) -> str:
    """Write the share of what this implementation's design allows."""
    return percent(point.attainable_fraction.value if point.attainable_fraction else None)


def rate_text(point: Point) -> str:
    """Write the rate reached, in the unit of the wall: bytes where a memory binds, operations otherwise."""
    if point.achieved is None:
        return "-"
    if point.best_bound in ("dram", "cache") or not point.achieved.flops_per_s:
        return si(point.achieved.bytes_per_s, "B/s")
    return si(point.achieved.flops_per_s, "FLOP/s")


def status_text(point: Point) -> str:
    """The status with what qualifies it: a result that nothing was held against is "ok, unchecked"."""
    return "ok, unchecked" if point.status == "ok" and point.correctness is None else point.status


def case_text(point: Point) -> str:
    """Name a case without clock and cache: "B=1,I=64,H=64 bf16 forward"."""
    return clean(f"{point.shape_text} {point.dtype}" + ("" if point.direction == "forward" else f" {point.direction}"))


def dtype_order(name: str) -> int:
    """The place of a dtype in every list: fp32, tf32, fp16, bf16, then others."""
    return DTYPE_ORDER.index(name) if name in DTYPE_ORDER else len(DTYPE_ORDER)


@dataclass(frozen=True)
class Advice:
    """A kind of warning once: its letter, and each cause with the names of the points that it befell."""

    letter: str
    id: str
    severity: str
    advice: str
    causes: tuple[tuple[str, tuple[str, ...]], ...]


class Advices:
    """The warnings of some rows, each kind once and in order of appearance."""

    def __init__(self, of: Sequence[Row]) -> None:
        found: dict[tuple[str, str, str], dict[str, dict[str, None]]] = {}
        for row in of:
            name = row.number or clean(f"{row.point.kernel} {row.point.implementation} {case_text(row.point)}")
            for warning in row.point.warnings:
                causes = found.setdefault(_kind(warning), {})
                causes.setdefault(clean(warning.cause), {})[name] = None
        self._letters = {kind: run_letter(index).lower() for index, kind in enumerate(found)}
        self.all = [
            Advice(self._letters[kind], *kind, tuple((cause, tuple(names)) for cause, names in causes.items()))
            for kind, causes in found.items()
        ]

    def marks(self, point: Point) -> str:
        """The letters of a point's warnings for its status: " (a,c)", or nothing."""
        letters = dict.fromkeys(self._letters[_kind(warning)] for warning in point.warnings)
        return f" ({','.join(letters)})" if letters else ""


def _kind(warning: Warning_) -> tuple[str, str, str]:
    return clean(warning.id), warning.severity, clean(warning.advice)

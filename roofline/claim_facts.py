"""What predicates ask of a run: the points that count, by class of implementation, and ratios with intervals."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import claims
from .claim_verdict import Finding, Line, Verdict, Word, region, span, verdict, word_of
from .claims import Claim
from .machine import Machine
from .record import CacheState, Direction, Evidence, Fraction, Point, Run, Timing
from .stats import FEWEST_SAMPLES
from .work import Work

# Rows are compared inside a class. Ours come first, for the same effort is in all of them; a vendor's rows are told
# beside the verdict, because its library may serve one kernel of a pair and not the other.
COMPARED = ("triton", "reference")
BESIDE = "vendor"
NOT_COLD = "not-cold-enough"  # the warning about cold calls that found a part of their inputs in a cache
# What a ratio or a power rests on.
IN_TURN, SEPARATE = "timed in turn", "separate times"
_CLOCK = {"cpu": "host", "cuda": "events"}


@dataclass(frozen=True)
class Facts:
    """What there is to decide with: a run, or None, and the machines of the catalogue."""

    run: Run | None
    catalogue: tuple[Machine, ...]

    @property
    def machine(self) -> Machine | None:
        """The machine of the run."""
        return self.run.machine if self.run else None

    @property
    def device(self) -> str:
        """The kind of device of the run: "cpu" or "cuda"."""
        return (self.run.machine.device if self.run else "") or "cpu"

    def evidence(self, prefix: str) -> list[Evidence]:
        """Rows of evidence whose id is `prefix`, or begins with it and a blank."""
        rows = self.run.evidence if self.run else ()
        return [row for row in rows if row.id == prefix or row.id.startswith(prefix + " ")]

    def over(self, row: Timed, other: Timed) -> tuple[Fraction, str]:
        """The time of a row over that of another, and what it rests on: rounds that both shared where there are any."""
        shared = self.in_turn(row, other)
        return (shared, IN_TURN) if shared else (ratio(span_of(row.time), span_of(other.time)), SEPARATE)

    def in_turn(self, row: Timed, other: Timed) -> Fraction | None:
        """The time of a row over that of another in rounds that they shared; None where the run has no such rounds."""
        sides = [(side.point.kernel, side.point.shape) for side in (row, other)]
        id = pair_id(sides[0], sides[1], row.point.dtype, row.point.implementation)
        for found in self.evidence(id) if row.point.implementation == other.point.implementation else ():
            times = interval_of(found.values, "ratio")
            if times is not None:
                return times
        return None

    def power_in_turn(self, rows: Sequence[Timed], size: str) -> Fraction | None:
        """The power of a size in the time of rows that were timed in turn; None where the run has no such rounds.

        Its interval holds both that of the slopes of the rounds and that of the line through the medians, which is wide
        where the times lie on no line.
        """
        first = rows[0].point
        id = line_id(first.kernel, size, [row.point.shape for row in rows], first.dtype, first.implementation)
        for found in self.evidence(id):
            slopes, fitted = (interval_of(found.values, name) for name in ("slope", "line"))
            if slopes is not None and fitted is not None:
                low, high = min(slopes.low, fitted.low), max(slopes.high, fitted.high)
                return Fraction(value=slopes.value, low=low, high=high)
        return None

    def no_meter(self) -> str:
        """Why the run could not read the power at rest, without which no energy is taken; empty where it could."""
        unknown = [row.how for row in self.evidence("surroundings-before") if row.values.get("idle_w", 0) is None]
        found = re.search(r"idle_w: ([^;]+)", unknown[0]) if unknown else None
        return found[1] if found else ""

    def points(self, kernel: str, cache: CacheState, direction: Direction = "forward", **sizes: int) -> list[Timed]:
        """Valid points of a kernel that count for claims, with these sizes; of a fleet, those of its first device."""
        return [
            Timed(point, point.time_s, point.work)
            for point in self.asked
            if (point.kernel, point.cache, point.direction) == (kernel, cache, direction)
            if not uncounted(point) and point.time_s is not None and point.work is not None
            if point.dtype in claims.dtypes(self.device)
            if all(point.shape.get(name) == size for name, size in sizes.items())
        ]

    @property
    def asked(self) -> list[Point]:
        """Points under the clock that counts for claims, valid or not; of a fleet, those of its first device."""
        points = self.run.points if self.run else ()
        return [point for point in points if point.clock == _CLOCK[self.device] and not point.device]

    def planned(self, claim: Claim, kernel: str, cache: CacheState, direction: Direction = "forward") -> list[Timed]:
        """As `points`, but only cases that the claim itself plans: others may not sway a verdict without a region."""
        cases = claim.planned(self.device)
        found = self.points(kernel, cache, direction)
        return [row for row in found if any(case.is_of(row.point) for case in cases)]


@dataclass(frozen=True)
class Timed:
    """A point that has a time and a work."""

    point: Point
    time: Timing
    work: Work

    @property
    def where(self) -> str:
        """The case in words, without sizes that are as they usually are."""
        usual = {"L": 1, "D": 1, "dilation": 1, "ragged": 0, "residual": 0, "causal": 1, "relu": 0}
        sizes = (f"{n}={v}" for n, v in self.point.shape.items() if usual.get(n) != v)
        return f"{','.join(sizes)} {self.point.dtype}"

    @property
    def rows(self) -> str:
        """The class of the implementation."""
        return class_of(self.point.implementation)

    def at(self, name: str) -> int:
        """A size, 0 where the kernel has none of that name."""
        return self.point.shape.get(name, 0)

    @property
    def per_token(self) -> Fraction:
        """Device seconds per token."""
        tokens = max(1, self.work.tokens)
        return Fraction(value=self.time.median / tokens, low=self.time.low / tokens, high=self.time.high / tokens)

    @property
    def plain(self) -> bool:
        """Whether a recurrence is one layer in one direction without dilation or padding."""
        wanted = {"L": 1, "D": 1, "dilation": 1, "ragged": 0, "relu": 0}
        return all(self.point.shape.get(name, value) == value for name, value in wanted.items())


def uncounted(point: Point) -> str:
    """Why a point does not count for claims; empty where it does."""
    if point.status != "ok":
        return f"{point.status} ({point.reason})" if point.reason else point.status
    if point.time_s is None or point.work is None:
        return "no time or no counted work"
    if point.time_s.n < FEWEST_SAMPLES:  # too few for an interval to decide with
        return f"{point.time_s.n} samples, fewer than {FEWEST_SAMPLES}"
    if point.cache == "cold" and any(warning.id == NOT_COLD for warning in point.warnings):
        return f"{NOT_COLD}: a time between cold and warm"
    return ""


def interval_of(values: Mapping[str, object], name: str) -> Fraction | None:
    """A value of evidence with its interval; None where a part of it is missing or no number."""
    value, low, high = (values.get(f"{name}{end}") for end in ("", "_low", "_high"))
    if isinstance(value, float) and isinstance(low, float) and isinstance(high, float) and low <= value <= high:
        return Fraction(value=value, low=low, high=high)
    return None


def pair_id(over: tuple[str, dict[str, int]], under: tuple[str, dict[str, int]], dtype: str, name: str) -> str:
    """The id of the evidence on two cases of an implementation, timed in turn; sides are kernels with their sizes."""
    cases = [(kernel, ",".join(f"{size}={value}" for size, value in shape.items())) for kernel, shape in (over, under)]
    return f"paired-times {' over '.join(f'{kernel} {sizes}' for kernel, sizes in cases)} {dtype} {name}"


def line_id(kernel: str, size: str, shapes: Sequence[dict[str, int]], dtype: str, name: str) -> str:
    """The id of the evidence on cases of an implementation that differ in one size and were timed in turn."""
    lengths = "/".join(str(length) for length in sorted(shape[size] for shape in shapes))
    sizes = ",".join(f"{other}={lengths if other == size else value}" for other, value in shapes[0].items())
    return f"paired-line {kernel} {sizes} {dtype} {name}"


def class_of(implementation: str) -> str:
    """The class in which an implementation is compared: its name up to a dot or underscore, vendors' under one name."""
    family = implementation.split(".")[0].split("_")[0]
    return BESIDE if family == "torch" else family


def fastest(rows: Iterable[Timed]) -> Timed:
    """The row with the smallest median."""
    return min(rows, key=lambda row: row.time.median)


def by_case(rows: Iterable[Timed]) -> Iterator[list[Timed]]:
    """Rows of the same shape and dtype together, in the order of their sizes."""
    found: dict[tuple[Any, ...], list[Timed]] = {}
    for row in rows:
        found.setdefault((row.point.dtype, *row.point.shape.items()), []).append(row)
    yield from (found[key] for key in sorted(found, key=_in_order))


def _in_order(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """Order a key of a case by its sizes as numbers, the largest names last."""
    return tuple((str(part[0]), part[1]) if isinstance(part, tuple) else (str(part), 0) for part in key)


def ratio(over: Fraction, under: Fraction) -> Fraction:
    """A ratio whose interval holds every pair of values from the two intervals."""
    return Fraction(value=over.value / under.value, low=over.low / under.high, high=over.high / under.low)


def span_of(time: Timing) -> Fraction:
    """A time with its interval."""
    return Fraction(value=time.median, low=time.low, high=time.high)


def equal_parameters(one: Timed, other: Timed, tolerance: float) -> bool:
    """Whether two works have the same number of parameters within a tolerance."""
    larger = max(one.work.parameters, other.work.parameters)
    return larger > 0 and abs(one.work.parameters - other.work.parameters) <= tolerance * larger


def partners(row: Timed, others: Iterable[Timed], tolerance: float) -> list[Timed]:
    """Rows of the same class, dtype, batch and length with as many parameters."""
    return [
        other
        for other in others
        if (other.rows, other.point.dtype, other.at("B"), other.at("T"))
        == (row.rows, row.point.dtype, row.at("B"), row.at("T"))
        and equal_parameters(row, other, tolerance)
    ]


Found = tuple[list[Finding], list[str]]


def compared(
    claim: Claim, find: Callable[[str], Found], judge: Callable[[Sequence[Finding]], Word] = word_of
) -> Verdict:
    """The verdict from rows of one class, with the vendor's beside it.

    find : findings and missing evidence of a class. The first class for which nothing is missing decides; where there
    is none, the verdict says what the first with any findings lacks, else what `reference` does.
    """
    tried = {rows: find(rows) for rows in (*COMPARED, BESIDE)}
    complete = [rows for rows in COMPARED if tried[rows][0] and not tried[rows][1]]
    begun = [rows for rows in COMPARED if tried[rows][0]]
    rows = (complete or begun or COMPARED[-1:])[0]
    findings, missing = tried[rows]
    beside = [
        Line(rows=other, verdict=judge(tried[other][0]), summary=span(tried[other][0]), region=region(tried[other][0]))
        for other in (*complete[1:], BESIDE)
        if tried[other][0] and not tried[other][1]
    ]
    word = judge(findings) if findings and not missing else None
    return verdict(claim, findings, missing, word, rows=rows, beside=tuple(beside))


def fastest_of(rows: str, points: list[Timed]) -> list[Timed]:
    """The fastest row of a class for every case; recurrences of one plain layer only."""
    return [fastest(case) for case in by_case(row for row in points if row.rows == rows and row.plain)]

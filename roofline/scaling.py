"""How time grows with the length of a sequence: fitted exponents beside what operations and dependent steps foresee.

A curve is made of points that differ in the length alone. The path between two positions, in dependent steps, is what
the argument is about: T for a recurrence, log_F T for a hierarchy, 1 for attention. Pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from . import _view, trend
from .record import Fraction, Point, Run

# A line through fewer lengths has an interval that says nothing: Student's t at one degree of freedom is 12.7.
LEAST_LENGTHS = 4
# Caches of keys are the sequence of a decoding step; every other kernel has its steps T or its queries S.
KEYS_ARE_THE_LENGTH = ("attention_decode",)
# Counted steps this close to a form, at every length, have that form.
SAME_FORM = 0.02

PathForm = Literal["constant", "linear", "log", "power"]


def length_sizes(point: Point) -> tuple[str, ...]:
    """The sizes of a point that are its length; empty for a single step, which has none.

    S and K go together where a call attends to itself.
    """
    shape = point.shape
    if point.kernel in KEYS_ARE_THE_LENGTH:
        return ("K",) if "K" in shape else ()
    if "T" in shape:
        return ("T",)
    if "S" in shape:
        return ("S", "K") if shape.get("K") == shape["S"] else ("S",)
    return ()


@dataclass(frozen=True)
class Path:
    """How many dependent steps lie between the ends of a sequence: its form, in words, and the power of the length."""

    form: PathForm
    words: str
    power: float


@dataclass(frozen=True)
class Curve:
    """Timed points that differ in the length alone, ordered by it. run : the index of their run.

    power : the fitted power of the length in the measured time. end_power : that between the two longest lengths alone,
    which differs where a time bends: a fixed cost of a call flattens its short end. flops_power, model_power : those of
    the counted operations and of the modelled time. All of them and `path` are None below `LEAST_LENGTHS` lengths, and
    where a point does not say what they need.
    step_s, tax_s : time per dependent step, and what launching adds to it, at the longest length; None where the path
    has no second step, the tax also where no graph was timed.
    """

    run: int
    size: str
    points: tuple[Point, ...]
    power: Fraction | None
    end_power: Fraction | None
    flops_power: float | None
    model_power: float | None
    path: Path | None
    step_s: Fraction | None
    tax_s: Fraction | None

    @property
    def last(self) -> Point:
        """The point at the longest length."""
        return self.points[-1]

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths, in order."""
        return tuple(point.shape[self.size] for point in self.points)

    @property
    def fixed(self) -> str:
        """The sizes that stay, as typed."""
        left_out = length_sizes(self.last)
        return ",".join(f"{name}={size}" for name, size in self.last.shape.items() if name not in left_out)

    @property
    def missing(self) -> str:
        """What a fit still needs, in words; empty where there is one."""
        short = LEAST_LENGTHS - len(self.points)
        told = ", ".join(map(str, self.lengths))
        return f"{self.size}={told}; {short} more length{'s' if short > 1 else ''} needed" if short > 0 else ""


def curves(runs: Sequence[Run]) -> list[Curve]:
    """All curves of all runs in reading order, those of too few lengths included; points of two runs never mix."""
    groups: dict[tuple, list[Point]] = {}
    for index, run in enumerate(runs):
        for point in sorted(run.points, key=_view.reading_order):
            names = length_sizes(point)
            if point.status == "ok" and point.time_s and names:
                groups.setdefault((index, *_group(point, names)), []).append(point)
    return [_curve(key[0], points, runs[key[0]].points) for key, points in groups.items()]


def _group(point: Point, names: tuple[str, ...]) -> tuple:
    """What points of one curve have in common: everything but the length."""
    rest = tuple((name, size) for name, size in point.shape.items() if name not in names)
    who = (point.kernel, point.implementation, point.dtype, point.direction, point.cache, point.clock, point.device)
    return (*who, names, rest)


def _curve(run: int, points: Sequence[Point], others: Iterable[Point]) -> Curve:
    size = length_sizes(points[0])[0]
    ordered = tuple(sorted(points, key=lambda point: point.shape[size]))
    lengths = [point.shape[size] for point in ordered]
    last = ordered[-1]
    fits = len(ordered) >= LEAST_LENGTHS
    works = [point.work for point in ordered if point.work]
    counted = fits and len(works) == len(ordered)
    estimates = [point.estimate_s for point in ordered if point.estimate_s]
    flops = [work.flops for work in works if work.flops]
    return Curve(
        run=run,
        size=size,
        points=ordered,
        power=trend.exponent(lengths, [_span(point) for point in ordered]) if fits else None,
        end_power=_between(lengths, ordered) if fits else None,
        flops_power=trend.power(lengths, flops) if counted and len(flops) == len(ordered) else None,
        model_power=trend.power(lengths, estimates) if fits and len(estimates) == len(ordered) else None,
        path=path(lengths, [work.depth for work in works], size, last.shape.get("F")) if counted else None,
        step_s=_over(_span(last), last.steps) if last.steps > 1 else None,
        tax_s=launch_tax(last, others) if last.steps > 1 else None,
    )


def _span(point: Point) -> Fraction:
    assert point.time_s is not None
    return Fraction(value=point.time_s.median, low=point.time_s.low, high=point.time_s.high)


def _between(lengths: Sequence[int], points: Sequence[Point]) -> Fraction:
    """The power between the two longest lengths; its interval holds every pair of values from their two."""
    before, last = _span(points[-2]), _span(points[-1])
    times = Fraction(value=last.value / before.value, low=last.low / before.high, high=last.high / before.low)
    return trend.between(lengths[-2], lengths[-1], times)


def _over(time: Fraction, steps: int) -> Fraction:
    return Fraction(value=time.value / steps, low=time.low / steps, high=time.high / steps)


def launch_tax(point: Point, points: Iterable[Point]) -> Fraction | None:
    """Seconds that launching adds to each dependent step: by the host's clock less as a graph, both warm.

    The interval holds every pair of values from the two. None unless both were timed.
    """
    same = ("kernel", "implementation", "shape", "dtype", "direction", "device")
    warm = {
        other.clock: _span(other)
        for other in points
        if other.cache == "warm" and other.status == "ok" and other.time_s
        if all(getattr(other, name) == getattr(point, name) for name in same)
    }
    host, graph = warm.get("host"), warm.get("graph")
    if host is None or graph is None:
        return None
    apart = Fraction(value=host.value - graph.value, low=host.low - graph.high, high=host.high - graph.low)
    return _over(apart, point.steps)


def levels(length: int, fan: int) -> int:
    """Levels of a hierarchy whose windows hold `fan` >= 2 vectors: log_F T rounded up, counted in whole numbers."""
    vectors, found = -(-length // fan), 1
    while vectors > 1:
        vectors, found = -(-vectors // fan), found + 1
    return found


def path(lengths: Sequence[int], depths: Sequence[int], size: str, fan: int | None = None) -> Path:
    """The form of the path: dependent steps against the length. fan : the window F of a kernel that has one."""
    power = trend.power(lengths, depths)
    if len(set(depths)) == 1:
        return Path("constant", str(depths[0]), 0.0)
    if fan and fan > 1 and list(depths) == [levels(length, fan) for length in lengths]:
        return Path("log", f"log_{fan} {size}", power)
    phases = max(1, round(lengths[-1] / depths[-1]))
    if list(depths) == [-(-length // phases) for length in lengths]:
        return Path("linear", _times(1 / phases, size), power)
    ratio = depths[-1] / lengths[-1]
    if all(abs(depth / (ratio * length) - 1) <= SAME_FORM for length, depth in zip(lengths, depths)):
        return Path("linear", _times(ratio, size), power)
    ratio = (depths[-1] - depths[0]) / (lengths[-1] - lengths[0])
    more = depths[0] - ratio * lengths[0]
    if all(round(ratio * length + more) == depth for length, depth in zip(lengths, depths)):
        return Path("linear", f"{_times(ratio, size)} {'+' if more > 0 else '-'} {abs(more):.3g}", power)
    return Path("power", f"{size}^{power:.2f} (fitted)", power)


def _times(ratio: float, size: str) -> str:
    """A multiple of the length in words: "T", "2 T", "T/64"."""
    if abs(ratio - 1) <= SAME_FORM:
        return size
    return f"{ratio:.3g} {size}" if ratio > 1 else f"{size}/{1 / ratio:.3g}"

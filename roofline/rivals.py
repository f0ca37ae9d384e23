"""Own rows beside the vendor's: how much faster, paired over the rounds that both were timed in."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from .comparison_model import BesideVendor
from .ratio import paired, verdict
from .record import Observation, Point

# What stands for itself in no contest: the reference is written to be read.
UNCONTESTED = ("reference",)
# Rows that are somebody else's beside the vendor's: PyTorch's compiler, and packages that kernel files offer as rows
# where they are installed. They have a ratio, and enter no finding about own rows.
OTHERS = ("compile", "flashrnn", "torchrl", "haste", "flash_attn", "causal_conv1d", "fla")


def is_vendor(point: Point) -> bool:
    """Whether a row is the vendor's library, by its name: `torch` or `torch.<backend>`."""
    return point.implementation.split(".")[0] == "torch"


def is_own(point: Point) -> bool:
    """Whether a row is the author's: one of `triton*`, or any that a file of the user's own offers."""
    return not is_vendor(point) and point.implementation not in (*UNCONTESTED, *OTHERS)


def with_vendor(points: Iterable[Point]) -> tuple[Point, ...]:
    """Give every other row its ratio to the fastest vendor row that was timed in the same rounds.

    Verdicts keep to the confidence that so many comparisons need.
    """
    points = tuple(points)
    best: dict[tuple[str, ...], Point] = {}
    for point in points:
        if is_vendor(point) and _paired(point):
            key = _rounds(point)
            best[key] = min(best.get(key, point), point, key=lambda p: p.time_s.median if p.time_s else 0.0)
    vendors = [best.get(_rounds(point)) for point in points]
    among = sum(_comparable(point, vendor) for point, vendor in zip(points, vendors))
    return tuple(_beside(point, vendor, among) for point, vendor in zip(points, vendors))


def _paired(point: Point) -> bool:
    return point.status == "ok" and point.time_s is not None and bool(point.time_s.interleaved)


def _rounds(point: Point) -> tuple[str, ...]:
    """The rounds that a point was timed in, and how."""
    return (point.time_s.interleaved if point.time_s else "", point.cache, point.clock)


def _comparable(point: Point, vendor: Point | None) -> bool:
    plain = is_vendor(point) or point.implementation in UNCONTESTED
    return vendor is not None and not plain and _paired(point)


def _beside(point: Point, vendor: Point | None, among: int) -> Point:
    if not _comparable(point, vendor):
        return point
    assert point.time_s and vendor and vendor.time_s
    ratio = paired(vendor.time_s.rounds_s, point.time_s.rounds_s)
    beside = BesideVendor(
        vendor=vendor.implementation,
        speedup=1 / ratio.value,
        low=1 / ratio.high if ratio.high else None,
        high=1 / ratio.low if ratio.low else None,
        rounds=ratio.rounds,
        verdict=verdict(ratio, among=among),
    )
    return point.model_copy(update={"beside_vendor": beside})


def contests(points: Iterable[Point]) -> list[Observation]:
    """One finding for every kernel and direction: the fastest own row of each case beside the best vendor row."""
    cases: dict[tuple[str, str], dict[tuple[str, str], Point]] = defaultdict(dict)
    for point in points:
        if point.beside_vendor is not None and point.headline and is_own(point):
            case = cases[point.kernel, point.direction]
            key = (point.shape_text, point.dtype)
            case[key] = max(
                case.get(key, point), point, key=lambda p: p.beside_vendor.speedup if p.beside_vendor else 0
            )
    return [_contest(kernel, direction, list(found.values())) for (kernel, direction), found in cases.items()]


def _contest(kernel: str, direction: str, found: list[Point]) -> Observation:
    ordered = sorted(found, key=lambda point: _of(point).speedup)
    top, bottom = ordered[-1], ordered[0]
    counts = Counter(_of(point).verdict for point in found)
    text = f"{kernel} {direction}: {_words(top)}"
    if len(found) > 1:
        told = ", ".join(f"{count} {name}" for name, count in counts.most_common())
        text += f". The fastest own row beside the best vendor row in {len(found)} cases: {told}"
        text += f"; at worst {_words(bottom)}" if _of(bottom).speedup < 1 else ""
        text += ". Intervals are those of one pair alone (95 %); the largest of many ratios is large by chance, too"
    best = _of(top)
    return Observation(
        id=f"vendor {kernel} {direction}",
        text=text + ".",
        numbers={
            "speedup": best.speedup,
            "low": best.low,
            "high": best.high,
            "rounds": best.rounds,
            "cases": len(found),
            **{name.lower(): counts[name] for name in ("FASTER", "SLOWER", "SAME", "AMBIGUOUS")},
        },
    )


def _of(point: Point) -> BesideVendor:
    assert point.beside_vendor is not None
    return point.beside_vendor


def _words(point: Point) -> str:
    beside = _of(point)
    interval = (
        f" [{beside.low:.2f}, {beside.high:.2f}]" if beside.low and beside.high else " (too few rounds to be sure)"
    )
    return (
        f"{point.implementation} is {beside.speedup:.2f} times as fast as the best vendor row, {beside.vendor},"
        f"{interval}, paired over {beside.rounds} rounds ({point.dtype}, {point.shape_text})"
    )

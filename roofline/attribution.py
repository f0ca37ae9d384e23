"""Which wall binds, told by experiments instead of floors, and how far that agrees with the model. Pure rules.

Each experiment is a ratio of two times of the same rounds. Data rotated through more than twice the last cache against
the same data again, and, where the data of a call exceed that cache, the whole batch against slices of it that fit:
what slows down waits for memory. Half the threads against all: what slows down nearly as much as they are fewer is
bound by what belongs to cores, their arithmetic or their caches. Twice the steps at half the batch, which is the same
number of tokens: what slows down waits for the steps. Half the threads also read memory more slowly, so that experiment
speaks only where memory is excluded: by the first two, or, where no slice fits, by a case of half the arithmetic on
nearly all of the bytes that takes half of the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from ._view import case_text
from .experiments import Attribution, Ratio, SeenWall
from .record import Observation, Point, Wall
from .stats import median_interval
from .units import percent
from .walls import holds, share_of_floor

# Slower than this on data that no cache holds: memory. A quarter of the time is then spent on what a cache would save.
UNCACHED = 1.3
# Of the slowdown that fewer threads would cost a call that does nothing but compute: 1.6 where half would cost 2.
HALVED_SHARE = 0.8
# No call can be slowed down by more than threads are fewer; so much above that, something else was in the way.
IMPLAUSIBLE = 1.5
# Slower than this with twice the steps and as many tokens: serial. A call that only waits takes twice as long.
LONGER = 1.6
# Slower than this than half of its arithmetic on four fifths of its bytes or more: it does not wait for memory, which
# would leave at most a quarter of the time to save.
LIGHTER = 1.6
# More disagreements than these are told by kernel and walls; rows tell every one.
MOST_LISTED = 6

SEEN_WORDS: dict[SeenWall, str] = {
    "memory": "memory",
    "compute": "cores",
    "serial": "serial",
    "undetermined": "undetermined",
}
# The walls of the model that each seen one stands for. A core takes its caches along when it is left out, so that
# experiment does not tell its arithmetic from their bandwidth.
MODELLED: dict[SeenWall, tuple[Wall, ...]] = {
    "memory": ("dram",),
    "compute": ("compute", "cache"),
    "serial": ("serial",),
}


def ratio_of(over: Sequence[float], under: Sequence[float]) -> Ratio:
    """The paired ratio of two times that were measured in the same rounds."""
    low, middle, high = median_interval([a / b for a, b in zip(over, under)])
    return Ratio(value=middle, low=low, high=high, rounds=len(over))


def decide(
    rotated: Ratio | None,
    sliced: Ratio | None,
    halved: Ratio | None,
    longer: Ratio | None,
    *,
    lighter: Ratio | None = None,
    threads: int | None,
    cold: bool,
    in_cache: bool,
    untried: dict[str, str],
) -> Attribution:
    """Tell the wall from the ratios.

    lighter : the case over one of half its arithmetic on nearly all of its bytes, where no slice of it fits.
    threads : of the full arm; the other has half of them, rounded down. cold : the case is one that meets cold caches.
    in_cache : its data fit in the last cache, so that using them again spares the memory; what does not fit is
    `sliced`. untried : why an experiment was not made, by its name.
    """
    shown: list[SeenWall] = []
    if (cold and _slower(rotated, UNCACHED)) or _slower(sliced, UNCACHED):
        shown.append("memory")
    if _slower(longer, LONGER):
        shown.append("serial")
    # A slice that is slower for other reasons, its few rows for example, would hide what the memory costs.
    fitting = sliced is not None and sliced.value > 1 / UNCACHED
    excluded = (rotated is not None or not cold) if in_cache else fitting or _slower(lighter, LIGHTER)
    fewer = threads / (threads // 2) if threads else 1.0
    spoke = _slower(halved, HALVED_SHARE * fewer) and halved is not None and halved.value < IMPLAUSIBLE * fewer
    if spoke and excluded and "memory" not in shown:
        shown.append("compute")
    wall: SeenWall = shown[0] if len(shown) == 1 else "undetermined"
    ratios = {"rotated": rotated, "sliced": sliced, "lighter": lighter, "halved": halved, "longer": longer}
    reason = _reason(wall, shown, spoke and not excluded, untried)
    return Attribution(wall=wall, threads=threads, reason=reason, **ratios)


def _slower(ratio: Ratio | None, threshold: float) -> bool:
    """Whether an experiment shows a slowdown: beyond its threshold, and none at all outside its interval."""
    return ratio is not None and ratio.value > threshold and ratio.low > 1.0


def _reason(wall: SeenWall, shown: list[SeenWall], unclear: bool, untried: dict[str, str]) -> str:
    if wall != "undetermined":
        text = {
            "memory": "slower when its data are not in a cache",
            "compute": "slower by as much as threads are fewer, not for want of memory: a core's arithmetic or caches",
            "serial": "slower with twice the steps at the same number of tokens",
        }[wall]
    elif shown:
        text = f"several experiments slow it down: {' and '.join(SEEN_WORDS[name] for name in shown)}"
    elif unclear:
        text = "half the threads are slower, but may read memory more slowly, and no experiment excludes that"
    else:
        text = "no experiment slows it down enough"
    return "; ".join([text, *(f"{name} not tried: {why}" for name, why in untried.items())])


def agrees(point: Point) -> bool | None:
    """Whether experiments and model name the same wall; None where either names none."""
    found = point.attribution
    if found is None or found.wall == "undetermined" or point.bound is None:
        return None
    return any(wall in (point.bound, point.contested_with) for wall in MODELLED[found.wall])


def ratios_text(found: Attribution) -> str:
    """Write the ratios that were measured: "rotated data 1.82 x, half the threads 1.05 x"."""
    named = (
        ("rotated data", found.rotated),
        ("whole over slices in cache", found.sliced),
        ("all over half the arithmetic", found.lighter),
        (f"{found.threads // 2} of {found.threads} threads" if found.threads else "", found.halved),
        ("twice the steps, half the batch", found.longer),
    )
    return ", ".join(f"{name} {ratio.value:.2f} x" for name, ratio in named if ratio is not None)


def seen_text(point: Point) -> str:
    """Write what the experiments saw; nothing where none were made."""
    found = point.attribution
    if found is None:
        return ""
    ratios = ratios_text(found)
    return f"seen without floors: {SEEN_WORDS[found.wall]} ({ratios or found.reason})"


def agreement(points: Iterable[Point]) -> list[Observation]:
    """How often experiments and model agree, and where they do not: every case of a few, by kernel and walls of many.

    Points that run at half of their floor's speed or better are counted for themselves: of them the model says that
    the wall holds. Of the others the highest floor explains less than half of the time.
    """
    tried = [point for point in points if point.attribution is not None and point.status == "ok" and point.bound]
    if not tried:
        return []
    held = [point for point in tried if holds(point)]
    against = [point for point in tried if agrees(point) is False]
    numbers: dict[str, float | str | None] = {"points": len(tried), "held": len(held)}
    numbers |= _shares(tried) | {f"{name}_held": value for name, value in _shares(held).items()}
    text = f"Attribution without floors: {_told(tried)}"
    if held and len(held) < len(tried):
        text += f"; where the modelled wall holds, at half of its floor's speed or better: {_told(held)}"
    told = map(_disagreement, against) if len(against) <= MOST_LISTED else _grouped(against)
    text += "." + (f" Not on: {'; '.join(told)}." if against else "")
    return [Observation(id="attribution", text=text, numbers=numbers)]


def _shares(tried: Sequence[Point]) -> dict[str, float | None]:
    """How many of these points experiments determine, the share that they do not, and how often the model agrees."""
    determined = [point for point in tried if agrees(point) is not None]
    agreed = sum(agrees(point) is True for point in determined)
    return {
        "determined": len(determined),
        "undetermined": 1 - len(determined) / len(tried) if tried else None,
        "agreement": agreed / len(determined) if determined else None,
    }


def _told(tried: Sequence[Point]) -> str:
    """Write the shares: "20 points, 10 % undetermined, experiments and model agree on 17 of 18 (94 %)"."""
    shares = _shares(tried)
    text = f"{len(tried)} points, {percent(shares['undetermined'] or 0.0)} undetermined"
    if shares["agreement"] is None:
        return text
    agreed = sum(agrees(point) is True for point in tried)
    agreed_on = f"{agreed} of {shares['determined']:.0f} ({percent(shares['agreement'])})"
    return f"{text}, experiments and model agree on {agreed_on}"


def why_not(point: Point) -> str:
    """Why experiments may see another wall than the model: how far the point is from its floor, and what they saw."""
    assert point.attribution is not None
    far = "" if holds(point) else ", which explains less than half of the time"
    return f"runs at {percent(share_of_floor(point))} of that floor{far}; {ratios_text(point.attribution)}"


def _grouped(against: Sequence[Point]) -> Iterator[str]:
    """Disagreements by kernel and walls, with how far their points are from the modelled floor."""

    def kind(point: Point) -> tuple[str, str, str]:
        assert point.attribution is not None
        return point.kernel, str(point.bound), SEEN_WORDS[point.attribution.wall]

    for (kernel, modelled, seen), group in groupby(sorted(against, key=kind), key=kind):
        shares = sorted(map(share_of_floor, group))
        span = " to ".join(dict.fromkeys(percent(share) for share in (shares[0], shares[-1])))
        yield f"{kernel}, {modelled} modelled, {seen} seen: {len(shares)} at {span} of that floor"
    yield "every row says what its experiments measured"


def _disagreement(point: Point) -> str:
    found = point.attribution
    assert found is not None
    case = f"{point.kernel} {point.implementation} {case_text(point)}"
    return f"{case}: {point.bound} modelled, {SEEN_WORDS[found.wall]} seen ({why_not(point)})"

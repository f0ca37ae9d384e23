"""Two runs, point by point: SAME, FASTER, SLOWER or AMBIGUOUS, and what could not be compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .comparison_model import Noise
from .ratio import BAND, Ratio, Verdict, advice, overall, unpaired, verdict
from .record import Environment, Point, Run
from .run_noise import FEWEST_POINTS, HOW_TO_MEASURE, KnownNoise, assumed

# What two runs show of their own noise says nothing of a single point: its tails are far longer than a normal law's.
UNMEASURED = f"the noise between runs was not measured here, and a single point may differ by more: {HOW_TO_MEASURE}"
# No noise does this: identical code was seen to differ by a factor of two between runs of a restless machine.
UNMISTAKABLE = 10.0


@dataclass(frozen=True)
class Comparison:
    """One point of both runs. advice : what would settle it, empty unless it is AMBIGUOUS."""

    point: Point
    ratio: Ratio
    verdict: Verdict
    advice: str = ""


@dataclass(frozen=True)
class LeftOut:
    """A point that was measured in one of the runs at least and could not be compared, with the reason.

    lost : the status that it has in NEW where BASE had measured it, "missing" where NEW does not hold it; else empty.
    """

    point: Point
    why: str
    lost: str = ""


@dataclass(frozen=True)
class Comparisons:
    """All of two runs. hidden : points compared in neither list, for they are no headlines and were not asked for."""

    found: tuple[Comparison, ...]
    left_out: tuple[LeftOut, ...]
    overall: Ratio | None
    verdict: Verdict | None
    noise: KnownNoise
    band: float
    hidden: int = 0

    @property
    def lost(self) -> list[str]:
        """What became of points that BASE had measured and NEW has not."""
        return [left.lost for left in self.left_out if left.lost]

    @property
    def slower(self) -> bool:
        """Whether a point, or all of them together, became slower."""
        return "SLOWER" in (self.verdict, *(comparison.verdict for comparison in self.found))


def noise_between(base: Run, new: Run, stored: Noise | None = None) -> KnownNoise:
    """The noise of the machine as measured: newest of what the runs and this computer know; else see `assumed`."""
    known = [noise for noise in (new.noise, base.noise, stored) if noise is not None and belongs(noise, new)]
    if known:
        newest = max(known, key=lambda noise: noise.when)
        source = f"seqroof doctor --aa, {newest.when[:10]}"
        return KnownNoise(newest.between_runs, "measured", source, newest.workers - 1)
    pairs = [(old, fresh) for old, fresh in _paired_up(base, new) if old and fresh and _timed(old) and _timed(fresh)]
    return assumed(base, new, pairs)


def belongs(noise: Noise, run: Run) -> bool:
    """Whether a noise was measured on the machine and in the set-up of a run."""
    environment = run.environment
    known = noise.computer_hash and environment.computer_hash
    return (noise.machine, noise.device_hash, noise.threads) == (
        run.machine.id,
        environment.device_hash,
        environment.threads,
    ) and (not known or noise.computer_hash == environment.computer_hash)


def compare_runs(base: Run, new: Run, noise: KnownNoise, band: float = BAND, everything: bool = False) -> Comparisons:
    """Compare what both runs measured, headlines only unless `everything`; says of the rest why it was not.

    What failed in the new run is said of every point.
    """
    pairs = list(_paired_up(base, new))
    shown = [pair for pair in pairs if everything or _headline(pair) or _lost(*pair) not in ("", "missing", "skipped")]
    ratios: list[tuple[Point, Ratio]] = []
    left_out = []
    for old, fresh in shown:
        if old and fresh and _timed(old) and _timed(fresh):
            assert old.time_s and fresh.time_s
            ratios.append((fresh, unpaired(old.time_s, fresh.time_s, noise.value, noise.freedom)))
        elif why := _why_not(old, fresh):
            point = fresh or old
            assert point is not None, "a pair has at least one side"
            left_out.append(LeftOut(point, why, _lost(old, fresh)))
    known = noise.provenance == "measured"
    found = tuple(_judged(point, ratio, band, len(ratios), known) for point, ratio in ratios)
    whole = overall([ratio for _, ratio in ratios])
    ruling = verdict(whole, band) if whole else None
    if whole and not known and len(ratios) < FEWEST_POINTS and ruling in ("FASTER", "SLOWER") and not _plain(whole):
        ruling = "AMBIGUOUS"  # a mean of so few is little more than one of them
    return Comparisons(found, tuple(left_out), whole, ruling, noise, band, len(pairs) - len(shown))


def _judged(point: Point, ratio: Ratio, band: float, among: int, known: bool) -> Comparison:
    """The verdict of one point. known : whether the noise between runs was measured; else it may hide in any point."""
    ruling = verdict(ratio, band, among)
    if not known and ruling in ("FASTER", "SLOWER") and not _plain(ratio):
        return Comparison(point, ratio, "AMBIGUOUS", UNMEASURED)
    return Comparison(point, ratio, ruling, advice(ratio, band, among) if ruling == "AMBIGUOUS" else "")


def _plain(ratio: Ratio) -> bool:
    """Whether a ratio is so far from 1, with its whole interval, that no noise explains it."""
    return ratio.low is not None and ratio.high is not None and max(ratio.low, 1 / ratio.high) > UNMISTAKABLE


def _paired_up(base: Run, new: Run) -> Iterator[tuple[Point | None, Point | None]]:
    """Points of both runs by key, in the order of the new one, then those of the old one alone."""
    old, fresh = ({point.key: point for point in run.points} for run in (base, new))
    yield from ((old.get(key), point) for key, point in fresh.items())
    yield from ((point, None) for key, point in old.items() if key not in fresh)


def _headline(pair: tuple[Point | None, Point | None]) -> bool:
    return any(point is not None and point.headline for point in pair)


def _lost(old: Point | None, fresh: Point | None) -> str:
    """What became of a point that BASE measured: its status in NEW, or "missing"; empty where nothing was lost."""
    if old is None or not _timed(old) or (fresh is not None and _timed(fresh)):
        return ""
    return fresh.status if fresh is not None else "missing"


def _timed(point: Point) -> bool:
    return point.status == "ok" and point.time_s is not None


def _why_not(old: Point | None, fresh: Point | None) -> str:
    """Why a point could not be compared; empty where neither run tried to measure it."""
    sides = (("BASE", old), ("NEW", fresh))
    if all(point is None or point.status == "skipped" for _, point in sides):
        return ""
    told = []
    for name, point in sides:
        if point is None:
            told.append(f"not in {name}")
        elif not _timed(point):
            told.append(f"{point.status} in {name}" + (f" ({point.reason})" if point.reason else ""))
    return ", ".join(told)


# What older runs do not hold: unknown on one side, it is no difference.
_KNOWN_LATELY = ("computer", "units", "memory nodes", "caches")


def identity(machine_id: str, environment: Environment) -> tuple[str, str, str, int | None]:
    """What tells one computer in one set-up from every other: runs in which it is equal may stand for one another."""
    return machine_id, environment.device_hash, environment.computer_hash, environment.threads


def set_up(machine_id: str, environment: Environment) -> dict[str, object]:
    """What two runs must have in common for their ratio to say something about the code."""
    return {
        "machine": machine_id,
        "device": environment.device_hash,
        "threads": environment.threads,
        "system": environment.os,
        "computer": environment.computer_hash,
        "units": environment.units,
        "memory nodes": environment.memory_nodes,
        "caches": environment.caches,
    }


def differences(base: dict[str, object], new: dict[str, object]) -> list[str]:
    """How two set-ups differ, in words; empty when they are the same."""
    return [
        f"{name} {base[name] or 'unknown'} in BASE, {new[name] or 'unknown'} in NEW"
        for name in base
        if base[name] != new[name] and not (name in _KNOWN_LATELY and not (base[name] and new[name]))
    ]


def not_told(base: dict[str, object], new: dict[str, object]) -> str:
    """A sentence where nothing tells whether two set-ups are one and the same device; else empty."""
    if any(base[name] and new[name] for name in ("device", "computer")):
        return ""
    return "The runs do not tell whether they come from one computer: equal processors may differ in what they reach."

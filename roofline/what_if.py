"""What a change of the machine or of the design would buy, by the model; and how far measured pairs bear that out.

The time in question is the model's estimate, the latency of the chain plus the largest other floor, so everything here
is modelled. Scaling every rate up and the latency down by one factor scales it by that factor, so the elasticities of
compute, DRAM, cache and latency add up to one. Pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

from .contract import Chain, Weights
from .floors import FloorSet, best_floors, best_residency, own_floors
from .machine import Ceiling, Machine
from .record import CacheState, Point
from .stats import median
from .work import Work

FACTORS = (2.0, 4.0, 10.0)
BEST = "the best possible design"
# Half of the step of the difference quotient: small against any factor of interest, large against rounding.
STEP = 0.01
# What an 8-bit unit would do beside a 16-bit one: assumed, after what vendors state of the parts that have both.
NARROWER_RATE = 2.0


@dataclass(frozen=True)
class Case:
    """One call in the class of a design; without `weights` and `chain` in that of the best possible one."""

    work: Work
    dtype: str
    cache: CacheState
    weights: Weights | None = None
    chain: Chain | None = None
    hoists: bool = False
    depth: int | None = None

    @property
    def best(self) -> Case:
        """The same call by the best possible design."""
        return Case(self.work, self.dtype, self.cache)

    @classmethod
    def of(cls, point: Point) -> Case | None:
        """The case of a recorded point; None where it declares no work."""
        if point.work is None or point.weights is None or point.chain is None:
            return None
        return cls(point.work, point.dtype, point.cache, point.weights, point.chain, point.hoists, point.depth)


def time_s(case: Case, machine: Machine) -> float | None:
    """Estimated seconds of a call; None where the rate of its unit or the latency of its chain is not known."""
    return _floors(case, machine).estimate_s


def least_s(case: Case, machine: Machine) -> float | None:
    """The largest floor that is known for a machine, whatever else is not; None where none is."""
    return _floors(case, machine).largest_s


def _floors(case: Case, machine: Machine) -> FloorSet:
    if case.weights is None or case.chain is None:
        return best_floors(case.work, case.dtype, machine, case.cache)
    how = {"hoists": case.hoists, "depth": case.depth}
    return own_floors(case.work, case.dtype, case.weights, case.chain, machine, case.cache, **how)


# Those that make a time; how much a cache holds only decides which of them do.
RATES = ("compute", "dram", "cache", "latency")
RESOURCES: dict[str, tuple[str, Callable[[Ceiling], bool]]] = {
    "compute": ("arithmetic", lambda roof: roof.quantity == "rate"),
    "dram": ("DRAM bandwidth", lambda roof: roof.quantity == "bandwidth" and roof.level == "dram"),
    "cache": ("cache bandwidth", lambda roof: roof.quantity == "bandwidth" and roof.level != "dram"),
    "latency": ("step latency", lambda roof: roof.quantity == "latency"),
    "capacity": ("cache and chip size", lambda roof: roof.quantity == "capacity"),
}


# Times the bandwidth outside: HBM-PIM states four beside its banks; ten is for a part that does not exist.
INSIDE_FACTORS = (4.0, 10.0)
INSIDE_WORDS = (
    "Inside the memory: units beside its banks take in every byte there, at so many times the bandwidth of DRAM, and "
    "no cache is in the way; arithmetic and latencies stay as they are (supposed; HBM-PIM states 4 x)."
)

# What an interval and its value are; scaled together.
_VALUES = ("value", "low", "high")
# How the steps of one launch can wait for one another.
_LASTING: tuple[Chain, ...] = ("barrier", "inside")


def scaled(machine: Machine, resource: str, factor: float) -> Machine:
    """The machine with so many times as much of a resource; latencies are divided by the factor."""
    _, concerns = RESOURCES[resource]

    def changed(roof: Ceiling) -> Ceiling:
        by = 1 / factor if roof.quantity == "latency" else factor
        values = {name: value * by for name in _VALUES if (value := getattr(roof, name)) is not None}
        return roof.model_copy(update=values | {"provenance": "modelled", "how": f"{factor:g} x: {roof.how}"})

    counting = machine.counting()
    return counting.model_copy(
        update={"ceilings": tuple(changed(roof) if concerns(roof) else roof for roof in counting.ceilings)}
    )


def inside_memory(machine: Machine, factor: float) -> Machine:
    """The machine with its units beside the banks of its memory, as `INSIDE_WORDS` says; no slower anywhere."""
    faster = scaled(machine, "dram", factor)
    inside = faster.best("bandwidth", "dram")
    concerns = RESOURCES["cache"][1]

    def raised(roof: Ceiling) -> Ceiling:
        if inside is None or not concerns(roof) or roof.value >= inside.value:
            return roof
        ends = {"low": inside.low, "high": inside.high}
        return roof.model_copy(update={"value": inside.value, "provenance": "modelled", "how": inside.how, **ends})

    return faster.model_copy(update={"ceilings": tuple(map(raised, faster.ceilings))})


def elasticities(case: Case, machine: Machine) -> dict[str, float]:
    """Percent of time that one percent more of each rate saves; empty where the time cannot be estimated.

    What a cache holds is left out: it moves the time in steps, of which a derivative says nothing.
    """
    if not time_s(case, machine):
        return {}
    found = {}
    for resource in RATES:
        more, less = (time_s(case, scaled(machine, resource, factor)) for factor in (1 + STEP, 1 / (1 + STEP)))
        found[resource] = math.log(less / more) / (2 * math.log(1 + STEP)) if more and less else 0.0
    return found


def gains(case: Case, machine: Machine) -> dict[str, dict[float, float]]:
    """How many times as fast the call would be with 2, 4 and 10 times as much of each resource."""
    now = time_s(case, machine)
    if not now:
        return {}
    return {
        resource: {factor: now / (time_s(case, scaled(machine, resource, factor)) or now) for factor in FACTORS}
        for resource in RESOURCES
    }


def halved(work: Work) -> Work:
    """The same work on numbers of half the width: half of all bytes, as many operations."""
    smaller = tuple(
        term.model_copy(update={"amount": term.amount // 2}) if term.quantity.endswith("bytes") else term
        for term in work.terms
    )
    sizes = {
        name: getattr(work, name) // 2 for name in ("weight_bytes", "recurrent_bytes", "state_bytes", "saved_bytes")
    }
    return work.model_copy(update={"terms": smaller, **sizes})


def narrower(case: Case, machine: Machine) -> tuple[str, Case, Machine]:
    """The call on numbers of half the width, with what that is in words.

    From 32 to 16 bits on the machine's own units for them; from 16 to 8 bits on units of twice the rate (assumed).
    """
    if case.dtype in ("fp32", "tf32"):
        return "16-bit numbers", replace(case, work=halved(case.work), dtype="bf16"), machine

    def doubled(roof: Ceiling) -> Ceiling:
        if roof.quantity != "rate" or roof.dtype != case.dtype:
            return roof
        values = {name: NARROWER_RATE * value for name in _VALUES if (value := getattr(roof, name)) is not None}
        how = f"{NARROWER_RATE:g} x the rate of {case.dtype}: {roof.how}"
        return roof.model_copy(update=values | {"provenance": "assumed", "how": how})

    counting = machine.counting()
    faster = counting.model_copy(update={"ceilings": tuple(map(doubled, counting.ceilings))})
    words = "8-bit numbers, products at twice the rate (assumed)"
    return words, replace(case, work=halved(case.work)), faster


def designs(case: Case, machine: Machine) -> dict[str, Case]:
    """Other designs of the same call by what they change, the best possible one last.

    Weights can be kept where those that meet the state fit on the chip, and only as long as a launch lasts.
    """
    found = {}
    if case.weights == "reread" and case.work.depth > 1 and best_residency(case.work, machine) == "chip":
        known = {chain: roof.value for chain in _LASTING if (roof := machine.best("latency", chain))}
        if known:
            # One multiprocessor cannot hold what the whole chip can, so on a GPU the steps meet at a barrier.
            together = machine.device == "cuda" and "barrier" in known
            chain = "barrier" if together else min(known, key=known.__getitem__)
            found["weights kept on chip, one launch"] = replace(case, weights="kept", chain=chain, depth=None)
    if case.work.depth > 1:
        if not case.hoists and case.work.hoisted_bytes < case.work.streamed_bytes:
            found["input product once for all steps"] = replace(case, hoists=True)
        words: dict[Chain, str] = {"graph": "a graph of launches", "barrier": "one launch, a barrier per step"}
        found |= {text: replace(case, chain=chain) for chain, text in words.items() if chain != case.chain}
    return found | {BEST: case.best}


@dataclass(frozen=True)
class Check:
    """A measured pair beside the model: how many times as fast per token the second is.

    change : what differs, "B=1 to 2" or "fp32 to bf16". low, high : of the measured ratio, from both intervals.
    """

    kernel: str
    implementation: str
    case: str
    change: str
    modelled: float
    measured: float
    low: float
    high: float

    @property
    def off(self) -> float:
        """By what factor the model is off, at least 1; 1 where its value lies within the interval."""
        if self.low <= self.modelled <= self.high:
            return 1.0
        return math.exp(abs(math.log(self.modelled / self.measured)))


def checks(points: Iterable[Point]) -> list[Check]:
    """Pairs of one run that differ in one thing the model has an opinion on: the batch, or the width of the numbers.

    Only what may be scored: measured, valid, the headline's state of the caches, with an estimate and tokens.
    """
    usable = [point for point in points if point.status == "ok" and point.headline and _rate(point)]
    return [*_pairs(usable, _but_batch, _batch), *_pairs(usable, _but_dtype, _width)]


def _rate(point: Point) -> float | None:
    """Modelled tokens per second."""
    tokens = point.work.tokens if point.work else 0
    return tokens / point.estimate_s if point.time_s and point.estimate_s else None


def _batch(point: Point) -> tuple[int, str]:
    return point.shape["B"], f"B={point.shape['B']}"


def _width(point: Point) -> tuple[int, str]:
    return ("fp32", "bf16").index(point.dtype), point.dtype


def _but_batch(point: Point) -> tuple | None:
    rest = tuple(item for item in point.shape.items() if item[0] != "B")
    return (*_row(point), point.dtype, rest) if "B" in point.shape else None


def _but_dtype(point: Point) -> tuple | None:
    return (*_row(point), tuple(point.shape.items())) if point.dtype in ("fp32", "bf16") else None


def _row(point: Point) -> tuple:
    return (point.kernel, point.implementation, point.direction, point.cache, point.clock, str(point.device))


def _pairs(
    points: Sequence[Point], same: Callable[[Point], tuple | None], differing: Callable[[Point], tuple[int, str]]
) -> list[Check]:
    keyed = [(repr(key), point) for point in points if (key := same(point)) is not None]
    keyed.sort(key=lambda entry: (entry[0], differing(entry[1])))
    found = []
    for _, members in groupby(keyed, key=lambda entry: entry[0]):
        found += [_check(a, b, differing) for (_, a), (_, b) in pairwise(members) if differing(a) != differing(b)]
    return found


def _check(before: Point, after: Point, differing: Callable[[Point], tuple[int, str]]) -> Check:
    assert before.work and after.work and before.time_s and after.time_s and before.estimate_s and after.estimate_s
    tokens = after.work.tokens / before.work.tokens
    old, new = before.time_s, after.time_s
    changed = f"{differing(before)[1]} to {differing(after)[1].removeprefix('B=')}"
    return Check(
        kernel=before.kernel,
        implementation=before.implementation,
        case=f"{before.shape_text} {before.dtype} {before.direction}",
        change=changed,
        modelled=tokens * before.estimate_s / after.estimate_s,
        measured=tokens * old.median / new.median,
        low=tokens * old.low / new.high,
        high=tokens * old.high / new.low,
    )


def typical_error(found: Sequence[Check]) -> float:
    """The median factor by which the model is off; at least one check."""
    return median([check.off for check in found])

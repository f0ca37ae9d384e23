"""How machines grew over the years: dense 16-bit rate, bandwidth and ridge point, and an LSTM step on each of them.

Rates and bandwidths are those of the catalogue, each with its mark there; growths are fitted to them (derived), and
what a step uses of a machine is modelled. Pure functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from . import trend
from .floors import best_floors
from .machine import Machine, Provenance
from .record import Fraction
from .units import percent, si
from .what_if import Case, time_s
from .work import Work

HALVES = ("bf16", "fp16")
# About one generation of parts.
PERIOD_YEARS = 2.0
# A line through fewer parts has an interval that says nothing.
FEWEST_PARTS = 6
BATCHES = (1, 16, 64)
# A step whose batch is larger has left recurrence behind: more sequences than anybody serves at once.
LARGEST_BATCH = 2**20

Of = Literal["rate", "bandwidth", "over"]
WORDS: dict[Of, str] = {"rate": "dense 16-bit FLOP/s", "bandwidth": "DRAM B/s", "over": "ridge point, FLOP/B"}
WorkOf = Callable[[int, str], Work]


@dataclass(frozen=True)
class Rated:
    """A part of which both figures are known. rate : dense FLOP/s of `dtype`; bandwidth : of its memory, in B/s.

    marks : where the two figures come from. note : what else a reader of the rate should know, mostly empty.
    """

    machine: Machine
    year: int
    dtype: str
    rate: float
    bandwidth: float
    marks: tuple[Provenance, Provenance]
    note: str = ""

    @property
    def id(self) -> str:
        """The part's id in the catalogue."""
        return self.machine.id

    @property
    def over(self) -> float:
        """Its ridge point: operations per byte at which both take as long."""
        return self.rate / self.bandwidth

    @property
    def assumed(self) -> bool:
        """Whether one of the figures was not checked against its sheet."""
        return "assumed" in self.marks

    @property
    def mark(self) -> str:
        """Where the figures come from, in a word or two."""
        return " and ".join(dict.fromkeys(self.marks))


def rated(machine: Machine) -> Rated | None:
    """Dense 16-bit rate and bandwidth of a datacentre part; None of others, and where one of them is not known."""
    return _rated(machine) if machine.machine_class == "datacentre" else None


def _rated(machine: Machine) -> Rated | None:
    found = [roof for dtype in HALVES if (roof := machine.best("rate", "tensor", dtype))]
    memory = machine.best("bandwidth", "dram")
    if not machine.year or not found or memory is None:
        return None
    rate = max(found, key=lambda roof: roof.value)
    marks = (rate.provenance, memory.provenance)
    note = rate.how.partition("; ")[2]  # what the catalogue adds to the source of a figure
    return Rated(machine, machine.year, rate.dtype, rate.value, memory.value, marks, note)


def parts(catalogue: Iterable[Machine]) -> list[Rated]:
    """The parts that growth is fitted to, ordered by year."""
    return sorted((known for machine in catalogue if (known := rated(machine))), key=lambda part: part.year)


def left_out(catalogue: Iterable[Machine]) -> dict[str, list[str]]:
    """The ids of machines that growth is not fitted to, by the reason."""
    found: dict[str, list[str]] = {}
    for machine in catalogue:
        if machine.machine_class != "datacentre":
            found.setdefault(f"of the class {machine.machine_class}, no datacentre part", []).append(machine.id)
        elif not rated(machine):
            found.setdefault("no dense 16-bit rate of it is known", []).append(machine.id)
    return found


def growth_of(of: Sequence[Rated], what: Of, years: float = PERIOD_YEARS) -> Fraction:
    """The factor by which a figure grows in so many years, with its 95 % interval."""
    return trend.growth([part.year for part in of], [getattr(part, what) for part in of], years)


def fits(of: Sequence[Rated], fewest: float = FEWEST_PARTS) -> bool:
    """Whether there are parts enough, of three years at least, for a line with an interval."""
    return len({part.year for part in of}) >= 3 and len(of) >= fewest


def beside(of: Sequence[Rated], years: float, fewest: float) -> list[tuple[str, Fraction]]:
    """Growth of the ridge point over all parts, one part per rate, and without the part that raises it most."""
    found = [("", growth_of(of, "over", years))]
    # Variants of one die share their rate and differ in memory; the first of them stands for all.
    dies = list({part.rate: part for part in sorted(of, key=lambda part: part.year, reverse=True)}.values())
    if 3 <= len(dies) < len(of) and len({part.year for part in dies}) > 1:
        found.append((", one part per rate", growth_of(dies, "over", years)))
    if len(of) > fewest:
        left = [
            (f", without {part.id}", growth_of([other for other in of if other is not part], "over", years))
            for part in of
        ]
        # The one part on whose presence the interval rests most, at its lower end.
        found.append(min(left, key=lambda entry: entry[1].low))
    return found


def growths(catalogue: Iterable[Machine]) -> list[tuple[str, Fraction]]:
    """Growth per two years of rate, bandwidth and ridge point, and how that of the ridge point depends on the parts.

    Raises `ValueError` with a sentence where the parts are too few.
    """
    machines = list(catalogue)
    used = parts(machines)
    if not fits(used):
        raise ValueError(f"growth needs {FEWEST_PARTS} parts of three years with both figures; there are {len(used)}")
    tpus = [known for machine in machines if machine.machine_class == "tpu" and (known := _rated(machine))]
    found = [(words, growth_of(used, what)) for what, words in WORDS.items()]
    found += [(f"{WORDS['over']}{how}", value) for how, value in beside(used, PERIOD_YEARS, FEWEST_PARTS)[1:]]
    if tpus:
        found.append((f"{WORDS['over']}, with TPUs", growth_of([*used, *tpus], "over")))
    return found


@dataclass(frozen=True)
class Use:
    """What an LSTM step uses of a part, by the model; caches cold.

    units : by batch, the compute floor over the largest floor of the best possible design: the most of its arithmetic
    that can be busy. machine : by batch, the best possible floor over the modelled time of a step that is launched and
    reads its weights; None where the latency of a launch is not known. takes_over : the batch from which arithmetic
    binds the best possible design; None where it never does.
    """

    part: Rated
    units: tuple[float | None, ...]
    machine: tuple[float | None, ...]
    takes_over: int | None


def uses(of: Iterable[Rated], work_of: WorkOf) -> list[Use]:
    """The use that a step makes of every part. work_of : the work at a batch, in a dtype."""
    return [_use(part, work_of) for part in of]


def _use(part: Rated, work_of: WorkOf) -> Use:
    works = [work_of(batch, part.dtype) for batch in BATCHES]
    return Use(
        part,
        tuple(_units(work, part) for work in works),
        tuple(_of_machine(work, part) for work in works),
        takes_over(part, work_of),
    )


def _units(work: Work, part: Rated) -> float | None:
    found = best_floors(work, part.dtype, part.machine, "cold")
    compute = found.floors.compute
    return compute / found.largest_s if compute is not None and found.largest_s else None


def _of_machine(work: Work, part: Rated) -> float | None:
    launched = Case(work, part.dtype, "cold", "reread", "launch")
    time, least = time_s(launched, part.machine), best_floors(work, part.dtype, part.machine, "cold").largest_s
    return least / time if time and least else None


def takes_over(part: Rated, work_of: WorkOf) -> int | None:
    """The smallest batch at which arithmetic binds the best possible design; None where none up to a million does."""

    def binds(batch: int) -> bool:
        return (_units(work_of(batch, part.dtype), part) or 0.0) >= 1.0

    high = 1
    while not binds(high):
        high *= 2
        if high > LARGEST_BATCH:
            return None
    low = high // 2 + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if binds(middle) else (middle + 1, high)
    return high


PART_HEADINGS = ("part", "year", "FLOP/s", "B/s", "FLOP/B", "figures")
_AT = tuple(f"B={batch}" for batch in BATCHES)
USE_HEADINGS = ("part", "year", f"units {_AT[0]}", *_AT[1:], "from", f"machine {_AT[0]}", *_AT[1:])


def part_cells(part: Rated) -> tuple[str, ...]:
    """The texts of a part under `PART_HEADINGS`."""
    rate, bandwidth = si(part.rate, "FLOP/s"), si(part.bandwidth, "B/s")
    return part.id, str(part.year), rate, bandwidth, f"{part.over:.0f}", part.mark


def growth_cells(name: str, growth: Fraction) -> tuple[str, str, str]:
    """A growth per two years and its interval."""
    return name, f"x {growth.value:.2f}", f"[{growth.low:.2f}, {growth.high:.2f}]"


def use_cells(use: Use) -> tuple[str, ...]:
    """The texts of a use under `USE_HEADINGS`."""
    turn = f"B={use.takes_over}" if use.takes_over else "never"
    shares = [percent(share) for share in (*use.units, *use.machine)]
    return use.part.id, str(use.part.year), *shares[: len(BATCHES)], turn, *shares[len(BATCHES) :]

"""Least possible times: the four floors of an implementation's own class, and of the best possible one.

A floor is a sound lower bound, so whatever the hardware could save is taken off: a cache that keeps its content
between warm calls need not ask the level below for what it holds, and written data that fit in a cache need not have
left it when the clock stops. Where it is not known how much is saved, the most is: a capacity counts with the upper
end of its interval, and a mix of reads and writes with the faster of the patterns around it. Nothing here measures; it
is arithmetic on a `Work` and a `Machine`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .contract import Chain, Weights
from .machine import Ceiling, Machine
from .record import WALLS, CacheState, Floors, Wall
from .units import binary_bytes, si
from .work import Work

Residency = Literal["dram", "cache", "chip"]

# How a step with a matrix product can wait for the one before, the fastest first: the best possible design takes it.
WAITS = ("inside", "barrier", "graph", "launch")
# Operations of the recurrent product in the step that `inside` is taken with on a CPU, nn.LSTM of 8 units for one
# sequence. Steps with less than half of it may wait for less, so their bound is the chain of registers.
INSIDE_FLOPS = 2 * 4 * 8 * 8
# Two floors this close cannot be told apart by a measurement, so both are named.
CONTEST_SHARE = 0.9


@dataclass(frozen=True)
class FloorSet:
    """Floors with their wall. `notes[wall]` says how each came about; `spread` is the relative interval of the roof."""

    floors: Floors
    residency: Residency
    bound: Wall | None
    contested_with: Wall | None
    largest_s: float | None
    spread: float
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def estimate_s(self) -> float | None:
        """Modelled time: the chain's latency plus the largest of the other floors; None unless both are known."""
        if self.floors.serial is None or self.floors.compute is None:
            return None
        others = [value for wall in WALLS if wall != "serial" and (value := getattr(self.floors, wall)) is not None]
        return self.floors.serial + max(others)


def capacity(machine: Machine, level: str) -> float:
    """Bytes that a level holds: the measured knee where there is one, else the stated size, else 0."""
    held = machine.best("capacity", level)
    return held.value if held else 0.0


def most_held(machine: Machine, level: str) -> float:
    """Bytes that a level may save the one below: the upper end of the knee, where its bandwidth has fallen."""
    return max((held.high or held.value for held in machine.find("capacity", level)), default=0.0)


def matmul_rate(machine: Machine, dtype: str) -> Ceiling | None:
    """The rate of the unit that multiplies matrices of a dtype: vector units for strict fp32, tensor units else."""
    unit = "simt" if dtype in ("fp32", "fp64") else "tensor"
    return machine.best("rate", unit, dtype)


def _compute(work: Work, dtype: str, machine: Machine, least: bool = False) -> tuple[float | None, str, float]:
    """Largest of the three compute times, with the unit's name and the roof's spread.

    least : without what a design that keeps its results need not compute again.
    """
    products, functions = (work.recomputed_flops, work.recomputed_ops) if least else (0, 0)
    demands = (
        ("matrix products", work.matmul_flops - products, matmul_rate(machine, dtype)),
        ("pointwise operations", work.pointwise_flops, machine.best("rate", "simt", "fp32")),
        ("special functions", work.special_ops - functions, machine.best("rate", "special")),
    )
    known = [(count / roof.value, name, roof) for name, count, roof in demands if count and roof is not None]
    unknown = [name for name, count, roof in demands if count and roof is None]
    missing = f"; rate of {' and '.join(unknown)} not known" if unknown else ""
    # What the pointwise operations need says next to nothing of a kernel whose products are left out.
    if not known or demands[0][0] in unknown:
        return None, f"not known{missing}", 0.0
    time_s, name, roof = max(known, key=lambda entry: entry[0])
    unit = roof.unit if name != "special functions" else "op/s"
    return time_s, f"{name} at {si(roof.value, unit)} ({roof.provenance}){missing}", roof.spread


def compute_spread(work: Work, dtype: str, machine: Machine) -> float:
    """The relative interval of the roof that sets the compute floor."""
    return _compute(work, dtype, machine)[2]


def _moved(total: float, write_bytes: float, holds: float, cache: CacheState) -> float:
    """Bytes that must cross a level's boundary when the level above it holds `holds` bytes."""
    if cache == "warm":
        return max(0.0, total - holds)
    return total - min(write_bytes, holds, total)


def _read_shares(total: float, write_bytes: float, moved: float, cache: CacheState) -> tuple[float, float]:
    """The least and the largest share of reads, whatever of the saved bytes the level above really keeps.

    Warm, reads and writes may be saved alike; cold, none of the reads.
    """
    read_bytes = total - min(write_bytes, total)
    if cache == "warm":
        return max(0.0, moved - write_bytes) / moved, min(read_bytes, moved) / moved
    return read_bytes / total, min(1.0, read_bytes / moved)


def _bytes_floor(
    level: str, total: float, work: Work, holds: float, cache: CacheState, machine: Machine
) -> tuple[float | None, str, float]:
    moved = _moved(total, work.write_bytes, holds, cache)
    if moved == 0:
        return 0.0, f"nothing need move: {binary_bytes(total)} fit above it", 0.0
    roof = machine.fastest(level, *_read_shares(total, work.write_bytes, moved, cache))
    if roof is None:
        return None, f"{level} bandwidth of {machine.id} not known", 0.0
    text = f"{si(moved, 'B')} at {si(roof.value, 'B/s')} ({roof.provenance}, {roof.pattern})"
    return moved / roof.value, text, roof.spread


def _element_wise(work: Work) -> bool:
    """Whether steps wait for one another without a matrix product between them, so that registers hold the chain."""
    return work.depth > 1 and not (work.matmul_flops and work.step_products)


def _waits(work: Work) -> tuple[str, ...]:
    """What steps of the best possible design may wait for, the fastest first."""
    if _element_wise(work):
        return ("pointwise",)
    recurrent = work.recurrent_bytes / work.weight_bytes if work.weight_bytes else 1.0
    tiny = work.matmul_flops * recurrent < work.depth * INSIDE_FLOPS / 2
    return ("pointwise", *WAITS) if tiny and work.depth > 1 else WAITS


def _serial(
    work: Work, levels: tuple[str, ...], machine: Machine, depth: int | None = None
) -> tuple[float | None, str, float]:
    """The floor of the chain with the fastest of `levels`, which begin with what is fastest wherever all are known.

    Where that one is not known, the least of the others is no lower bound: it gives no floor on a machine that was
    measured, and is said to stand in on one of the catalogue, whose rows state few latencies.
    """
    known = [roof for level in levels if (roof := machine.best("latency", level)) is not None]
    stands_in = bool(known) and machine.best("latency", levels[0]) is None
    if not known or (stands_in and machine.measured):
        missing = levels[0] if stands_in else " or ".join(levels)
        return None, f"latency of {missing} on {machine.id} not known", 0.0
    roof = min(known, key=lambda ceiling: ceiling.value)
    count = depth or work.depth
    steps = f"{count} dependent step" + ("s" if count > 1 else "")
    if count != work.depth:
        steps += f" ({work.depth} would do)"
    text = f"{steps} x {si(roof.value, 's')} ({roof.level}, {roof.provenance})"
    if stands_in:
        text += f"; latency of {levels[0]} not known, the least known wait stands in for it"
    return count * roof.value, text, roof.spread


def _assemble(entries: dict[Wall, tuple[float | None, str, float]], residency: Residency) -> FloorSet:
    floors = Floors(**{wall: entry[0] for wall, entry in entries.items()})
    notes = {wall: entry[1] for wall, entry in entries.items()}
    largest = floors.largest()
    bound: Wall | None = None
    contested: Wall | None = None
    if largest is not None and largest[1] > 0:
        bound = largest[0]
        rest: list[tuple[float, Wall]] = [(getattr(floors, wall) or 0.0, wall) for wall in WALLS if wall != bound]
        second, wall = max(rest)
        contested = wall if second >= CONTEST_SHARE * largest[1] else None
    spread = entries[bound][2] if bound else 0.0
    return FloorSet(floors, residency, bound, contested, largest[1] if largest else None, spread, notes)


def residency_of(work: Work, weights: Weights, machine: Machine, hoists: bool = False) -> Residency:
    """Where the weights of a dependent step live, from the machine's capacities."""
    if weights == "kept":
        return "chip"
    return "dram" if _per_step(work, hoists) > most_held(machine, "cache") else "cache"


def _per_step(work: Work, hoists: bool) -> int:
    """Bytes that a dependent step reads again."""
    return (work.recurrent_bytes if hoists else work.weight_bytes) + work.state_bytes


def _returns(depth: int, streamed: int, per_pass: int) -> int:
    """How often a call comes back to bytes that it used in the step before.

    A stack goes through its weights more often than its chain has steps, for its layers may work side by side.
    """
    return max(depth, streamed // max(1, per_pass)) - 1 if depth > 1 else 0


def _from_below(least: int, streamed: int, returns: int, held: float) -> int:
    """Bytes that come from below a level that keeps up to `held` bytes from each pass to the next, `least` anyway."""
    return max(least, streamed - returns * int(held))


def _traffic(
    work: Work, residency: Residency, *, exchanged: int, streamed: int, per_pass: int, near: float, shared: float
) -> tuple[int, int]:
    """Bytes of a call that come from the shared cache, and from DRAM, by where the weights live.

    | weights in | from the shared cache               | from DRAM                                       |
    | chip       | exchanged                           | compulsory                                      |
    | cache      | streamed - near, exchanged at least | compulsory                                      |
    | dram       | streamed - near, exchanged at least | streamed - (near + shared), compulsory at least |

    exchanged : the compulsory bytes and what steps hand to one another. streamed : those of all passes where nothing is
    kept. per_pass : of one of them. near, shared : what is kept from each pass to the next, taken off at every return:
    nearer than the shared cache, and in it.
    """
    cache_bytes, dram_bytes = exchanged, work.compulsory_bytes
    returns = _returns(work.depth, streamed, per_pass)
    if residency != "chip":
        cache_bytes = _from_below(min(exchanged, streamed), streamed, returns, near)
    if residency == "dram":
        dram_bytes = _from_below(work.compulsory_bytes, streamed, returns, near + shared)
    return cache_bytes, dram_bytes


def own_floors(
    work: Work,
    dtype: str,
    weights: Weights,
    chain: Chain,
    machine: Machine,
    cache: CacheState,
    *,
    hoists: bool = False,
    depth: int | None = None,
) -> FloorSet:
    """Floors of an implementation's own class: as it stores its weights and waits for its steps.

    hoists : the input product is done once for all steps. depth : dependent steps where they are not those of the work.
    """
    residency = residency_of(work, weights, machine, hoists)
    private, shared = most_held(machine, "private"), most_held(machine, "cache")
    # The streamed bytes leave out what a single step need not write twice, such as the last state beside the output.
    streamed = max(work.hoisted_bytes if hoists else work.streamed_bytes, work.compulsory_bytes)
    exchanged = work.compulsory_bytes + work.depth * work.exchange_bytes
    cache_bytes, dram_bytes = _traffic(
        work,
        residency,
        exchanged=exchanged,
        streamed=streamed,
        per_pass=_per_step(work, hoists),
        near=private,
        shared=shared,
    )
    levels = ("pointwise",) if _element_wise(work) and chain == "inside" else (chain,)
    return _assemble(
        {
            "compute": _compute(work, dtype, machine),
            "dram": _bytes_floor("dram", dram_bytes, work, shared, cache, machine),
            "cache": _bytes_floor("cache", cache_bytes, work, private, cache, machine),
            "serial": _serial(work, levels, machine, depth),
        },
        residency,
    )


def best_residency(work: Work, machine: Machine) -> Residency:
    """The nearest place that holds what every step of a recurrence needs again: its recurrent weights."""
    if work.depth == 1 or work.recurrent_bytes <= max(most_held(machine, "chip"), most_held(machine, "private")):
        return "chip"
    return "cache" if work.recurrent_bytes <= most_held(machine, "cache") else "dram"


def best_floors(work: Work, dtype: str, machine: Machine, cache: CacheState) -> FloorSet:
    """Floors of the best possible implementation on this machine.

    The weights that meet the state stay on chip where its capacity allows, else in the shared cache, else they are
    streamed; the input product is done once for all steps where that moves less; steps wait for the fastest mechanism.
    """
    private, shared, chip = (most_held(machine, level) for level in ("private", "cache", "chip"))
    residency = best_residency(work, machine)
    streamed = max(work.compulsory_bytes, min(work.hoisted_bytes, work.streamed_bytes))
    handed_on = work.depth * work.exchange_bytes if work.depth > 1 else 0
    exchanged = min(work.compulsory_bytes + handed_on, streamed)
    cache_bytes, dram_bytes = _traffic(
        work,
        residency,
        exchanged=exchanged,
        streamed=streamed,
        per_pass=work.recurrent_bytes,
        near=max(chip, private),
        shared=shared,
    )
    return _assemble(
        {
            "compute": _compute(work, dtype, machine, least=True),
            "dram": _bytes_floor("dram", dram_bytes, work, shared, cache, machine),
            "cache": _bytes_floor("cache", cache_bytes, work, private, cache, machine),
            "serial": _serial(work, _waits(work), machine),
        },
        residency,
    )

"""Gauges: how one limit of a machine is sampled, and how samples become a ceiling.

All gauges of a device are taken in interleaved rounds in shuffled order, so that a drift of the machine reaches all of
them alike. A round is worth the lower quartile of its samples: one lucky sample does not set it, and a neighbour that
takes the processor half of the time does not either. A ceiling is worth its best round, because a limit is what the
machine can do and a disturbance only takes away from that; for the same reason its interval, `low` to `high`, is the
range of the better half of the rounds.
"""

from __future__ import annotations

import datetime
import itertools
import random
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..roofline.machine import Ceiling, Quantity, Unit
from ..roofline.units import binary_bytes

# A working set is inside a cache while its bandwidth is within this share of the plateau.
PLATEAU_SHARE = 0.8
# What the method of the gauge begins with that does what the calibration copy of a run does.
CALIBRATION_OPERATION, CALIBRATION_SCOPE = "copy_,", "calibration"


@dataclass(frozen=True)
class Effort:
    """How long to measure: rounds, seconds per gauge and round, the largest array, and seconds of a sustained load."""

    rounds: int
    round_s: float
    most_bytes: int
    load_s: float = 0.0


EFFORTS = {
    # Six rounds is the least from which an interval can be read; 512 MiB is four times most last caches.
    # A quarter of a second shows what a turbo clock does at once; five are what power and heat need to settle.
    "quick": Effort(rounds=6, round_s=0.008, most_bytes=512 * 2**20, load_s=0.25),
    "full": Effort(rounds=15, round_s=0.04, most_bytes=2048 * 2**20, load_s=5.0),
}
# Between kernels: short enough to be repeated often. Three rounds are the fewest whose better half is an interval.
RECHECK = Effort(rounds=3, round_s=0.016, most_bytes=512 * 2**20)


def effort_named(effort: str | Effort) -> Effort:
    """An effort by name; raises `ValueError` with a sentence for a name that does not exist."""
    if isinstance(effort, Effort):
        return effort
    if effort not in EFFORTS:
        raise ValueError(f"There is no effort {effort!r}; efforts are {', '.join(EFFORTS)}.")
    return EFFORTS[effort]


@dataclass(frozen=True)
class Gauge:
    """One way to measure one limit; several gauges may compete for the same ceiling.

    sample : runs once and returns seconds. difference : they are the difference of two times, so that noise can make
        them too small or negative; a round is then worth its median.
    amount : bytes or operations per sample for bandwidths and rates; 1 for latencies, whose value is the time.
    how : the operation and its size. scope : as in `Ceiling`.
    """

    quantity: Quantity
    level: str
    unit: Unit
    sample: Callable[[], float]
    how: str
    amount: float = 1.0
    dtype: str = ""
    pattern: str = ""
    difference: bool = False
    scope: str = ""

    @property
    def name(self) -> str:
        """What it measures and how."""
        return f"{self.quantity} {self.level} {self.dtype} by {self.how}"

    def value(self, time_s: float) -> float:
        """The limit that a time stands for."""
        return time_s if self.quantity == "latency" else self.amount / time_s

    def ceiling(self, rounds_s: Iterable[float]) -> Ceiling | None:
        """The ceiling of so many rounds; None where no round gave a positive time."""
        times = sorted(time_s for time_s in rounds_s if time_s > 0)
        if not times:
            return None
        values = [self.value(time_s) for time_s in times[: (len(times) + 1) // 2]]
        return Ceiling(
            quantity=self.quantity,
            level=self.level,
            dtype=self.dtype,
            pattern=self.pattern,
            scope=self.scope,
            value=values[0],
            low=min(values),
            high=max(values),
            unit=self.unit,
            provenance="measured",
            how=self.how,
            when=datetime.date.today().isoformat(),
        )


def take(
    gauges: Sequence[Gauge],
    effort: Effort,
    progress: Callable[[str], None],
    seed: int = 0,
    what: str = "ceilings",
) -> list[Ceiling | None]:
    """Sample all gauges in interleaved rounds; one entry per gauge, None where it could not be measured.

    progress : told, in words, which gauge is tried first, which one is left out and why, and that rounds go on.
    what : names the rounds. Another one in every call of a request: a worker that only repeats itself counts as hung.
    """
    usable = [index for index, gauge in enumerate(gauges) if _warm_up(gauge, progress)]
    rounds_s: dict[int, list[float]] = {index: [] for index in usable}
    shuffle = random.Random(seed)
    for number in range(effort.rounds):
        progress(f"{what}, round {number + 1} of {effort.rounds}")
        shuffle.shuffle(usable)
        for index in list(usable):
            samples = _survived(gauges[index], partial(_samples, gauges[index], effort.round_s), progress)
            if samples is None:
                usable.remove(index)  # the rounds before still count
            else:
                rounds_s[index].append(_typical(gauges[index], samples))
    return [gauge.ceiling(rounds_s.get(index, [])) for index, gauge in enumerate(gauges)]


def _warm_up(gauge: Gauge, progress: Callable[[str], None]) -> bool:
    """Run a gauge once; says whether it can be."""
    progress(gauge.name)  # its kernel may have to be compiled, or may hang: then this is the last that was heard
    return _survived(gauge, gauge.sample, progress) is not None


def _survived(gauge: Gauge, sampled: Callable[[], Any], progress: Callable[[str], None]) -> Any:
    """What a gauge gave; None where it failed, as for an operation that this torch lacks: that must cost no other."""
    try:
        return sampled()
    except Exception as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        progress(f"{gauge.name} left out: {first_line}")
        return None


def _samples(gauge: Gauge, round_s: float) -> list[float]:
    """The samples that fit into `round_s`, at least one.

    The first sample meets the caches as the last gauge left them, so it is dropped where there is time for another.
    """
    start = time.perf_counter()
    samples = [gauge.sample()]
    if time.perf_counter() - start < round_s:
        samples.clear()
    while not samples or time.perf_counter() - start < round_s:
        samples.append(gauge.sample())
    return samples


def _typical(gauge: Gauge, samples: list[float]) -> float:
    """What a round is worth: see the top of this file."""
    if gauge.difference:
        return statistics.median(samples)
    return sorted(samples)[(len(samples) - 1) // 4]


def with_calibration(taken: Iterable[Ceiling | None]) -> list[Ceiling | None]:
    """Add the copy by torch's `copy_` as a row of its own, whatever copies fastest: the calibration copy is one."""
    found = list(taken)
    copies = [
        c for c in found if c and (c.level, c.pattern) == ("dram", "copy") and c.how.startswith(CALIBRATION_OPERATION)
    ]
    return [*found, *(copy.model_copy(update={"scope": CALIBRATION_SCOPE}) for copy in copies)]


def best_of(ceilings: Iterable[Ceiling | None]) -> list[Ceiling]:
    """Keep the most favourable of the ceilings that compete for one place: largest, for latencies smallest."""
    best: dict[tuple[str, ...], Ceiling] = {}
    for ceiling in ceilings:
        if ceiling is None:
            continue
        held = best.get(place(ceiling))
        if held is None or better(ceiling, held):
            best[place(ceiling)] = ceiling
    return list(best.values())


def holding(gauges: Sequence[Gauge], ceilings: Iterable[Ceiling]) -> list[Gauge]:
    """The gauges by which these ceilings were measured, told by their method; none for places that are not known.

    Where none of a place has the method, as arrays were of another size then, all gauges of the place are handed back.
    """
    methods: dict[tuple[str, ...], list[str]] = {}
    for ceiling in ceilings:
        if ceiling.scope in ("", CALIBRATION_SCOPE):
            methods.setdefault(place(ceiling)[:-1], []).append(ceiling.how)
    found = []
    for key, texts in methods.items():
        rivals = [gauge for gauge in gauges if (gauge.quantity, gauge.level, gauge.dtype, gauge.pattern) == key]
        found += [rival for rival in rivals if any(text.startswith(rival.how) for text in texts)] or rivals
    return found


def place(ceiling: Ceiling) -> tuple[str, ...]:
    """What a ceiling is about; two ceilings of one place describe the same limit."""
    return ceiling.quantity, ceiling.level, ceiling.dtype, ceiling.pattern, ceiling.scope


def better(one: Ceiling, other: Ceiling) -> bool:
    """Whether `one` is the more favourable limit."""
    return one.value < other.value if one.quantity == "latency" else one.value > other.value


def knee(sizes: Sequence[float], bandwidths: Sequence[float]) -> float | None:
    """The largest working set, in the unit of `sizes`, that still reaches 80 % of the plateau.

    sizes : rising working sets; bandwidths : what each reached. The plateau is the highest bandwidth that two
    neighbouring sizes both reach, so one lucky size does not raise it. None where the curve never falls below 80 %:
    the cache cannot be told from what lies under it. Raises `ValueError` on fewer than three sizes.
    """
    if len(sizes) < 3 or len(sizes) != len(bandwidths):
        raise ValueError(
            f"A knee needs three or more sizes with a bandwidth each, not {len(sizes)}, {len(bandwidths)}."
        )
    plateau = max(min(pair) for pair in itertools.pairwise(bandwidths))
    inside = [size for size, bandwidth in zip(sizes, bandwidths) if bandwidth >= PLATEAU_SHARE * plateau]
    return None if inside[-1] == sizes[-1] else inside[-1]


def cache_ceilings(
    working_sets: Sequence[int], taken: Sequence[Ceiling | None], reported: int, progress: Callable[[str], None]
) -> list[Ceiling]:
    """What read bandwidths over rising working sets say about a cache: its capacity and the readings inside it.

    Without a knee no capacity is claimed, and the readings up to the reported size stand for the cache.
    """
    curve = [(size, ceiling) for size, ceiling in zip(working_sets, taken) if ceiling is not None]
    found = knee([size for size, _ in curve], [ceiling.value for _, ceiling in curve]) if len(curve) > 2 else None
    if found is None:
        progress("the last cache cannot be told from memory here: its read bandwidth never falls")
        return [ceiling for size, ceiling in curve if size <= reported]
    capacity = Ceiling(
        quantity="capacity",
        level="cache",
        pattern="knee",
        value=found,
        low=found,
        high=min(size for size in working_sets if size > found),
        unit="B",
        provenance="measured",
        how=f"largest of {len(curve)} working sets up to {binary_bytes(curve[-1][0])} read at 80 % of the plateau",
        when=curve[0][1].when,
    )
    return [capacity, *(ceiling for size, ceiling in curve if size <= found)]


def geometric(first: float, last: float, ratio: float, multiple: int) -> list[int]:
    """Sizes from `first` up to `last` in steps of `ratio`, each rounded up to a multiple."""
    sizes: list[int] = []
    size = first
    while size <= last * 1.001:  # the last size must not be lost to rounding
        rounded = -(-int(size) // multiple) * multiple
        if not sizes or rounded > sizes[-1]:
            sizes.append(rounded)
        size *= ratio
    return sizes

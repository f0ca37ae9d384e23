"""Clocks: seconds per call on a CPU (monotonic clock) and on a GPU (events, graph replay, host).

A *subject* is one implementation with its input sets. Cold subjects rotate through copies that together exceed twice
the last cache; warm subjects call the same set again. Rounds interleave all subjects in shuffled order, so a drift of
the machine reaches all of them alike.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from time import monotonic, perf_counter_ns  # held here: replacing them in `time` changes nothing
from typing import Protocol, TypeVar

from ..roofline.record import CacheState, Clock, Timing
from ..roofline.stats import FEWEST_SAMPLES, median, percentile, timing_interval
from ..roofline.steadiness import QUIET_WIDTH, drifts
from .second_clock import Account, raw_ns

T = TypeVar("T")

# A sample shorter than this is mostly clock: warm calls are repeated inside one sample until it is reached.
LEAST_SAMPLE_S = 100e-6
# Rounds stop when the interval is this narrow, or when the budget is spent.
NARROW = 0.005
LEAST_ROUNDS = 6
MOST_ROUNDS = 40
# Rounds that share a budget. More take as much longer, each as long as these, or they would not narrow an interval.
SHARING_ROUNDS = 3 * LEAST_ROUNDS
# Whoever is noisy or drifts when the budget is spent goes on alone, for up to as long again: what is unsteady after the
# few rounds of a small budget was mostly disturbed in some of them only. More would not fit a suite into its minute.
OVERTIME = 1.0
# Telling the parent takes a processor away from what is timed, so it is told that rounds go on once in a while only.
TELL_EVERY_S = 1.0
# Of calls that take longer one tells how long they take: far longer than what is repeated within a sample.
SLOW_CALL_S = 0.05
# Six rounds of a case that takes seconds per call may cost this many times the budget, then fewer have to do.
PATIENCE = 5


class Stopwatch(Protocol):
    """Times `calls[i % len(calls)]()` for i in a range, one sample at a time."""

    def sample(self, calls: list[Callable[[], object]], first: int, repeats: int) -> list[float]:
        """Seconds per call: `repeats` calls starting at index `first`; one value for each call, or their mean."""
        ...


@dataclass
class Subject:
    """What is timed: `calls` run the same implementation on rotating input sets.

    rotated_bytes : of all that cold calls rotate through; None where nothing is rotated.
    """

    name: str
    cache: CacheState
    clock: Clock
    calls: list[Callable[[], object]]
    stopwatch: Stopwatch
    rounds: list[list[float]] = field(default_factory=list)
    position: int = 0
    repeats: int = 1
    estimate_s: float = 0.0
    rotated_bytes: int | None = None

    def prepare(self, tell: Callable[[], object] = lambda: None) -> None:
        """Warm up twice, then choose how many warm calls make one sample. tell : told before every step."""
        for _ in range(2):
            tell()
            self.calls[0]()
        tell()
        self.estimate_s = self.stopwatch.sample(self.calls, 0, 1)[0]
        if self.estimate_s < SLOW_CALL_S:
            self.estimate_s = median(self.stopwatch.sample(self.calls, 0, 3))
        if self.cache == "warm":
            self.repeats = max(1, min(10_000, round(LEAST_SAMPLE_S / max(self.estimate_s, 1e-9))))

    def measure_round(self, budget_s: float) -> None:
        """Add one round of at least one sample, more while the budget allows."""
        samples: list[float] = []
        deadline = monotonic() + budget_s
        with self.account.round() if self.account else nullcontext():
            while True:
                values = self.stopwatch.sample(self.calls, self.position, self.repeats)
                self.position += self.repeats
                # Warm repeats are one sample: their mean. Cold calls are one sample each.
                samples.append(sum(values) / len(values))
                if monotonic() >= deadline or len(samples) >= 200:
                    break
        self.rounds.append(samples)

    @property
    def account(self) -> Account | None:
        """What other clocks say of the same samples; a device's stopwatches keep none."""
        return getattr(self.stopwatch, "account", None)

    @property
    def unsteady(self) -> bool:
        """Whether it is noisy or drifts so far, and may go on."""
        if len(self.rounds) >= MOST_ROUNDS:
            return False
        return self.width > QUIET_WIDTH or drifts([median(samples) for samples in self.rounds])

    @property
    def width(self) -> float:
        """The width of the interval so far, relative to the median."""
        low, middle, high = timing_interval(self.rounds)
        return (high - low) / middle

    def timing(self, stop: str, interleaved: str = "") -> Timing:
        """Summarise all rounds; `interleaved` names the measurement that they belong to."""
        low, middle, high = timing_interval(self.rounds)
        pooled = [value for samples in self.rounds for value in samples]
        if len(pooled) < FEWEST_SAMPLES:
            stop += "; fewer than six samples, so the interval is their range"
        return Timing(
            median=middle,
            low=low,
            high=high,
            min=min(pooled),
            p95=percentile(pooled, 0.95),
            n=len(pooled),
            rounds=len(self.rounds),
            rounds_s=tuple(median(samples) for samples in self.rounds),
            stop=stop,
            interleaved=interleaved,
        )


class HostStopwatch:
    """The monotonic clock of the host. Cold calls are timed one by one, warm ones as a block.

    finish : waits until the device is idle; nothing on a CPU.
    """

    def __init__(self, block: bool, finish: Callable[[], object] | None = None) -> None:
        self.block = block
        self.finish = finish or (lambda: None)
        self.account = Account()

    def sample(self, calls: list[Callable[[], object]], first: int, repeats: int) -> list[float]:
        """Time a block of calls as one, or every call for itself."""
        count = len(calls)
        if self.block:
            # The same set throughout a warm sample, another one in the next: the footprint stays that of one call.
            call = calls[(first // max(repeats, 1)) % count]
            call()
            self.finish()
            raw, start = raw_ns(), perf_counter_ns()
            for _ in range(repeats):
                call()
            self.finish()
            passed = perf_counter_ns() - start
            self.account.sample(passed, raw)
            return [passed * 1e-9 / repeats]
        values = []
        for index in range(first, first + repeats):
            call = calls[index % count]
            raw, start = raw_ns(), perf_counter_ns()
            call()
            self.finish()
            passed = perf_counter_ns() - start
            self.account.sample(passed, raw)
            values.append(passed * 1e-9)
        return values


def measure(
    subjects: list[Subject],
    budget_s: float,
    rounds: int | None,
    seed: int,
    on_round: Callable[[int], None] = lambda done: None,
    on_prepare: Callable[[Subject], object] = lambda subject: None,
    on_slice: Callable[[int], None] = lambda index: None,
) -> dict[int, Timing]:
    """Time all subjects in interleaved rounds; returns a timing for the index of each subject.

    budget_s : for all of them; more than `SHARING_ROUNDS` rounds that were asked for take as much longer.
    rounds : exactly so many; None means at least six, then until every interval is within 0.5 % of its median or
        the budget is spent; those that are unsteady then go on, for up to `OVERTIME` times as long.
    on_prepare, on_round : told who is warmed up, before every step of that, and the number of every finished round.
    on_slice : told whose part of a round has just ended; nothing is being timed then.
    """
    shuffle = random.Random(seed)
    for subject in subjects:
        subject.prepare(partial(on_prepare, subject))
    on_round(0)
    order = list(range(len(subjects)))
    slice_s = budget_s / max(1, len(subjects)) / min(rounds or SHARING_ROUNDS, SHARING_ROUNDS)
    deadline = monotonic() + budget_s
    done, stop = 0, ""
    while not stop:
        shuffle.shuffle(order)
        for index in order:
            subjects[index].measure_round(slice_s)
            on_slice(index)
        done += 1
        on_round(done)
        stop = _why_stop(subjects, done, rounds, deadline, deadline + PATIENCE * budget_s)
    stops = dict.fromkeys(range(len(subjects)), stop)
    if rounds is None and done >= LEAST_ROUNDS:
        stops |= _overtime(subjects, slice_s, monotonic() + OVERTIME * budget_s, shuffle, on_slice)
    together = uuid.uuid4().hex[:12]
    return {index: subject.timing(stops[index], together) for index, subject in enumerate(subjects)}


def _overtime(
    subjects: list[Subject], slice_s: float, deadline: float, shuffle: random.Random, on_slice: Callable[[int], None]
) -> dict[int, str]:
    """Go on with those that are unsteady, in turn; returns why each of them stopped.

    Their first rounds still stand beside those of the others, for comparisons by rounds.
    """
    stops: dict[int, str] = {}
    while monotonic() < deadline:
        going_on = [index for index, subject in enumerate(subjects) if subject.unsteady]
        if not going_on:
            break
        # Six at a time: whoever stopped at the first round that looks quiet would look quieter than it is.
        for _ in range(LEAST_ROUNDS):
            shuffle.shuffle(going_on)
            for index in going_on:
                subjects[index].measure_round(slice_s)
                on_slice(index)
        for index in going_on:
            stops[index] = "time budget spent, and more rounds because it was unsteady"
    return stops


def seldom(tell: Callable[[T], object], every_s: float = TELL_EVERY_S) -> Callable[[T], None]:
    """Pass on the first call, and later ones when so much time has gone by since the last that was passed on."""
    last = float("-inf")

    def told(news: T) -> None:
        nonlocal last
        if monotonic() - last >= every_s:
            last = monotonic()
            tell(news)

    return told


def _why_stop(subjects: list[Subject], done: int, rounds: int | None, deadline: float, latest: float) -> str:
    if rounds is not None:
        return f"{done} rounds as asked" if done >= rounds else ""
    if done < LEAST_ROUNDS:
        return f"{done} rounds only, calls are slow" if monotonic() >= latest else ""
    if monotonic() >= deadline:
        return "time budget spent"
    if done >= MOST_ROUNDS:
        return f"{MOST_ROUNDS} rounds"
    if any(subject.width > 2 * NARROW for subject in subjects):
        return ""
    return "interval within 0.5 % of the median"

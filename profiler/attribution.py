"""The experiments that tell which wall binds without floors: data in and out of caches, fewer threads, more steps.

They are made after the timing, forward only, at the headline's state of the caches. All arms of an implementation take
turns, one sample each in every round, so that a drift of the machine reaches them alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..roofline.attribution import decide, ratio_of
from ..roofline.experiments import Attribution
from ..roofline.stats import median
from .calls import Group
from .clock import Subject
from .other_cases import lighter, longer, slice_of, touched_bytes
from .points import HEADLINE_CLOCK

# Experiments together may take this share of what the timing of a group was given.
BUDGET_SHARE = 1 / 2
# Of 21 ratios the interval leaves out the five lowest, so a neighbour who takes a processor in some rounds hides no
# wall; of seven it is their whole range. Below three a median means nothing.
ROUNDS, FEWEST_ROUNDS = 21, 3
# A sample shorter than this is mostly clock.
SAMPLE_S = 1e-3
# The fewest rounds are made whatever the budget, unless one of them takes longer than this.
SLOW_ROUND_S = 3.0
# Where no knee was measured: a virtual machine reports the whole last cache of its host and gets a part of it.
CACHE_SHARE = 0.5
TOO_SLOW = "its calls are too slow for these experiments"

Emit = Callable[..., None]


@dataclass
class Arm:
    """One side of an experiment: calls under a stopwatch, with so many threads (None for all)."""

    calls: list[Callable[[], object]]
    stopwatch: Any
    threads: int | None = None
    repeats: int = 1
    samples: list[float] = field(default_factory=list)
    position: int = 0

    def sample(self) -> float:
        """Seconds per call of one sample."""
        before = torch.get_num_threads()
        if self.threads:
            torch.set_num_threads(self.threads)
        try:
            values = self.stopwatch.sample(self.calls, self.position, self.repeats)
        finally:
            if self.threads:
                torch.set_num_threads(before)
        self.position += self.repeats
        return sum(values) / len(values)


def attribute(group: Group, subjects: Sequence[Subject], options: dict[str, Any], emit: Emit) -> None:
    """Make the experiments for every implementation that was timed; emits `attribution` for each."""
    if not options.get("attribution") or group.direction != "forward":
        return
    names = list(dict.fromkeys(subject.name for subject in subjects))
    for name in names:
        emit("begin", implementation=name, stage="attribution")
        clock = HEADLINE_CLOCK[group.device.kind]
        own = {subject.cache: subject for subject in subjects if (subject.name, subject.clock) == (name, clock)}
        headline = "cold" if group.module.work(group.shape, group.dtype, "forward").depth == 1 else "warm"
        cold = (headline if headline in own else next(iter(own))) == "cold"  # some suites time one state only
        try:
            budget_s = BUDGET_SHARE * options["budget_s"] / len(names)
            found = _experiments(group, name, own, cold, budget_s, options.get("cache_bytes"))
        except Exception as error:  # whatever fails here, the time is known
            group.device.finish()
            why = f"the experiments failed: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
            found = Attribution(wall="undetermined", reason=why)
        emit(
            "attribution",
            implementation=name,
            cache="cold" if cold else "warm",
            clock=clock,
            found=found.model_dump(),
        )


def _experiments(
    group: Group, name: str, own: dict[str, Subject], cold: bool, budget_s: float, cache_bytes: float | None
) -> Attribution:
    untried: dict[str, str] = {}
    base = own["cold" if cold else "warm"]
    warm = own.get("warm") or dataclasses.replace(
        base, cache="warm", calls=base.calls[:1], stopwatch=group.device.stopwatch("warm", base.clock), rounds=[]
    )
    if 2 * base.estimate_s > SLOW_ROUND_S:
        return Attribution(wall="undetermined", reason=TOO_SLOW)
    held_bytes = cache_bytes or CACHE_SHARE * group.device.last_cache_bytes()
    whole_bytes = touched_bytes(group, name, group.shape, warm.calls[0])
    in_cache = whole_bytes <= held_bytes
    arms = {"case": Arm(base.calls, base.stopwatch)}
    slices, threads = 1, _threads(group, untried)
    if threads:
        arms["halved"] = Arm(base.calls, base.stopwatch, threads // 2)
    if not in_cache:
        slices, call = slice_of(group, name, held_bytes, untried)
        if call is not None:
            arms["slice"] = Arm([call], warm.stopwatch)
        elif threads and (calls := lighter(group, name, whole_bytes, held_bytes, cold, untried)):
            arms["lighter"] = Arm(calls, base.stopwatch)
    doubled = longer(group, name, untried)
    if doubled is not None:
        arms["longer"] = Arm([doubled[1]], warm.stopwatch)
    if cold and (in_cache or doubled is not None):
        arms["warm"] = Arm(warm.calls, warm.stopwatch)
    if _interleave(arms, budget_s) < FEWEST_ROUNDS:
        return Attribution(wall="undetermined", reason=TOO_SLOW)
    times = {key: arm.samples for key, arm in arms.items()}
    again = times.get("warm", times["case"])
    steps = None
    if doubled is not None:
        steps = ratio_of(times["longer"], again) if doubled[0] else ratio_of(again, times["longer"])
    return decide(
        ratio_of(times["case"], again) if cold and in_cache else None,
        ratio_of(times["case"], [slices * time for time in times["slice"]]) if "slice" in times else None,
        ratio_of(times["halved"], times["case"]) if threads else None,
        steps,
        lighter=ratio_of(times["case"], times["lighter"]) if "lighter" in times else None,
        threads=threads,
        cold=cold,
        in_cache=in_cache,
        untried=untried,
    )


def _threads(group: Group, untried: dict[str, str]) -> int | None:
    """How many threads the full arm has; None where they cannot be fewer."""
    if group.device.kind != "cpu":
        untried["halved"] = "a GPU cannot be asked to use fewer of its multiprocessors"
        return None
    if torch.get_num_threads() < 2:
        untried["halved"] = "there is one thread only"
        return None
    return torch.get_num_threads()


def _interleave(arms: dict[str, Arm], budget_s: float) -> int:
    """Sample all arms in turn; returns the rounds that were made, 0 where one of them takes too long."""
    for arm in arms.values():
        arm.sample()
    # A warm sample makes one call more than it times.
    round_s = 2 * sum(arm.sample() for arm in arms.values())
    if round_s > SLOW_ROUND_S:
        return 0
    for arm in arms.values():
        once = max(1e-9, median([arm.sample() for _ in range(2)]))
        arm.repeats = max(1, min(1000, round(SAMPLE_S / once)))
    rounds = max(FEWEST_ROUNDS, min(ROUNDS, int(budget_s / max(round_s, SAMPLE_S * len(arms)))))
    order = list(arms.values())
    for turn in range(rounds):
        for arm in order if turn % 2 else reversed(order):
            arm.samples.append(arm.sample())
    return rounds

"""The experiments that tell which wall binds without floors: rotated data, fewer threads, more steps.

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
from .calls import Group, call_of
from .clock import Subject
from .points import HEADLINE_CLOCK

# Experiments together may take this share of what the timing of a group was given.
BUDGET_SHARE = 1 / 3
# Seven rounds have an order-statistic interval above 95 %; below three a median means nothing.
ROUNDS, FEWEST_ROUNDS = 7, 3
# A sample shorter than this is mostly clock.
SAMPLE_S = 1e-3
# Slow calls may take so many times their share of the budget, then they are not tried.
PATIENCE = 6
# A virtual machine reports the whole last cache of its host and gets a part of it.
CACHE_SHARE = 0.5

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
        cold = group.module.work(group.shape, group.dtype, "forward").depth == 1
        try:
            found = _experiments(group, name, own, cold, BUDGET_SHARE * options["budget_s"] / len(names))
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


def _experiments(group: Group, name: str, own: dict[str, Subject], cold: bool, budget_s: float) -> Attribution:
    untried: dict[str, str] = {}
    base = own["cold" if cold else "warm"]
    work = group.module.work(group.shape, group.dtype, "forward")
    in_cache = work.compulsory_bytes <= CACHE_SHARE * group.device.last_cache_bytes()
    arms = {cache: Arm(subject.calls, subject.stopwatch) for cache, subject in own.items()}
    if not in_cache:
        untried["rotated"] = "the data exceed the last cache, so that using them again spares nothing"
        arms = {base.cache: arms[base.cache]}
    threads = _threads(group, untried)
    if threads:
        arms["halved"] = Arm(base.calls, base.stopwatch, threads // 2)
    longer = _longer(group, name, untried)
    if longer is not None:
        if "warm" not in arms:
            arms["warm"] = Arm(own["warm"].calls, own["warm"].stopwatch)
        arms["longer"] = Arm([longer[1]], own["warm"].stopwatch)
    rounds = _interleave(arms, budget_s)
    if rounds < FEWEST_ROUNDS:
        return Attribution(wall="undetermined", reason="its calls are too slow for experiments within the budget")
    times = {key: arm.samples for key, arm in arms.items()}
    steps = None
    if longer is not None:
        doubled, plain = ("longer", "warm") if longer[0] else ("warm", "longer")
        steps = ratio_of(times[doubled], times[plain])
    return decide(
        ratio_of(times["cold"], times["warm"]) if in_cache and {"cold", "warm"} <= set(times) else None,
        ratio_of(times["halved"], times[base.cache]) if threads else None,
        steps,
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


def _longer(group: Group, name: str, untried: dict[str, str]) -> tuple[bool, Callable[[], object]] | None:
    """A call with the same tokens in other steps: (whether the case itself is the shorter one, the call).

    Twice the steps at half the batch; half the steps at twice the batch where the batch is odd.
    """
    sizes, work = dataclasses.asdict(group.shape), group.module.work
    before = work(group.shape, group.dtype, "forward")
    if not {"B", "T"} <= set(sizes) or before.depth == 1:
        return None
    even = sizes["B"] % 2 == 0
    if not even and sizes["T"] % 2:
        untried["longer"] = "neither the batch nor the steps can be halved"
        return None
    changed = {"B": sizes["B"] // 2, "T": 2 * sizes["T"]} if even else {"B": 2 * sizes["B"], "T": sizes["T"] // 2}
    shape = dataclasses.replace(group.shape, **changed)
    if work(shape, group.dtype, "forward").depth == before.depth:
        return None  # its chain runs through layers, not along the sequence
    implementation = group.kernel.implementations[name]
    refusal = implementation.supports(shape, group.dtype, group.device.kind)
    if refusal:
        untried["longer"] = refusal
        return None
    inputs = group.module.inputs(shape, group.dtype, group.device.torch_device, group.seed)
    return even, call_of(implementation.run, shape, inputs, "forward")


def _interleave(arms: dict[str, Arm], budget_s: float) -> int:
    """Sample all arms in turn; returns the rounds that the budget allowed, 0 where it allows fewer than three."""
    for arm in arms.values():
        arm.sample()
        once = max(1e-9, median([arm.sample() for _ in range(2)]))
        arm.repeats = max(1, min(1000, round(SAMPLE_S / once)))
    # A warm sample makes one call more than it times.
    round_s = sum(max(SAMPLE_S, 2 * arm.sample()) for arm in arms.values())
    rounds = min(ROUNDS, int(PATIENCE * budget_s / round_s))
    if rounds < FEWEST_ROUNDS:
        return 0
    order = list(arms.values())
    for turn in range(rounds):
        for arm in order if turn % 2 else reversed(order):
            arm.samples.append(arm.sample())
    return rounds

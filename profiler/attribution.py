"""The experiments that tell which wall binds without floors: data in and out of caches, fewer threads, more steps.

They are made after the timing, forward only, at the headline's state of the caches. All arms of an implementation take
turns, one sample each in every round, so that a drift of the machine reaches them alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import torch

from ..roofline.attribution import decide, ratio_of
from ..roofline.experiments import Attribution
from ..roofline.stats import median
from .calls import Group, call_of
from .clock import Subject
from .points import HEADLINE_CLOCK
from .working_set import made_bytes

# Experiments together may take this share of what the timing of a group was given.
BUDGET_SHARE = 1 / 2
# Of 21 ratios the interval leaves out the five lowest, so a neighbour who takes a processor in some rounds hides no
# wall; of seven it is their whole range. Below three a median means nothing.
ROUNDS, FEWEST_ROUNDS = 21, 3
# A sample shorter than this is mostly clock.
SAMPLE_S = 1e-3
# The fewest rounds are made whatever the budget, unless one of them takes longer than this.
SLOW_ROUND_S = 3.0
# A slice does its part of every kind of work, to so much; where sizes are cut that do not, others are tried.
EVEN = 0.05
# A size is cut by the smallest of its prime factors; one that has none of these is left whole.
PRIMES = (2, 3, 5, 7, 11, 13)
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


def _touched_bytes(group: Group, name: str, shape: Any, call: Callable[[], object]) -> int:
    """Bytes that one call of an implementation goes through: inputs, outputs and what lies between them.

    A compiled function does not show what it makes; it is taken for as thrifty as its work allows.
    """
    work = group.module.work(shape, group.dtype, "forward")
    if name == "compile":
        return work.compulsory_bytes
    return max(work.compulsory_bytes, work.read_bytes + made_bytes(call))


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
    in_cache = _touched_bytes(group, name, group.shape, warm.calls[0]) <= held_bytes
    arms = {"case": Arm(base.calls, base.stopwatch)}
    slices, threads = 1, _threads(group, untried)
    if threads:
        arms["halved"] = Arm(base.calls, base.stopwatch, threads // 2)
    if not in_cache:
        slices, call = _slice(group, name, held_bytes, untried)
        if call is not None:
            arms["slice"] = Arm([call], warm.stopwatch)
    longer = _longer(group, name, untried)
    if longer is not None:
        arms["longer"] = Arm([longer[1]], warm.stopwatch)
    if cold and (in_cache or longer is not None):
        arms["warm"] = Arm(warm.calls, warm.stopwatch)
    if _interleave(arms, budget_s) < FEWEST_ROUNDS:
        return Attribution(wall="undetermined", reason=TOO_SLOW)
    times = {key: arm.samples for key, arm in arms.items()}
    again = times.get("warm", times["case"])
    steps = None
    if longer is not None:
        steps = ratio_of(times["longer"], again) if longer[0] else ratio_of(again, times["longer"])
    return decide(
        ratio_of(times["case"], again) if cold and in_cache else None,
        ratio_of(times["case"], [slices * time for time in times["slice"]]) if "slice" in times else None,
        ratio_of(times["halved"], times["case"]) if threads else None,
        steps,
        threads=threads,
        cold=cold,
        in_cache=in_cache,
        untried=untried,
    )


def _slice(
    group: Group, name: str, held_bytes: float, untried: dict[str, str]
) -> tuple[int, Callable[[], object] | None]:
    """A slice of the work whose data a cache of so many bytes holds: (how many make the whole, the call of one)."""
    shape, count = group.shape, 1
    while (cut := next(_cuts(group, shape), None)) is not None:
        shape, count = cut[0], count * cut[1]
        if group.module.work(shape, group.dtype, "forward").compulsory_bytes <= held_bytes:
            call = _call_in(group, name, shape, "sliced", untried)
            if call is None or _touched_bytes(group, name, shape, call) <= held_bytes:
                return count, call
    untried["sliced"] = "no slice of its work fits in the cache"
    return 1, None


def _cuts(group: Group, shape: Any) -> Iterator[tuple[Any, int]]:
    """Smaller shapes that do an equal part of the work each, with how many make the whole.

    The batch is cut first, then the longest of the other sizes, then two sizes at once, as heads that share keys are.
    What changes the chain of steps, or does another part of any kind of work, is no slice.
    """
    whole = group.module.work(shape, group.dtype, "forward")
    sizes = {letter: size for letter, size in dataclasses.asdict(shape).items() if size > 1}
    letters = sorted(sizes, key=lambda letter: (letter != "B", -sizes[letter]))
    for chosen in (*combinations(letters, 1), *combinations(letters, 2)):
        for prime in PRIMES:
            if any(sizes[letter] % prime for letter in chosen):
                continue
            try:
                smaller = dataclasses.replace(shape, **{letter: sizes[letter] // prime for letter in chosen})
                part = group.module.work(smaller, group.dtype, "forward")
            except ValueError:  # no shape of this kernel
                continue
            if part.depth == whole.depth and all(
                abs(prime * getattr(part, kind) - getattr(whole, kind)) <= EVEN * getattr(whole, kind)
                for kind in ("matmul_flops", "pointwise_flops", "special_ops")
            ):
                yield smaller, prime


def _call_in(
    group: Group, name: str, shape: Any, experiment: str, untried: dict[str, str]
) -> Callable[[], object] | None:
    """A call of the same implementation in another shape; None, with the reason in `untried`, where it refuses it."""
    implementation = group.kernel.implementations[name]
    refusal = implementation.supports(shape, group.dtype, group.device.kind)
    if refusal:
        untried[experiment] = refusal
        return None
    inputs = group.module.inputs(shape, group.dtype, group.device.torch_device, group.seed)
    return call_of(implementation.run, shape, inputs, "forward")


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
    call = _call_in(group, name, shape, "longer", untried)
    return None if call is None else (even, call)


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

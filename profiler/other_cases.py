"""Other cases of a case, for the experiments: slices of it, half its arithmetic on its bytes, twice its steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

from .calls import Group, call_of
from .copies import rotating_copies
from .working_set import made_bytes

# A slice does its part of every kind of work, to so much; where sizes are cut that do not, others are tried.
EVEN = 0.05
# A size is cut by the smallest of its prime factors; one that has none of these is left whole.
PRIMES = (2, 3, 5, 7, 11, 13)
# A case of half the arithmetic goes through so much of the bytes at least: what waits for memory then takes at least so
# much of the time, far from half of it.
LIGHT_BYTES = 0.8
KINDS = ("matmul_flops", "pointwise_flops", "special_ops")

Call = Callable[[], object]


def touched_bytes(group: Group, name: str, shape: Any, call: Call) -> int:
    """Bytes that one call of an implementation goes through: inputs, outputs and what lies between them.

    A compiled function does not show what it makes; it is taken for as thrifty as its work allows.
    """
    work = group.module.work(shape, group.dtype, "forward")
    if name == "compile":
        return work.compulsory_bytes
    return max(work.compulsory_bytes, work.read_bytes + made_bytes(call))


def slice_of(group: Group, name: str, held_bytes: float, untried: dict[str, str]) -> tuple[int, Call | None]:
    """A slice of the work whose data a cache of so many bytes holds: (how many make the whole, the call of one)."""
    shape, count = group.shape, 1
    while (cut := next(cuts(group, shape), None)) is not None:
        shape, count = cut[0], count * cut[1]
        if group.module.work(shape, group.dtype, "forward").compulsory_bytes <= held_bytes:
            call = _call_in(group, name, shape, "sliced", untried)
            if call is None or touched_bytes(group, name, shape, call) <= held_bytes:
                return count, call
    untried["sliced"] = "no slice of its work fits in the cache"
    return 1, None


def cuts(group: Group, shape: Any) -> Iterator[tuple[Any, int]]:
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
                abs(prime * getattr(part, kind) - getattr(whole, kind)) <= EVEN * getattr(whole, kind) for kind in KINDS
            ):
                yield smaller, prime


def lighter(
    group: Group, name: str, whole_bytes: int, held_bytes: float, rotated: bool, untried: dict[str, str]
) -> list[Call]:
    """Calls of half the arithmetic that go through nearly all of `whole_bytes`, more than a cache holds; or none.

    rotated : their inputs are copies in rotation, as those of a cold case are.
    """
    whole = group.module.work(group.shape, group.dtype, "forward")
    for letter, size in dataclasses.asdict(group.shape).items():
        if size < 2 or size % 2:
            continue
        try:
            shape = dataclasses.replace(group.shape, **{letter: size // 2})
            half = group.module.work(shape, group.dtype, "forward")
        except ValueError:  # no shape of this kernel
            continue
        least_bytes = max(LIGHT_BYTES * whole_bytes, held_bytes)
        as_deep = half.depth == whole.depth
        if not as_deep or any(2 * getattr(half, kind) > (1 + EVEN) * getattr(whole, kind) for kind in KINDS):
            continue
        calls = _calls_in(group, name, shape, "lighter", untried, held_bytes if rotated else 0)
        if calls and touched_bytes(group, name, shape, calls[0]) >= least_bytes:
            return calls
    untried.setdefault("lighter", "no case of half its arithmetic goes through as many bytes")
    return []


def _call_in(group: Group, name: str, shape: Any, experiment: str, untried: dict[str, str]) -> Call | None:
    """A call of the same implementation in another shape; None, with the reason in `untried`, where it refuses it."""
    return next(iter(_calls_in(group, name, shape, experiment, untried)), None)


def _calls_in(
    group: Group, name: str, shape: Any, experiment: str, untried: dict[str, str], cache_bytes: float = 0
) -> list[Call]:
    """Calls of it on copies that go through twice a cache of so many bytes together, one for none."""
    implementation = group.kernel.implementations[name]
    refusal = implementation.supports(shape, group.dtype, group.device.kind)
    if refusal:
        untried[experiment] = refusal
        return []
    sets = [group.module.inputs(shape, group.dtype, group.device.torch_device, group.seed)]
    if cache_bytes:
        sets = rotating_copies(sets, int(cache_bytes), group.device.free_memory_bytes())
    return [call_of(implementation.run, shape, inputs, "forward") for inputs in sets]


def longer(group: Group, name: str, untried: dict[str, str]) -> tuple[bool, Call] | None:
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

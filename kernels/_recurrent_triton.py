"""What the Triton kernels of all recurrent layers share: many time steps, forward or backward, in one launch.

A program owns UNITS hidden units and all of their gates, so one exchange per step is enough: it publishes what its
units became, waits until every program has, and reads the whole state. The hidden state travels through L2; the
weights are loaded once, before the loop over time (KEEP), or streamed at every step; the input product is hoisted out
beforehand. What a cell does with its gates is a device function of the cell's own file, given as CELL.

Letters: a *slot* is a value per unit and sequence before the nonlinearity. LSTM has 4 slots, its gates; an RNN 1; a GRU
has 4 slots for its 3 gates, because the state's part of its last gate is multiplied before the input's part is added:
slot 2 holds the input's part, slot 3 the state's. A *chain* is one direction of one layer. A launch runs both
directions of a layer, or several layers of one direction as a wavefront. There a layer is LAG steps behind the one
below: what it needs from there is then known a step ahead, so that its product is done while waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ._triton import tl, triton

LAYER_LAG = 2
LAG = tl.constexpr(LAYER_LAG)


@triton.jit
def arrive(counter):
    """Say that this program has published its part; every write before is visible to whoever sees the count."""
    tl.debug_barrier()
    tl.atomic_add(counter, 1, sem="release", scope="gpu")


@triton.jit
def wait(counter, goal, INTERPRET: tl.constexpr, SKIP_WAIT: tl.constexpr):
    """Spin until `goal` programs have arrived. The count only grows, so no program can miss it.

    Every thread polls: its own acquire is what keeps its later loads from stale lines of the first-level cache, as an
    asynchronous copy of words narrower than 16 bytes may go through it whatever the load's modifier says.
    """
    if INTERPRET:
        while tl.atomic_add(counter, 0, sem="acquire", scope="gpu") < goal:
            pass
    elif not SKIP_WAIT:
        seen = goal - 1
        while seen < goal:
            seen = tl.inline_asm_elementwise(
                "ld.acquire.gpu.global.s32 $0, [$1];", "=r,l", [counter], dtype=tl.int32, is_pure=False, pack=1
            )
    tl.debug_barrier()


@triton.jit
def linger(counter, step, place, JITTER: tl.constexpr, INTERPRET: tl.constexpr):
    """Sleep up to 4 us, differently in every program, step and place, by the seed in the word after the counter.

    Only in tests, which set JITTER: whatever is read without waiting for it is then read too early or too late.
    """
    if JITTER and not INTERPRET:
        program = tl.program_id(0) + 1024 * (tl.program_id(1) + 32 * tl.program_id(2))
        number = tl.load(counter + 1) * 7919 + 3 * step + place  # a prime beyond the places of any test
        number = number * 40503 + program  # 2**16 over the golden ratio
        number = (number ^ (number >> 7)) * 1103515245 + 12345  # one step of the generator of the C standard
        time_ns = (number >> 16) & 4095
        tl.inline_asm_elementwise(
            "nanosleep.u32 $1; mov.u32 $0, $1;", "=r,r", [time_ns], dtype=tl.int32, is_pure=False, pack=1
        )


@triton.jit
def part(exchange, step, chain, chains, size):
    """What a chain published in a step: one of three parts of the exchange buffer, by turns.

    A part is written anew three steps later. By then all programs have arrived two steps before, and none reads it.
    """
    return exchange + ((step + 3) % 3 * chains + chain).to(tl.int64) * size


@triton.jit
def time_step(position, direction, T):
    """The time step at a place of the chain: the second direction runs backwards. Clamped, so that it can be loaded."""
    t = tl.where(direction == 0, position, T - 1 - position)
    return tl.minimum(tl.maximum(t, 0), T - 1).to(tl.int64)


@triton.jit
def store_slots(places, H, value0, value1, value2, value3, mask, SLOTS: tl.constexpr):
    """Store the slots of units at `places`, H values apart, in the dtype that lies there; one slot is the first."""
    tl.store(places, value0.to(places.dtype.element_ty), mask=mask)
    if SLOTS > 1:
        tl.store(places + H, value1.to(places.dtype.element_ty), mask=mask)
        tl.store(places + 2 * H, value2.to(places.dtype.element_ty), mask=mask)
        tl.store(places + 3 * H, value3.to(places.dtype.element_ty), mask=mask)


# Allocated by the launcher, so wide loads can always take them; weights too where H is no multiple of 16.
_OWN_TENSORS = ("exchange", "counters")
_WEIGHTS = ("weight_hh", "weight_below")


@dataclass(frozen=True)
class Kernel:
    """One kernel, as a program for aligned sizes and one for any: exactly the two signatures that are compiled offline.

    tensors, numbers : names of its arguments.
    """

    tensors: tuple[str, ...]
    numbers: tuple[str, ...]
    aligned: Any
    unaligned: Any

    def program(self, aligned: bool) -> Any:
        """The Triton function."""
        return self.aligned if aligned else self.unaligned

    def divisible(self, aligned: bool) -> tuple[str, ...]:
        """The arguments known to be multiples of 16."""
        return self.tensors if aligned else tuple(name for name in self.tensors if name in (*_WEIGHTS, *_OWN_TENSORS))


def kernel(function: Callable[..., None], tensors: tuple[str, ...], numbers: tuple[str, ...]) -> Kernel:
    """Make the two programs of a device function; its `tensors` and `numbers` by the names of its arguments."""
    return Kernel(
        (*tensors, *_OWN_TENSORS),
        numbers,
        triton.jit(do_not_specialize=[*numbers])(function),
        triton.jit(do_not_specialize=[*numbers, *(name for name in tensors if name not in _WEIGHTS)])(function),
    )

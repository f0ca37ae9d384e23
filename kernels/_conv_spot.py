"""Parts of a long causal convolution that are small enough to check: the kernels' own `spot`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ._torch import generator

# Time steps of a part: two of the widest tiles, so that a tile border lies inside.
SPOT_STEPS = 256


def spot_runs(length: int, sequences: int, seed: int) -> list[tuple[int, int, int]]:
    """A random run of steps of a random sequence and the last steps of the last one: (sequence, first step, steps)."""
    source = generator("cpu", seed)
    steps = min(length, SPOT_STEPS)
    starts = (int(torch.randint(length - steps + 1, (), generator=source)), length - steps)
    chosen = (int(torch.randint(sequences, (), generator=source)), sequences - 1)
    return [(sequence, start, steps) for sequence, start in zip(chosen, starts)]


def causal_spot(shape: Any, inputs: dict[str, Tensor], seed: int, halo: int, timed: tuple[str, ...]) -> list[Any]:
    """Runs of time steps, each with the `halo` of steps before it that its outputs see, as problems of their own.

    timed : names of the inputs that have a sequence and a step as their first two axes. Returns for each run its shape
    and inputs, what to take out of the outputs of the whole problem, and out of those of the part: all but the halo.
    """
    return [
        _causal_run(shape, inputs, halo, timed, sequence, start, steps)
        for sequence, start, steps in spot_runs(shape.T, shape.B, seed)
    ]


def _causal_run(
    shape: Any, inputs: dict[str, Tensor], halo: int, timed: tuple[str, ...], sequence: int, start: int, steps: int
) -> Any:
    first = max(0, start - halo)
    one = slice(sequence, sequence + 1)
    part = inputs | {name: inputs[name][one, first : start + steps] for name in timed if name in inputs}
    smaller = replace(shape, B=1, T=start + steps - first)
    of_whole = lambda outputs: (outputs[0][one, start : start + steps],)  # noqa: E731
    of_part = lambda outputs: (outputs[0][:, start - first :],)  # noqa: E731
    return smaller, part, of_whole, of_part

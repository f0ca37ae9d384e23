"""The grid barrier of the recurrent kernels: for how many programs each one waits, and when it says that it is done.

The interpreter runs one program after the other, so of several in one launch the first would wait for ever. Here none
waits, which makes their values wrong: what counts is what each would have waited for. Run as a script, this file is the
child whose kernels are interpreted.
"""

import contextlib
import itertools
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from interpreting import Checks, run_interpreted
from recurrences import doubles, planned, run_row, whole

from seqroof.kernels import _recurrent_backward, _recurrent_forward, _triton, rnn
from seqroof.kernels._recurrent import Shape

# What programs do with a counter, by its address.
Log = dict[int, list[str]]
# What the kernels do next where tests let them linger; reading what the layer below left needs no waiting.
PLACES = {0: "read", 1: "write"}
CACHE_LINE_BYTES = 128
checks = Checks()


@contextlib.contextmanager
def noted() -> Iterator[Log]:
    """Notes what programs do instead of letting them wait, one program after the other."""
    log: Log = defaultdict(list)

    def note(counter: Any, *words: Any) -> None:
        log[counter.handle.data.item()].append(" ".join(map(str, words)))

    def linger(counter: Any, step: Any, place: int, *_: Any) -> None:
        if place in PLACES:
            note(counter, PLACES[place], step.handle.data.item())

    stand_ins = {
        "wait": lambda counter, goal, *_: note(counter, "wait for", goal.handle.data.item()),
        "linger": linger,
        "arrive": lambda counter: note(counter, "arrive"),
    }
    modules = (_recurrent_forward, _recurrent_backward)
    usual = [{name: getattr(module, name) for name in stand_ins} for module in modules]
    for module in modules:
        vars(module).update(stand_ins)
    try:
        yield log
    finally:
        for module, names in zip(modules, usual):
            vars(module).update(names)


def right(programs: int, steps: int, turns: int) -> list[str]:
    """What a program should do that shares its counter with others and takes several tiles of sequences in turn."""
    done: list[str] = []
    for step in range(steps):
        if step:
            done.append(f"wait for {step * programs}")
        done += [f"read {step}", f"write {step}"] * turns + ["arrive"]
    return done


@checks.each(
    ("forward", Shape(33, 3, 3, 20, L=2)), ("forward", Shape(33, 3, 3, 20, D=2)), ("backward", Shape(33, 3, 3, 20, D=2))
)
def a_step_begins_when_all_programs_have_done_the_one_before(direction: str, shape: Shape) -> None:
    # Three programs of 8 units for each chain; two groups for three tiles of 16 sequences.
    plan = whole(shape.H, layers=shape.L, directions=shape.D, groups=2, backward_groups=2)
    plan = replace(plan, **{direction: replace(plan.forward, units=8)})
    tensors = doubles(rnn.TANH, shape)
    tensors["x"].requires_grad_(direction == "backward")
    with planned(plan), noted() as log:
        y = run_row("triton_resident", rnn.TANH, shape, tensors)[0]
        if direction == "backward":
            log.clear()
            torch.autograd.grad(y.sum(), tensors["x"])
    # The layers of a wavefront share a counter. One is two steps behind that below, which it reads before it waits.
    programs, steps = 3 * shape.L, shape.T + 2 * (shape.L - 1)
    want = [programs * right(programs, steps, turns) for turns in (1, 2) for _ in range(shape.D)]
    assert sorted(log.values()) == sorted(want)
    addresses = sorted(log)
    assert all(after - before >= CACHE_LINE_BYTES for before, after in itertools.pairwise(addresses))


@pytest.fixture(scope="module")
def faults() -> dict[str, str]:
    return run_interpreted(__file__)


@pytest.mark.skipif(not _triton.AVAILABLE, reason="triton is not installed here")
@pytest.mark.parametrize("check", list(checks))
def test_interpreted(check: str, faults: dict[str, str]) -> None:
    assert not faults[check], faults[check]


if __name__ == "__main__":
    checks.run(int(sys.argv[1]))

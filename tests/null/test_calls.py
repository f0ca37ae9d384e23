"""Which clocks a case is timed under: graphs where they tell something and can be had, never at a cost."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from seqroof.profiler.calls import LONG_LAUNCH_S, Group, subjects_of
from seqroof.roofline import Implementation

CLOCKS = [("warm", "events"), ("warm", "graph")]


@dataclass
class Watch:
    """Says that every call takes `call_s`, and refuses to capture when told to."""

    clock: str
    call_s: float
    refuses: bool

    def sample(self, calls, first, repeats):
        if self.clock == "graph" and self.refuses:
            raise RuntimeError("operation not permitted when stream is capturing")
        return [self.call_s]


def clocks_of(implementation, call_s=1e-5, refuses=False, direction="forward"):
    finished = []
    device = SimpleNamespace(
        kind="cuda",
        stopwatch=lambda cache, clock: Watch(clock, call_s, refuses),
        finish=lambda: finished.append(True),
    )
    kernel = SimpleNamespace(implementations={"row": implementation}, module=None)
    group = Group(device, kernel, None, "fp32", direction, seed=0)
    sets = [{"x": torch.ones(2)}]
    subjects = subjects_of(group, ["row"], sets, CLOCKS)
    assert bool(finished) == refuses, "what a failed capture left behind is waited for"
    return [subject.clock for subject in subjects]


def run(shape, x):
    return (x * 2,)


def test_short_calls_are_replayed_as_a_graph_too():
    assert clocks_of(Implementation(run)) == ["events", "graph"]


@pytest.mark.parametrize(("launches", "clocks"), [(1, ["events"]), (1000, ["events", "graph"])])
def test_a_long_call_is_worth_a_graph_if_it_is_made_of_many_launches(launches, clocks):
    assert clocks_of(Implementation(run, launches=launches), call_s=10 * LONG_LAUNCH_S) == clocks


def test_what_is_a_graph_already_or_cannot_be_captured_is_timed_without():
    assert clocks_of(Implementation(run, chain="graph")) == ["events"]
    assert clocks_of(Implementation(run), refuses=True) == ["events"]


def test_gradients_of_a_graph_built_beforehand_are_not_captured():
    assert clocks_of(Implementation(run, grad=True), direction="backward") == ["events"]

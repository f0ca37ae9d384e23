"""The GPU's clocks against a kernel of known duration, and against each other."""

import pytest
import torch

from seqroof.profiler.clock import Subject, measure
from seqroof.profiler.devices import open_device


def sleeper(cycles):
    return lambda: torch.cuda._sleep(cycles)


def time_of(call, cache, clock):
    device = open_device("cuda:0")
    subject = Subject("sleep", cache, clock, [call], device.stopwatch(cache, clock))
    return measure([subject], 0.5, None, 0, lambda done: None)[0].median


@pytest.mark.parametrize(("cache", "clock"), [("cold", "events"), ("warm", "events"), ("warm", "host")])
def test_twice_the_cycles_take_twice_the_time(cache, clock):
    """Independent of the clock frequency: the difference of two sleeps is proportional to the cycles between them."""
    one, two, three = (time_of(sleeper(n * 400_000), cache, clock) for n in (1, 2, 3))
    assert (three - two) == pytest.approx(two - one, rel=0.05)


def test_events_and_graph_agree_on_device_time():
    x = torch.randn(2**24, device="cuda")
    events, graph = (time_of(lambda: x.mul_(1.0), "warm", clock) for clock in ("events", "graph"))
    assert events == pytest.approx(graph, rel=0.2)


def test_a_flush_makes_data_cold():
    x = torch.randn(2**20, device="cuda")  # 4 MiB: inside any L2
    cold, warm = (time_of(lambda: x.sum(), cache, "events") for cache in ("cold", "warm"))
    assert cold > warm

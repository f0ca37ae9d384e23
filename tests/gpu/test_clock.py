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


def watched(call, state="warm"):
    device = open_device("cuda:0")
    return device.watch(call, [state])[state].second_clock()


@pytest.mark.parametrize("cache", ["cold", "warm"])
def test_the_drivers_records_agree_with_events_and_none_is_lost(cache):
    x = torch.randn(2**24, device="cuda")
    events, second = time_of(lambda: x.mul_(1.0), cache, "events"), watched(lambda: x.mul_(1.0), cache)
    assert second.launches == second.records == second.calls and second.streams == 1
    assert second.time_s == pytest.approx(events, rel=0.2)


def test_a_launch_per_step_is_counted():
    x = torch.randn(64, device="cuda")
    second = watched(lambda: [x.mul_(1.0) for _ in range(50)])
    assert second.launches == second.records == 50 * second.calls and second.kernels == 50


def test_work_on_another_stream_shows_in_the_records_alone():
    x, other = torch.randn(2**26, device="cuda"), torch.cuda.Stream()

    def hidden():
        with torch.cuda.stream(other):
            x.mul_(1.0)

    torch.cuda.synchronize()
    assert time_of(hidden, "warm", "events") < 0.8 * watched(hidden).time_s


def test_what_triton_launched_is_told():
    from seqroof.kernels import _catalog
    from seqroof.profiler.configuration import facts_of, launched

    kernel = _catalog.load("lstm_step")
    shape = kernel.suite("quick")[0]
    inputs = kernel.module.inputs(shape, "bf16", "cuda", 0)
    with launched() as kernels:
        kernel.implementations["triton"].run(shape, **inputs)
    facts = facts_of(kernels)
    assert any(name.endswith(": registers") and value > 0 for name, value in facts.items()), facts
    assert all(value == 0 for name, value in facts.items() if name.endswith("spilled registers"))
    assert any(name.endswith(": cubin") and value for name, value in facts.items())

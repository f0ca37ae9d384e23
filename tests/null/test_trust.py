"""What guards the measurement: replaced code is named and put back, the parent's clock, work on other streams."""

from __future__ import annotations

import copy
import time
from types import SimpleNamespace

import pytest
import torch
from round_machine import timing

from seqroof.profiler import check, clock, streams, witness
from seqroof.profiler.clock import Subject
from seqroof.profiler.guard import Guard, in_words
from seqroof.profiler.recheck import slower_on_new_data
from seqroof.profiler.witness import BLOCK_S, BLOCKS, BUSY_BLOCKS, MOST_CALLS, Witness, bear_witness


@pytest.fixture
def guard():
    made = Guard()
    made.watch()
    yield made
    made.replaced()


@pytest.mark.parametrize(
    ("owner", "name", "called"),
    [
        (time, "perf_counter_ns", "time.perf_counter_ns"),
        (torch.cuda, "synchronize", "torch.cuda.synchronize"),
        (torch.cuda.Event, "elapsed_time", "torch.cuda.Event.elapsed_time"),
        (torch.Tensor, "double", "torch.Tensor.double"),
        (clock, "LEAST_SAMPLE_S", "seqroof.profiler.clock.LEAST_SAMPLE_S"),
        (clock, "perf_counter_ns", "seqroof.profiler.clock.perf_counter_ns"),
        (clock.HostStopwatch, "sample", "seqroof.profiler.clock.HostStopwatch.sample"),
        (check, "compare", "seqroof.profiler.check.compare"),
        (check.compare, "__code__", "seqroof.profiler.check.compare.__code__"),
    ],
)
def test_what_is_replaced_is_named_and_put_back(guard, owner, name, called):
    before = getattr(owner, name)
    assert guard.replaced() == []
    setattr(owner, name, (lambda *arguments: None).__code__ if name == "__code__" else lambda *arguments: None)
    assert guard.replaced() == [called]
    assert getattr(owner, name) == before and guard.replaced() == []


@pytest.mark.parametrize(
    ("table", "change", "called"),
    [
        (check.FACTOR, lambda table: table.update(forward=1e9), "seqroof.profiler.check.FACTOR"),
        (check.EPSILON, lambda table: table.pop("bf16"), "seqroof.profiler.check.EPSILON"),
        (nested := {"a": [1, {2}]}, lambda table: table["a"][1].add(3), "seqroof.profiler.check.NESTED"),
    ],
)
def test_tables_are_known_by_their_content(monkeypatch, table, change, called):
    monkeypatch.setattr(check, "NESTED", nested, raising=False)
    guard, before = Guard(), copy.deepcopy(table)
    guard.watch()
    change(table)
    assert guard.replaced() == [called]
    assert table == before and guard.replaced() == [], "and are put back in place"


def test_watching_again_forgives_nothing(guard, monkeypatch):
    monkeypatch.setattr(check, "errors", None)
    guard.watch()
    assert guard.replaced() == ["seqroof.profiler.check.errors"]


def test_many_names_are_cut_short():
    assert in_words(["a", "b"]) == "a, b"
    assert in_words(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def witnessed(*blocks):
    """A witness that saw blocks of (claimed, seen) seconds."""
    now = [0.0]
    watching = Witness(lambda: now[0])
    for claimed, seen in blocks:
        watching.note({"implementation": "x", "ended": False, "claimed_s": 0.0})
        now[0] += seen
        watching.note({"implementation": "x", "ended": True, "claimed_s": claimed})
    return watching.doubts("x")


@pytest.mark.parametrize(("claimed", "seen"), [(1e-3, 0.05), (0.05, 1e-3)])
def test_a_clock_that_the_parent_contradicts_is_doubted(claimed, seen):
    ((name, values),) = witnessed(*[(claimed, seen)] * BLOCKS)
    assert name == "clock-contradicted" and set(values) == {"claimed", "seen"}


def test_one_late_message_is_no_contradiction():
    assert witnessed((1e-3, 0.05), (1e-3, 1.2e-3)) == []
    assert witnessed((0.05, 0.06)) == [] and witnessed() == []


@pytest.mark.parametrize(("busy", "blocks"), [(False, BLOCKS), (True, BUSY_BLOCKS)])
def test_a_block_counts_the_call_before_it(monkeypatch, busy, blocks):
    monkeypatch.setattr(witness, "busy", lambda: busy)

    class Stopwatch:
        def sample(self, calls, first, repeats):
            asked.append(repeats)
            return [1e-4]

    asked, sent = [], []
    subject = Subject("x", "warm", "host", [lambda: None], Stopwatch())
    bear_witness(subject, 1e-4, lambda event, **data: sent.append(data))
    assert asked == [60] * blocks
    assert [data["claimed_s"] for data in sent if data["ended"]] == [pytest.approx(61e-4)] * blocks


@pytest.mark.parametrize(("pace", "doubted"), [(1.0, False), (0.5, False), (0.36, True), (0.1, True)])
def test_a_clock_that_lags_by_more_than_its_blocks_allow_is_doubted(pace, doubted):
    assert bool(witnessed(*[(pace * seen, seen) for seen in [BLOCK_S / pace] * BLOCKS])) is doubted


@pytest.mark.parametrize(("claimed", "calls"), [(1e-6, 6000), (1e-9, MOST_CALLS), (0.0, MOST_CALLS), (1.0, 1)])
def test_a_clock_that_claims_nothing_makes_no_endless_block(monkeypatch, claimed, calls):
    monkeypatch.setattr(witness, "busy", lambda: False)
    asked = []
    stopwatch = SimpleNamespace(sample=lambda calls, first, repeats: asked.append(repeats) or [claimed])
    bear_witness(Subject("x", "warm", "host", [lambda: None], stopwatch), claimed, lambda event, **data: None)
    assert asked == [calls] * BLOCKS


def timings(**caches):
    return [(Subject("x", cache, "host", [], None), timing(time_s)) for cache, time_s in caches.items()]


def test_slower_on_new_data_than_on_old():
    assert slower_on_new_data(0.9e-3, timings(cold=1e-3, warm=0.5e-3)) == []
    ((name, values),) = slower_on_new_data(5e-3, timings(cold=1e-3, warm=4e-3))
    assert name == "slower-on-new-data" and values["cache"] == "cold"
    assert slower_on_new_data(5e-3, timings(warm=1e-3)) == []
    assert slower_on_new_data(9e-3, timings(warm=1e-3))
    assert slower_on_new_data(90e-6, timings(cold=1e-6)) == [], "starting and waiting is no work"


class Device:
    """A GPU whose calls take `own` seconds on the current stream and `elsewhere` on another one."""

    def __init__(self, own, elsewhere):
        self.time, self.cost, self.queued = 0.0, (own, elsewhere), (0.0, 0.0)

    def call(self):
        self.queued = tuple(queued + cost for queued, cost in zip(self.queued, self.cost))

    def synchronize(self):
        self.time = max(self.time, *self.queued)

    def current_stream(self):
        def wait():
            self.time = max(self.time, self.queued[0])

        return SimpleNamespace(synchronize=wait)


@pytest.mark.parametrize(("own", "elsewhere", "fires"), [(0.0, 1.0, True), (1.0, 2.0, True), (1.0, 0.9, False)])
def test_work_on_another_stream_is_left_behind(own, elsewhere, fires):
    device = Device(own, elsewhere)
    found = streams.doubt(device, device.call, lambda: device.time)
    assert [name for name, _ in found] == (["unfinished-work"] if fires else [])


def test_a_trifle_left_is_no_work():
    device = Device(0.0, 5e-6)
    assert streams.doubt(device, device.call, lambda: device.time) == []


def test_a_tile_of_small_values_may_not_be_missing():
    small = torch.full((400,), 1e-3)
    x = torch.cat([torch.tensor([1.0, 1.0]), small]).bfloat16()
    truth = check.truth_of(lambda given: (given["x"] * 1.01,), {"x": x}, "bf16")
    right = (x.double() * 1.01).bfloat16()
    missing, few = right.clone(), right.clone()
    missing[-16:], few[-8:] = 0, 0
    assert check.compare((right,), truth).passed and check.compare((few,), truth).passed
    found = check.compare((missing,), truth)
    assert not found.passed and "zero" in found.detail


def test_zeros_that_plain_pytorch_has_too_are_right():
    truth = check.truth_of(lambda given: (given["x"].relu(),), {"x": torch.linspace(-1, 1, 64)}, "fp32")
    assert check.compare((torch.linspace(-1, 1, 64).relu(),), truth).passed

"""A second clock of a GPU, with a profiler that the test owns, and what must not cost a time."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from round_machine import point, timing

from seqroof.profiler import afterthoughts, device_records
from seqroof.profiler.device_records import SPAN, covered, watch
from seqroof.profiler.group_runs import GroupRuns
from seqroof.profiler.points import no_reading, with_afterthoughts
from seqroof.profiler.request import Request
from seqroof.profiler.supervisor import WorkerDied


class Profiler:
    """Records like the driver's: a call starts kernels of 11 and 9 us, 20 us apart; those of `drops` are missing."""

    def __init__(self, kernels=2, streams=(7,), drops=(), graph=False, none=False):
        self.events_made, self.now_us, self.number = [], 0.0, 0
        self.kernels, self.streams, self.drops, self.graph, self.none = kernels, streams, drops, graph, none

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return None

    def event(self, name, start, duration, device=False, number=0, stream=0):
        time_range = SimpleNamespace(start=start, end=start + duration)
        kind = SimpleNamespace(name="CUDA" if device else "CPU")
        made = {"name": name, "time_range": time_range, "id": number, "device_type": kind, "device_resource_id": stream}
        self.events_made.append(SimpleNamespace(**made))

    def start(self, name, api="cudaLaunchKernel", stream=7):
        self.number += 1
        self.event(api, self.now_us, 2.0, number=self.number)
        self.event("aten::mul", self.now_us, 5.0, number=self.number)
        if self.number not in self.drops:
            took_us = {"kernel 0": 11.0, "kernel 1": 9.0}.get(name, 10.0)
            self.event(name, self.now_us + 1000, took_us, device=True, number=self.number, stream=stream)
        self.now_us += 20

    def call(self):
        for index in range(self.kernels):
            stream = self.streams[index % len(self.streams)]
            self.start(f"kernel {index}", "cudaGraphLaunch" if self.graph else "cuLaunchKernelEx", stream)

    def events(self):
        return [] if self.none else self.events_made


@pytest.fixture
def watched(monkeypatch):
    """Watch the calls of a profiler cold and warm; returns what was found."""
    import torch.profiler

    def run(profiler, calls=3, first_s=0.0):
        ticks = iter((0.0, first_s))
        monkeypatch.setattr(device_records, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))

        @contextmanager
        def span(name):
            began = profiler.now_us
            yield
            profiler.event(name, began, profiler.now_us - began)
            profiler.event(name, began + 1000, profiler.now_us - began, device=True)

        monkeypatch.setattr(torch.profiler, "record_function", span)
        flush = lambda: profiler.start("Memset (Device)", "cudaMemsetAsync")  # noqa: E731
        states = {"cold": flush, "warm": None}
        return watch(profiler.call, states, lambda: None, lambda: profiler, calls)

    return run


@pytest.mark.parametrize("state", ["cold", "warm"])
def test_device_time_per_call_without_the_flush_and_the_first_call(watched, state):
    found = watched(Profiler())[state]
    assert found.launches == 6 and len(found.kernels) == 6 and found.names() == ["kernel 0", "kernel 1"]
    second = found.second_clock()
    assert second.time_s == pytest.approx(20e-6) and second.streams == 1 and second.whole and second.kernels == 2


def test_lost_records_are_counted(watched):
    second = watched(Profiler(drops=(1, 7)))["cold"].second_clock()
    assert (second.launches, second.records, second.lost) == (6, 5, 1), "number 1 belongs to a call that nobody counts"
    assert not second.whole


def test_no_records_at_all_are_a_reason(watched):
    second = watched(Profiler(none=True))["warm"].second_clock()
    assert second.time_s is None and "recorded nothing" in second.reason and second.lost == 0
    every = watched(Profiler(drops=range(100)))["warm"].second_clock()
    assert every.time_s is None and every.lost == 6


def test_slow_calls_are_watched_once(watched):
    second = watched(Profiler(), first_s=0.5)["warm"].second_clock()
    assert second.calls == 1 and second.launches == 2 and second.time_s == pytest.approx(20e-6)


def test_streams_are_counted_and_kernels_side_by_side_once(watched):
    second = watched(Profiler(streams=(7, 13)))["warm"].second_clock()
    assert second.streams == 2
    assert covered([(0, 10), (5, 12), (20, 21), (20, 20.5)]) == 13


def test_a_graph_tells_its_time_and_not_its_launches(watched):
    second = watched(Profiler(graph=True))["warm"].second_clock()
    assert second.launches is None and second.lost == 0 and second.time_s == pytest.approx(20e-6)


def test_copies_take_time_and_are_no_kernels(watched):
    profiler = Profiler()
    profiler.call = lambda: (profiler.start("kernel"), profiler.start("Memcpy DtoD", "cudaMemcpyAsync"))
    second = watched(profiler)["warm"].second_clock()
    assert second.time_s == pytest.approx(20e-6) and (second.launches, second.records) == (3, 3)


def group(watching, algorithm=None):
    def run(shape):
        return ()

    implementation = SimpleNamespace(run=run, algorithm=lambda *case: algorithm)
    kernel = SimpleNamespace(implementations={"torch": implementation, "compile": implementation})
    device = SimpleNamespace(kind="cuda", watch=watching, finish=lambda: None)
    return SimpleNamespace(device=device, kernel=kernel, shape=None, dtype="bf16", direction="forward")


OPTIONS = {"clocks": [("cold", "events"), ("warm", "events"), ("warm", "graph")]}


def told(watching, names=("torch",), options=OPTIONS, algorithm=None):
    events = []
    emit = lambda event, **data: events.append({"event": event, **data})  # noqa: E731
    afterthoughts.watch_device(group(watching, algorithm), names, {}, options, emit)
    return [event for event in events if event["event"] == "second_clock"]


def test_readings_reach_the_points_by_events_and_facts_reach_all(watched):
    found = watched(Profiler())
    (event,) = told(lambda call, states: found, algorithm="standard")
    points = [point(timing(2e-5), cache=cache, clock=clock) for cache, clock in OPTIONS["clocks"]]
    cold, warm, graph = with_afterthoughts(points, event)
    assert cold.second_clock.time_s == pytest.approx(20e-6) == warm.second_clock.time_s
    assert graph.second_clock is None
    assert graph.compiler == {"algorithm_observed": "standard", "kernels_observed": "kernel 0; kernel 1"}
    (event,) = told(lambda call, states: found, names=("compile",))
    assert event["facts"] == {"kernels_observed": "kernel 0; kernel 1"}


def test_a_profiler_that_raises_costs_only_the_second_clock():
    def refused(call, states):
        raise RuntimeError("CUPTI_ERROR_INSUFFICIENT_PRIVILEGES")

    (event,) = told(refused)
    (found,) = with_afterthoughts([point(timing(2e-5), clock="events")], event)
    assert found.time_s.median == 2e-5 and found.second_clock.time_s is None and "Runtime" in found.second_clock.reason


def test_nothing_is_watched_on_a_processor_or_once_it_has_hung():
    never = lambda call, states: pytest.fail("watched")  # noqa: E731
    assert told(never, options={"clocks": [("cold", "host")]}) == []
    assert told(never, options={**OPTIONS, "watch": False}) == []


def test_a_hang_in_the_profiler_keeps_the_times_and_is_not_risked_again():
    """A worker that falls silent while it watches: the points are there, with the reason, and nobody watches again."""
    opened = {"name": "GPU", "clocks": [], "environment": {"device_hash": "ab"}}
    asked = []

    class Hangs:
        interpret = False
        opened = {}

        def ask(self, op, deadline_s, most_s, **request):
            asked.append(request["options"]["watch"])
            yield from (event("checked", correctness=None), event("point", **TIMED), event("begin", stage=STAGE))
            raise WorkerDied("hung", "no sign of life for 90 s; ended")

        def restart(self):
            pass

    STAGE = "second_clock"
    event = lambda name, **data: {"event": name, "implementation": "torch", **data}  # noqa: E731
    from diagnosis_cases import EVENT, GROUP

    TIMED = {**EVENT, "doubts": [], "clock": "events"}
    supervisor = Hangs()
    supervisor.opened = opened
    watcher = SimpleNamespace(group=lambda *told: None)
    runs = GroupRuns(Request(), supervisor, watcher)  # type: ignore[arg-type]
    whole = {**GROUP, "source": "k", "kind": "cuda"}
    for _ in range(2):
        points, culprit = runs._try_group(0, whole, ["torch"], 1.0, lambda group, points: None)
    assert culprit is None and [p.status for p in points] == ["ok"] and "no sign" in points[0].second_clock.reason
    assert asked == [True, False]


def test_a_worker_on_another_device_makes_points_invalid():
    from diagnosis_cases import EVENT, GROUP

    class Moves:
        interpret = False
        opened = {"name": "GPU", "clocks": [], "environment": {"device_hash": "ab"}}

        def ask(self, op, deadline_s, most_s, **request):
            yield {"event": "point", **EVENT, "doubts": []}

    supervisor = Moves()
    runs = GroupRuns(Request(), supervisor, SimpleNamespace(group=lambda *told: None))  # type: ignore[arg-type]
    whole = {**GROUP, "source": "k"}
    (first,), _ = runs._try_group(0, whole, ["torch"], 1.0, lambda group, points: None)
    supervisor.opened = {**supervisor.opened, "environment": {"device_hash": "cd"}}
    (second,), _ = runs._try_group(0, whole, ["torch"], 1.0, lambda group, points: None)
    assert first.status == "ok" and second.status == "invalid" and "GPU cd" in second.reason


def test_no_reading_carries_its_reason():
    assert "hung" in no_reading("hung")["reason"] and SPAN


def test_events_of_the_real_profiler_have_what_is_read():
    """Without a GPU it records no device events, so only the reason is left."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    x, session = torch.ones(8), lambda: profile(activities=[ProfilerActivity.CPU])
    found = watch(lambda: x * 2, {"warm": None}, lambda: None, session)["warm"]
    assert found.second_clock().reason and found.launches == 0 and found.names() == []
    assert sum(event.name == SPAN + "warm" for event in _recorded(session, x)) == 1


def _recorded(session, x):
    from torch.profiler import record_function

    with session() as profiler, record_function(SPAN + "warm"):
        x * 2
    events = profiler.events()
    assert (
        all(hasattr(events[0], name) for name in ("id", "device_resource_id")) and events[0].device_type.name == "CPU"
    )
    return events

"""The host's second clock, who held the processors, and overtime, with clocks that the test moves."""

import random

import pytest

from seqroof.profiler import clock, second_clock
from seqroof.profiler.clock import HostStopwatch, Subject, measure, seldom
from seqroof.profiler.second_clock import Account, Waiting, reading_of
from seqroof.roofline.steadiness import drifts


class Clocks:
    """Two clocks and the processor's time, moved by what is timed."""

    def __init__(self, monkeypatch):
        self.host = self.raw = self.worked = 0
        monkeypatch.setattr(second_clock, "_host_ns", lambda: self.host)
        monkeypatch.setattr(second_clock, "_process_time_ns", lambda: self.worked)
        monkeypatch.setattr(second_clock, "_clock_ns", lambda number: self.raw)
        monkeypatch.setattr(clock, "perf_counter_ns", lambda: self.host)
        monkeypatch.setattr(clock, "monotonic", lambda: self.host * 1e-9)

    def call(self, host, raw, worked):
        def run():
            self.host, self.raw, self.worked = self.host + host, self.raw + raw, self.worked + worked

        return run


@pytest.mark.parametrize("cache", ["cold", "warm"])
def test_the_raw_clock_is_read_with_every_sample(monkeypatch, cache):
    clocks = Clocks(monkeypatch)
    subject = Subject("a", cache, "host", [clocks.call(10_000, 15_000, 8_000)], HostStopwatch(cache == "warm"))
    timing = measure([subject], 0.01, 6, 0)[0]
    found = subject.account.reading(timing.median, 2, 0.25)
    assert timing.median == pytest.approx(10e-6) and found.time_s == pytest.approx(15e-6)
    assert found.busy_share == pytest.approx(0.4) and found.waiting_share == 0.25


def test_a_system_without_a_raw_clock_says_so(monkeypatch):
    monkeypatch.setattr(second_clock, "_RAW_ID", None)
    account = Account()
    account.sample(100, second_clock.raw_ns())
    assert "no raw clock" in account.reading(1.0, 2, None).reason
    assert reading_of(None, 1.0, None) is None


def test_waiting_for_a_processor_is_read_from_every_thread(tmp_path, monkeypatch):
    clocks = Clocks(monkeypatch)

    def schedule(stolen, *waited):
        (tmp_path / "stat").write_text(f"cpu  1 2 3 4 5 6 7 {stolen} 0 0\ncpu0 1\n")
        for index, ns in enumerate(waited):
            (tmp_path / "self" / "task" / str(index)).mkdir(exist_ok=True, parents=True)
            (tmp_path / "self" / "task" / str(index) / "schedstat").write_text(f"5 {ns} 1\n")

    schedule(40, 100, 200)
    waiting, later = (Waiting(2, tmp_path) for _ in range(2))
    clocks.host = 1000
    schedule(40, 300, 600)
    assert waiting.share() == 0.3
    clocks.host = 1_000_000_000
    schedule(60, 100, 200)
    assert later.share() == 0.1, "twenty ticks of 10 ms that the hypervisor took, of two seconds"
    assert Waiting(2, tmp_path / "missing").share() is None


def test_those_that_are_unsteady_go_on_alone(monkeypatch):
    clocks, source = Clocks(monkeypatch), random.Random(1)
    noisy = lambda: clocks.call(source.choice([1_000_000, 1_900_000]), 0, 0)()  # noqa: E731
    calls = {"noisy": noisy, "quiet": clocks.call(1_000_000, 0, 0), "wide": clocks.call(1_001_000, 0, 0)}
    subjects = [Subject(name, "cold", "host", [call], HostStopwatch(False)) for name, call in calls.items()]
    found = measure(subjects, 0.01, None, 0)
    assert found[0].rounds > found[1].rounds == found[2].rounds >= 6
    assert "unsteady" in found[0].stop and "unsteady" not in found[1].stop
    assert found[0].rounds < 40, "overtime ends when its budget is spent"


def test_those_that_drift_go_on_until_it_is_over(monkeypatch):
    clocks, made = Clocks(monkeypatch), []

    def slowing():
        made.append(None)
        # Five calls warm up; six rounds are each slower than the one before.
        clocks.call(1_000_000 + 25_000 * min(max(len(made) - 5, 0), 6), 0, 0)()

    found = measure([Subject("drifts", "cold", "host", [slowing], HostStopwatch(False))], 0.011, None, 0)[0]
    assert drifts(found.rounds_s[:10]) and "unsteady" in found.stop
    assert found.rounds == 16 and not drifts(found.rounds_s)


def test_news_of_rounds_is_passed_on_once_in_a_while(monkeypatch):
    clocks, heard = Clocks(monkeypatch), []
    tell = seldom(heard.append, 1.0)
    for done in range(25):
        tell(done)
        clocks.host += 100_000_000
    assert heard == [0, 10, 20]

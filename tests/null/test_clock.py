"""Timing with a clock that the test owns: interleaving, rounds, stopping, rotation."""

import random

import pytest

from seqroof.profiler import clock
from seqroof.profiler.clock import HostStopwatch, Subject, measure
from seqroof.profiler.copies import rotating_copies


class FakeTime:
    """Moves only when a timed call says so."""

    def __init__(self, monkeypatch):
        self.now_ns = 0
        self.log = []
        monkeypatch.setattr(clock, "perf_counter_ns", lambda: self.now_ns)
        monkeypatch.setattr(clock, "monotonic", lambda: self.now_ns * 1e-9)

    def call(self, name, cost_s):
        def run():
            self.log.append(name)
            self.now_ns += round((cost_s() if callable(cost_s) else cost_s) * 1e9)

        return run


@pytest.fixture
def fake(monkeypatch):
    return FakeTime(monkeypatch)


def subject(fake, name, cost_s, cache="cold"):
    return Subject(name, cache, "host", [fake.call(name, cost_s)], HostStopwatch(block=cache == "warm"))


@pytest.mark.parametrize("cache", ["cold", "warm"])
@pytest.mark.parametrize("cost_s", [2e-6, 3e-3])
def test_a_known_duration_is_found(fake, cache, cost_s):
    timing = measure([subject(fake, "a", cost_s, cache)], 0.05, None, 0, lambda done: None)[0]
    assert timing.median == pytest.approx(cost_s, rel=1e-6)
    assert timing.low <= timing.median <= timing.high
    assert timing.rounds >= 6 and len(timing.rounds_s) == timing.rounds


def test_short_warm_calls_share_a_sample(fake):
    quick = subject(fake, "a", 1e-6, "warm")
    quick.prepare()
    assert quick.repeats == 100


def test_rounds_interleave_all_subjects(fake):
    measure([subject(fake, name, 1e-3) for name in "ab"], 0.012, 6, 0, lambda done: None)
    joined = "".join(fake.log[-12:])
    assert "aaaaaa" not in joined and "bbbbbb" not in joined


def test_a_drift_reaches_interleaved_subjects_alike(fake):
    """The machine slows down by half over the measurement; two equal subjects must still look equal."""
    slow = lambda: 1e-3 * (1 + fake.now_ns * 1e-9)  # noqa: E731
    timings = measure([subject(fake, name, slow) for name in "ab"], 0.5, 12, 0, lambda done: None)
    assert timings[0].median == pytest.approx(timings[1].median, rel=0.03)


def test_exactly_as_many_rounds_as_asked(fake):
    heard = []
    timing = measure([subject(fake, "a", 1e-3)], 0.01, 9, 0, heard.append)[0]
    assert timing.rounds == 9 and heard == list(range(10)) and "asked" in timing.stop


def test_more_rounds_take_longer_and_hold_as_many_samples(fake):
    """Else they would not narrow an interval, and the advice to take more would be no use."""
    samples, times = {}, {}
    for rounds in (6, 18, 60):
        before = fake.now_ns
        found = measure([subject(fake, name, 1e-3) for name in "ab"], 0.72, rounds, 0)[0]
        samples[rounds], times[rounds] = found.n / found.rounds, 1e-9 * (fake.now_ns - before)
    assert samples == pytest.approx({6: 60, 18: 20, 60: 20}, abs=1)
    assert times[6] == pytest.approx(0.72, rel=0.1) and times[18] == pytest.approx(0.72, rel=0.1)
    assert times[60] == pytest.approx(60 / 18 * 0.72, rel=0.1)


def test_quiet_subjects_stop_early_and_say_so(fake):
    timing = measure([subject(fake, "a", 1e-3)], 60.0, None, 0, lambda done: None)[0]
    assert timing.rounds == 6 and "0.5 %" in timing.stop


def test_noisy_subjects_stop_with_the_budget_and_say_so(fake):
    source = random.Random(0)
    timing = measure([subject(fake, "a", lambda: source.uniform(1e-3, 3e-3))], 0.2, None, 0, lambda done: None)[0]
    assert "budget" in timing.stop


def test_slow_calls_end_before_six_rounds_and_say_so(fake):
    timing = measure([subject(fake, "a", 10.0)], 1.0, None, 0, lambda done: None)[0]
    assert timing.rounds < 6 and "slow" in timing.stop and "fewer than six" in timing.stop


def test_fewer_than_six_samples_are_called_so(fake):
    timing = measure([subject(fake, "a", 1.0)], 0.1, 2, 0, lambda done: None)[0]
    assert "fewer than six" in timing.stop


def test_cold_calls_rotate_and_warm_samples_stay_on_one_set(fake):
    sets = [fake.call(str(i), 1e-3) for i in range(5)]
    HostStopwatch(block=False).sample(sets, 3, 4)
    assert fake.log == ["3", "4", "0", "1"]
    fake.log.clear()
    HostStopwatch(block=True).sample(sets, 0, 3)
    assert set(fake.log) == {"0"}


@pytest.mark.parametrize(("cost_s", "calls"), [(2.0, 3), (1e-3, 6)])
def test_a_subject_is_told_of_before_every_step_of_its_warming_up(fake, cost_s, calls):
    """A slow call is made once to learn how long it takes, a quick one three times more."""
    told = []
    subject(fake, "a", cost_s).prepare(lambda: told.append(len(fake.log)))
    assert told == [0, 1, 2] and len(fake.log) == calls


def test_rotating_copies_exceed_twice_the_cache_and_respect_memory():
    import torch

    one = {"x": torch.ones(256), "n": 3}  # 1 KiB
    copies = rotating_copies([one], last_cache_bytes=10 * 1024, free_bytes=2**30)
    assert len(copies) == 21
    assert len({copy["x"].data_ptr() for copy in copies}) == 21
    assert len(rotating_copies([one], last_cache_bytes=10 * 1024, free_bytes=8 * 1024)) == 2

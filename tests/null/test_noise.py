"""What a machine can resolve: noise that is put in comes out, processes that die cost their own pairs."""

import contextlib
import math
import random

import pytest

from seqroof.profiler import identical
from seqroof.profiler.supervisor import WorkerDied
from seqroof.roofline.noise import between_runs, compare_identical, in_words, noise_of, resolvable
from seqroof.roofline.ratio import Ratio, least_change, verdict
from seqroof.roofline.stats import median
from seqroof.roofline.units import ratio_within


def workers(within, between, count=6, rounds=20, seed=5):
    """Twins of three subjects in some processes; `within` and `between` are standard deviations of logarithms."""
    source = random.Random(seed)

    def pair(level):
        return tuple([level * math.exp(source.gauss(0, within)) for _ in range(rounds)] for _ in range(2))

    return [{name: [pair(math.exp(source.gauss(0, between)))] for name in "abc"} for _ in range(count)]


def noise(within, between, **options):
    found = compare_identical(workers(within, between, **options))
    return noise_of(found, 6, "abc", "2026-11-21", machine="m", device_hash="", threads=2)


def test_noise_within_a_run_is_what_pairs_resolve():
    """Pairs of 20 rounds, 1 % noise in each round: theory says 1.41 % x 2.86 / sqrt(20) and chance."""
    found = noise(0.01, 0.0)
    assert 0.006 < found.paired_change < 0.02 and found.paired_change + 0.005 < found.paired_verdict < 0.03
    assert found.pairs == 18 and found.false_verdicts == 0 and found.rounds == 20
    assert noise(0.001, 0.0).paired_change < 0.002


def test_noise_between_runs_is_not_seen_by_pairs():
    quiet, jumping = noise(0.001, 0.0005), noise(0.001, 0.03)
    assert jumping.paired_change < 0.002
    # 2.57 x sqrt(2) x 3 % = 10.9 % with the five degrees of freedom of six processes, and chance on top.
    assert 0.07 < jumping.between_runs < 0.17 and jumping.between_change > 0.05
    assert quiet.between_runs < 0.004 and jumping.between_false == 0 and jumping.between_pairs == 45


def test_one_subject_that_jumps_is_not_averaged_away():
    steady = [[1.0, 1.001, 0.999, 1.0, 1.0]] * 9
    assert between_runs([*steady, [1.0, 1.0, 1.3, 1.3, 1.3]]) > between_runs(steady) * 10


def test_two_runs_leave_much_open():
    """One degree of freedom: the interval reaches to 12.7 times what the two values differ by."""
    assert between_runs([[1.0, math.exp(0.01)]]) == pytest.approx(12.7062 * 0.01, rel=1e-4)


def test_subjects_of_one_process_tell_no_more_of_its_level_than_one():
    """Five processes at five levels, whatever the number of subjects: four degrees of freedom."""
    levels = [math.exp(value) for value in (0.01, -0.02, 0.0, 0.03, -0.01)]
    spread = math.sqrt(sum((value - 0.002) ** 2 for value in (0.01, -0.02, 0.0, 0.03, -0.01)) / 4)
    for subjects in (1, 4):
        assert between_runs([levels] * subjects) == pytest.approx(2.77645 * math.sqrt(2) * spread, rel=1e-4)


def test_one_process_says_nothing_about_others():
    with pytest.raises(ValueError, match="two processes"):
        compare_identical(workers(0.01, 0.0, count=1))


def test_the_least_change_is_called_and_a_smaller_one_is_not():
    for half, band in ((0.004, 0.01), (0.03, 0.01), (0.004, 0.0)):
        ratio = Ratio(1.001, 1.001 * math.exp(-half), 1.001 * math.exp(half), 20)
        change = least_change(ratio, band)
        for factor, called in ((1.001, True), (0.999, False)):
            more = 1 + change * factor
            moved = Ratio(ratio.value * more, ratio.low * more, ratio.high * more, 20)
            assert (verdict(moved, band) == "SLOWER") == called
    assert resolvable([Ratio(1.0, None, None, 3)] * 3, 0.01) is None


def test_words_hold_the_figures():
    told = dict(in_words(noise(0.01, 0.03)))
    assert "18 pairs" in told["within a run"] and "0 false verdicts" in told["within a run"]
    assert "differ by no more than" in told["between runs"] and "6 processes" in told["between runs"]
    few = noise(0.01, 0.0, rounds=4)
    assert few.paired_change is None and "too few" in dict(in_words(few))["within a run"]


@pytest.mark.parametrize(
    ("half", "text"),
    [(0.005, "±0.5 %"), (0.05, "-4.9 % / +5.1 %"), (0.3, "-26 % / +35 %"), (0.99, "a factor of 2.7")],
)
def test_half_widths_in_logarithms_are_told_as_what_they_do_to_a_ratio(half, text):
    assert ratio_within(half) == text


class FakeSupervisor:
    """Answers pairs of two rounds; dies at a kernel named `mortal`."""

    opened = {"id": "m"}

    def __init__(self):
        self.started = 0

    def restart(self):
        self.started += 1

    def ask(self, op, deadline_s, **request):
        assert op == "twins" and request["clock"] == ["cold", "host"]
        for _ in range(request["repeats"]):
            yield {"event": "twins", "rounds_s": [[1.0, 1.0], [1.0, 2.0]]}
            if request["source"] == "mortal":
                raise WorkerDied("crashed", "as planned")


def group(kernel, flops, names=("reference", "torch.a", "torch.b", "triton")):
    fields = {"source": kernel, "kernel": kernel, "shape": {}, "dtype": "fp32", "direction": "forward"}
    return fields | {
        "implementations": list(names),
        "kind": "cpu",
        "sequence": False,
        "work": {"matmul_flops": flops},
    }


def test_a_typical_case_of_each_kernel_is_chosen_with_the_vendors_row_and_ours():
    chosen = identical.choose([group("k", 10), group("k", 2e8), group("k", 1e12), group("user", 5, ["mine"])])
    assert [(entry["work"]["matmul_flops"], name) for entry, name in chosen] == [
        (2e8, "torch.a"),
        (2e8, "triton"),
        (5, "mine"),
    ]


def test_a_process_that_dies_costs_its_own_pairs():
    fakes = []

    def open_worker():
        fakes.append(FakeSupervisor())
        return contextlib.nullcontext(fakes[-1])

    groups = [group("sound", 1e8, ["torch"]), group("mortal", 1e8, ["torch"])]
    found, opened = identical.measure_identical(open_worker, lambda _: groups, 2, 3, 0.0, lambda text: None)
    assert opened == {"id": "m"} and len(found) == 2 and [fake.started for fake in fakes] == [1, 1]
    assert [len(worker.pairs["sound torch"]) for worker in found] == [3, 3]
    assert [len(worker.pairs["mortal torch"]) for worker in found] == [1, 1]
    assert [worker.deaths for worker in found] == [{"mortal torch": "as planned"}] * 2


def test_what_hung_in_one_process_is_not_waited_for_in_the_next():
    asked = []

    class Hanging(FakeSupervisor):
        def ask(self, op, deadline_s, **request):
            asked.append(request["source"])
            if request["source"] == "endless":
                raise WorkerDied("hung", "no sign of life")
            yield from super().ask(op, deadline_s, **request)

    groups = [group("sound", 1e8, ["torch"]), group("endless", 1e8, ["torch"])]
    found, _ = identical.measure_identical(
        lambda: contextlib.nullcontext(Hanging()), lambda _: groups, 3, 1, 0.0, lambda text: None, math.inf
    )
    assert asked == ["sound", "endless", "sound", "sound"]
    assert found[0].deaths == {"endless torch": "no sign of life"} and all(worker.pairs for worker in found)


def test_a_subject_that_was_never_timed_is_none_and_its_death_is_told():
    class Stillborn(FakeSupervisor):
        def ask(self, op, deadline_s, **request):
            if request["source"] == "mortal":
                raise WorkerDied("crashed", "at once")
            yield from super().ask(op, deadline_s, **request)

    groups = [group("sound", 1e8, ["torch"]), group("mortal", 1e8, ["torch"])]
    found, _ = identical.measure_identical(
        lambda: contextlib.nullcontext(Stillborn()), lambda _: groups, 2, 1, 0.0, lambda text: None
    )
    assert [set(worker.pairs) for worker in found] == [{"sound torch"}] * 2
    assert found[0].deaths == {"mortal torch": "at once"}


def test_a_busy_machine_ends_the_test_early_but_with_two_processes():
    groups = [group("sound", 1e8, ["torch"])]
    for patience, count in ((-1.0, 2), (math.inf, 4)):
        found, _ = identical.measure_identical(
            lambda: contextlib.nullcontext(FakeSupervisor()), lambda _: groups, 4, 1, 1e-9, lambda text: None, patience
        )
        assert len(found) == count


def test_twins_are_timed_by_the_clock_of_a_profile():
    torch = pytest.importorskip("torch")
    from seqroof.kernels import _catalog
    from seqroof.profiler.calls import Group
    from seqroof.profiler.devices import open_device
    from seqroof.profiler.twins import time_twins

    kernel = _catalog.load("gated_conv")
    shape = min(kernel.suite("quick"), key=lambda s: kernel.module.work(s, "fp32", "forward").matmul_flops)
    told = []
    case = Group(open_device("cpu"), kernel, shape, "fp32", "forward", 0)
    time_twins(case, "torch", ("warm", "host"), 7, 0.01, 2, lambda event, **data: told.append((event, data)))
    assert [event for event, _ in told] == ["twins", "twins"] and torch.is_grad_enabled()
    assert all(len(twin) == 7 and median(twin) > 0 for _, data in told for twin in data["rounds_s"])

"""The gauges of a CPU against programs that share nothing with them, and the CPU's clock against another clock.

The clock test is the only one that looks at a time. It compares two clocks on the very same wait and takes the best of
many tries, so that other programs on the machine cannot make it fail.
"""

import time

import pytest

from seqroof.profiler.clock import HostStopwatch
from seqroof.scripts import c_loops, ceilings_benchmark
from seqroof.scripts.ceilings_benchmark import Row

needs_compiler = pytest.mark.skipif(
    c_loops.compiler() is None, reason="no C compiler (cc, gcc or clang) to compile the other side with"
)


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [(100, "ok"), (109.9, "ok"), (91, "ok"), (120, "wide"), (81, "wide"), (126, "FAILED"), (79, "FAILED")],
)
def test_ratios_are_judged_in_both_directions(ours, verdict):
    assert Row("copy", "B/s", ours, 100.0, "C").verdict == verdict


def test_the_best_of_interleaved_rounds_counts_and_one_round_warms_up():
    order, script = [], {"ours": iter([0.1, 5.0, 4.0, 6.0]), "theirs": iter([0.1, 9.0, 8.0, 7.0])}
    samples = {name: lambda name=name: order.append(name) or next(script[name]) for name in script}
    best = ceilings_benchmark.best_rates(samples | {"absent": lambda: None}, 3, 0.0)
    assert best == {"ours": 4.0, "theirs": 7.0} and order == ["ours", "theirs"] * 4


def test_like_is_compared_with_like_and_the_kind_of_stores_is_named():
    row = ceilings_benchmark._row("copy", 100.0, {"0": 2.0, "ordinary": 2.1, "streaming": 1.0})
    assert (row.ours, row.theirs) == (50.0, 100 / 2.1) and "write-allocate" in row.other and "100 B/s" in row.other
    row = ceilings_benchmark._row("copy", 100.0, {"0": 1.1, "1": 3.0, "ordinary": 2.0, "streaming": 1.0})
    assert row.theirs == 100.0 and row.other.startswith("C, streaming stores")


@needs_compiler
def test_c_loops_are_compiled_and_compute_what_they_say(tmp_path):
    # The program checks its own results and answers 0 where they are wrong, which raises here.
    with c_loops.Loops(tmp_path, 2**20, 2) as loops:
        for pattern in ("read", "copy", "write", "triad"):
            for streaming in (False, True):
                assert loops.sample(pattern, streaming) is None or loops.sample(pattern, streaming) > 0


@needs_compiler
@pytest.mark.parametrize(
    ("pattern", "whole", "lazy"),
    [
        ("read", "i < n; i++) sum", "i < n / 8 * 7; i++) sum"),
        ("copy", "i < n; i++) b[i] = a[i]", "i < n / 2; i++) b[i] = a[i]"),
        ("write", "i < n; i++) c[i] = 1.7f", "i < n / 2; i++) c[i] = 1.7f"),
        ("triad", "i < n; i++) c[i] = a[i]", "i < n / 2; i++) c[i] = a[i]"),
    ],
)
def test_a_loop_that_leaves_a_part_out_is_found(tmp_path, monkeypatch, pattern, whole, lazy):
    assert c_loops.SOURCE.count(whole) == 1
    monkeypatch.setattr(c_loops, "SOURCE", c_loops.SOURCE.replace(whole, lazy))
    with c_loops.Loops(tmp_path, 2**20, 2) as loops, pytest.raises(RuntimeError, match="wrong result"):
        loops.sample(pattern)


@needs_compiler
def test_the_comparison_runs_from_end_to_end():
    pytest.importorskip("torch")
    rows = [*ceilings_benchmark.bandwidths(2**20, 1, 0.0), ceilings_benchmark.product(64, 1, 0.0)]
    assert [row.name for row in rows] == ["read", "copy", "write", "triad", "product fp32"]
    assert all(row.ratio > 0 and row.text.startswith(row.name) for row in rows)


def test_without_a_compiler_there_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(c_loops, "compiler", lambda: None)
    with pytest.raises(RuntimeError, match="install one"):
        c_loops.Loops(tmp_path, 2**20, 1)


@pytest.mark.long
@needs_compiler
def test_gauges_agree_with_c_and_blas_within_the_limit(capsys, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr("sys.argv", ["benchmark"])
    assert ceilings_benchmark.main() == 0, capsys.readouterr().out


def waited(duration_s):
    """Wait busily by the raw clock of the kernel; the seconds that passed on it."""
    start = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    now, end = start, start + round(duration_s * 1e9)
    while now < end:
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    return (now - start) * 1e-9


@pytest.mark.skipif(not hasattr(time, "CLOCK_MONOTONIC_RAW"), reason="this system has no second clock to compare with")
@pytest.mark.parametrize("block", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("duration_s", [20e-6, 200e-6, 5e-3])
def test_the_clock_of_kernels_agrees_with_another_clock_on_a_busy_wait(duration_s, block):
    stopwatch, off = HostStopwatch(block=block), []

    def compared(repeats):
        """How far one sample of so many waits is off, per wait."""
        passed = []
        (mean, *_) = stopwatch.sample([lambda: passed.append(waited(duration_s))], 0, repeats)
        return abs(mean - sum(passed[-repeats:]) / repeats)

    allowed = max(0.01 * duration_s, 1e-6)
    # A preemption between the two clocks spoils a try, so there are many; a biased clock is off in all of them.
    for _ in range(200):
        off.append(compared(5 if block else 1))
        if off[-1] <= allowed:
            break
    assert min(off) <= allowed

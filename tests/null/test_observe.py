"""Findings across points: the batch sweep in words and numbers."""

import pytest
from round_machine import ROUND, point, timing, work

from seqroof.roofline.observe import batch_sweeps, observations

BATCHES = (1, 2, 4, 8)


def sweep(times, **changes):
    """ROUND's ridge in fp32 is 100 FLOP/B; this work passes it between B = 4 and B = 8, at sqrt(2) x 4."""
    sizes = zip(BATCHES, times)
    return tuple(
        point(
            timing(time), shape={"B": b, "H": 7}, work=work(read=1000, matmul_flops=round(b * 1e5 / 32**0.5)), **changes
        )
        for b, time in sizes
    )


def test_growth_and_both_marks():
    (found,) = observations(sweep([10.0, 11.0, 12.0, 24.0]), ROUND)
    assert found.numbers["first_growth"] == pytest.approx(0.1)
    assert found.numbers["last_growth"] == pytest.approx(1.0)
    assert found.numbers["modelled_crossing_B"] == pytest.approx(32**0.5, rel=1e-3)
    assert found.numbers["measured_flat_until_B"] == 4
    assert found.numbers["measured_steep_from_B"] == 4
    assert "B = 6" in found.text and "from B=1 to 2 the time changes by +10 %" in found.text


def test_a_sweep_that_never_turns_says_so():
    (found,) = observations(sweep([10.0, 10.0, 10.0, 10.0]), ROUND)
    assert "never follows" in found.text and found.numbers["measured_steep_from_B"] is None


def test_growth_is_what_was_measured_whatever_the_step_of_the_batch():
    points = tuple(p for p in sweep([10.0, 10.0, 14.0, 28.0]) if p.shape["B"] != 2)
    (found,) = observations(points, ROUND)
    assert (
        found.numbers["first_growth"] == pytest.approx(0.4) and "from B=1 to 4 the time changes by +40 %" in found.text
    )
    assert found.numbers["measured_steep_from_B"] == 4  # 18 % per doubling before it, 100 % after


def test_two_sizes_or_other_dtypes_make_no_sweep():
    points = sweep([10.0, 11.0, 12.0, 24.0])
    assert batch_sweeps(points[:2]) == []
    assert len(batch_sweeps(points + sweep([1.0, 1.0, 1.0, 1.0], dtype="bf16"))) == 2
    assert batch_sweeps(tuple(p.model_copy(update={"headline": False}) for p in points)) == []

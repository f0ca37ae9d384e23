"""Findings across points: the batch sweep in words and numbers."""

import pytest
from round_machine import ROUND, point, timing, work

from seqroof.roofline.observe import batch_sweeps, by_importance, observations, step_sweeps
from seqroof.roofline.record import Observation
from seqroof.roofline.verdict import judge

BATCHES = (1, 2, 4, 8)


def sweep(times, **changes):
    """ROUND's ridge in fp32 is 100 FLOP/B; this work passes it between B = 4 and B = 8, at sqrt(2) x 4."""
    sizes = zip(BATCHES, times)
    works = {b: work(read=1000, matmul_flops=round(b * 1e5 / 32**0.5)) for b in BATCHES}
    weights = {"weight_bytes": changes.pop("weight_bytes", 1000)}
    return tuple(
        point(timing(time), shape={"B": b, "H": 7}, work=works[b].model_copy(update=weights), **changes)
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


def test_a_first_doubling_that_the_model_cannot_explain_says_so():
    def told(times, **changes):
        return "not explained by the model" in observations(sweep(times, **changes), ROUND)[0].text

    assert told([10.0, 22.0, 24.0, 48.0], bound="dram") and not told([10.0, 22.0, 24.0, 48.0], bound="compute")
    assert told([10.0, 5.0, 12.0, 24.0]) and not told([10.0, 11.0, 12.0, 24.0], bound="dram")


def test_doubts_come_first_and_one_batch_sweep_of_a_kernel_speaks_for_the_others():
    slow, fast = (sweep([t, t, t, 2 * t], implementation=name) for t, name in ((20.0, "slow"), (10.0, "fast")))
    found = [
        *observations((*slow, *fast), ROUND),
        Observation(id="reach k", text="r"),
        Observation(id="doubts", text="d"),
    ]
    kinds = [one.id.split(" fp32")[0] for one in by_importance(found)]
    assert kinds == ["doubts", "batch-walk k fast", "reach k", "batch-walk k slow"]


def test_batch_sweeps_of_both_directions_are_told_apart():
    both = (*sweep([10.0, 11.0, 12.0, 24.0]), *sweep([20.0, 22.0, 24.0, 48.0], direction="backward"))
    found = observations(both, ROUND)
    assert [one.text.split(": from B=1 to 2")[0] for one in found] == [
        "k torch fp32 (H=7)",
        "k torch fp32 backward (H=7)",
    ]
    assert len({one.id for one in found}) == 2
    assert [one.id for one in by_importance([*found, Observation(id="reach k", text="r")])][1] == "reach k"


def test_a_batch_without_weights_has_no_walk():
    assert observations(sweep([10.0, 11.0, 12.0, 24.0], weight_bytes=0), ROUND) == []


def test_an_empty_batch_and_work_without_products_end_no_run():
    times = [10.0, 11.0, 12.0, 24.0]
    empty = point(timing(5.0), shape={"B": 0, "H": 7}, work=work(read=1000).model_copy(update={"weight_bytes": 1000}))
    with_empty, without = (observations((*more, *sweep(times)), ROUND) for more in ((empty,), ()))
    assert with_empty == without
    plain = tuple(one.model_copy(update={"work": empty.work}) for one in sweep(times))
    (found,) = observations(plain, ROUND)
    assert found.numbers["modelled_crossing_B"] is None


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


def steps(times, **changes):
    """A sweep over T of a recurrence whose steps wait for a barrier (1 s on ROUND)."""
    return tuple(
        judge(
            point(
                timing(time),
                shape={"B": 1, "T": count, "H": 7},
                work=work(read=10, depth=count),
                chain="barrier",
                weights="kept",
                **changes,
            ),
            ROUND,
        )
        for count, time in zip((16, 32, 64, 128), times)
    )


def test_time_per_step_settles():
    (found,) = observations(steps([16 * 3.0, 32 * 2.0, 64 * 2.1, 128 * 2.0]), ROUND)
    assert found.numbers == {"step_s": 2.0, "settled_from_T": 32, "serial_share": 0.5, "bound": "serial"}
    assert "settles at 2.00 s (within 10 %) from T=32 on, from 3.00 s at T=16" in found.text
    assert "the serial floor is 50 % of it; bound: the chain of dependent steps" in found.text


def test_steps_that_their_wall_does_not_hold_have_a_highest_floor_and_no_bound():
    (found,) = observations(steps([16 * 9.0, 32 * 5.0, 64 * 4.1, 128 * 4.0]), ROUND)
    assert "the serial floor is 25 % of it; highest floor, 25 % of the time: the chain of dependent steps" in found.text
    assert "bound:" not in found.text


def test_time_per_step_that_still_falls_says_so():
    (found,) = observations(steps([16 * 8.0, 32 * 5.0, 64 * 3.0, 128 * 2.0]), ROUND)
    assert "not settled within 10 %" in found.text and found.numbers["settled_from_T"] is None


def test_a_sweep_over_steps_that_wait_for_nothing_is_no_recurrence():
    points = tuple(p.model_copy(update={"step_s": None}) for p in steps([32.0, 64.0, 128.0, 256.0]))
    assert step_sweeps(points) == []


def ragged(implementation, time, waste=0.4, **more):
    shape = {"B": 4, "T": 8, "ragged": 1} | more
    return point(timing(time), implementation=implementation, shape=shape, padding_waste=waste or None)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (ragged("torch.padded", 100.0), "torch.padded"),
        (ragged("torch", 100.0, waste=0.0, ragged=0), "ragged=0"),
    ],
)
def test_packed_is_put_beside_padded(other, says):
    (found,) = observations((ragged("torch", 70.0), other), ROUND)
    assert found.numbers == {"padding_waste": 0.4, "packed_over_padded": pytest.approx(0.7)}
    assert "40 % of the padded steps are padding; packed takes 70 % of the padded time" in found.text
    assert says in found.text


def test_padding_needs_both_sides():
    assert observations((ragged("torch", 70.0), ragged("triton.padded", 100.0)), ROUND) == []
    assert observations((ragged("torch", 70.0), ragged("torch.padded", 100.0, T=9)), ROUND) == []


def test_how_far_an_output_sees_is_told_once_for_every_shape():
    shape = {"B": 4, "T": 62}
    seeing = [
        point(timing(9.0), implementation=name, shape=shape, dtype=dtype, receptive_field=31)
        for name, dtype in (("torch", "fp32"), ("torch", "bf16"), ("triton", "fp32"))
    ]
    blind = point(timing(9.0), shape=shape)
    (found,) = observations((*seeing, blind), ROUND)
    assert found.numbers == {"receptive_field": 31, "steps": 62}
    assert "an output sees 31 steps, 50 % of the sequence" in found.text

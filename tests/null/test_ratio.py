"""Ratios and verdicts: what pairs see, what separate runs may claim, and what would settle a doubt."""

import math

import pytest
from round_machine import timing

from seqroof.roofline.ratio import Ratio, advice, overall, paired, rounds_to_decide, unpaired, verdict

WOBBLE = [1 + 0.002 * (index * 7 % 5 - 2) for index in range(20)]


def rounds(median, wobble=WOBBLE, width=0.002):
    """A timing of as many rounds as the wobble has."""
    return timing(median, width=width, rounds=[median * value for value in wobble])


def test_a_drift_that_both_sides_see_cancels_in_pairs():
    drifting = [1 + 0.03 * index for index in range(20)]
    found = paired(drifting, [1.05 * value * wobble for value, wobble in zip(drifting, WOBBLE)])
    assert found.value == pytest.approx(1.05, rel=1e-3) and found.high - found.low < 0.005
    assert verdict(found) == "SLOWER" and verdict(paired(drifting, drifting)) == "SAME"


def test_rounds_that_only_one_side_has_do_not_count():
    assert paired(WOBBLE, [*WOBBLE, 9.0, 9.0]) == paired([*WOBBLE, 9.0], WOBBLE) == paired(WOBBLE, WOBBLE)


def test_below_six_rounds_there_is_no_interval():
    found = paired([1.0] * 5, [2.0] * 5)
    assert found.low is None and verdict(found) == "AMBIGUOUS" and found.value == pytest.approx(2)
    assert "only 5 rounds" in advice(found) and "--rounds" in advice(found)


@pytest.mark.parametrize(
    ("low", "value", "high", "expected"),
    [
        (0.995, 1.0, 1.005, "SAME"),
        (0.985, 1.0, 1.005, "AMBIGUOUS"),
        (1.011, 1.02, 1.029, "SLOWER"),
        (1.009, 1.02, 1.031, "AMBIGUOUS"),
        (0.96, 0.97, 0.98, "FASTER"),
        (0.96, 0.97, 0.991, "AMBIGUOUS"),
    ],
)
def test_verdicts_around_the_band(low, value, high, expected):
    assert verdict(Ratio(value, low, high, 20)) == expected


def test_a_wide_interval_beyond_the_band_may_be_chance():
    """It just leaves the band out at 95 %, and would not leave 1 out at the confidence of many comparisons."""
    wide = Ratio(1.2, 1.02, 1.41, 20)
    assert verdict(wide) == "AMBIGUOUS" and verdict(Ratio(1.2, 1.1, 1.31, 20)) == "SLOWER"
    assert verdict(Ratio(1.2, 1.1, 1.31, 20), among=500) == "AMBIGUOUS"


def test_a_band_of_the_users_own():
    found = Ratio(1.03, 1.02, 1.04, 20)
    assert verdict(found) == "SLOWER" and verdict(found, band=0.05) == "SAME"


def test_verdicts_do_not_depend_on_who_is_called_base():
    base, new = rounds(1.0), rounds(1.013)
    there, back = unpaired(base, new, 0.002), unpaired(new, base, 0.002)
    assert there.low == pytest.approx(1 / back.high) and (verdict(there), verdict(back)) == ("SLOWER", "FASTER")


def test_separate_runs_count_the_noise_of_the_machine():
    base, new = rounds(1.0), rounds(1.03)
    assert verdict(unpaired(base, new, 0.0)) == "SLOWER"
    noisy = unpaired(base, new, 0.05)
    assert verdict(noisy) == "AMBIGUOUS" and noisy.high / noisy.low >= math.exp(0.1)
    assert "time both in one run" in advice(noisy)


def test_separate_runs_count_a_step_within_a_run():
    """The median of the slow half is no news about the code: the other run may have met the other half."""
    step = [1.0] * 9 + [1.04] * 11
    found = unpaired(rounds(1.0), timing(1.04, width=0.001, rounds=step), 0.001)
    assert verdict(found) == "AMBIGUOUS"


def test_the_rounds_that_would_decide_do_decide():
    """Scale the interval as more rounds would: what was ambiguous is decided."""
    for value, half in ((1.0, 0.015), (1.02, 0.015), (0.97, 0.04), (1.005, 0.01)):
        doubtful = Ratio(value, value * math.exp(-half), value * math.exp(half), 12)
        assert verdict(doubtful) == "AMBIGUOUS"
        needed = rounds_to_decide(doubtful)
        assert needed is not None and needed > 12
        narrower = half * math.sqrt(12 / needed)
        settled = Ratio(value, value * math.exp(-narrower), value * math.exp(narrower), needed)
        assert verdict(settled) != "AMBIGUOUS"
        assert f"--rounds {needed}" in advice(doubtful)


def test_rounds_do_not_narrow_the_noise_of_the_machine_at_the_confidence_of_many_comparisons():
    """10 % of change and 5 % of noise: clear of the band, and not at the confidence that fifty comparisons need."""
    reach = math.hypot(0.05, 0.01)
    many = Ratio(1.10, 1.10 * math.exp(-reach), 1.10 * math.exp(reach), 20, fixed=0.05)
    assert verdict(many) == "SLOWER" and verdict(many, among=50) == "AMBIGUOUS"
    assert rounds_to_decide(many, among=50) is None and "time both in one run" in advice(many, among=50)


def test_a_noise_known_from_few_runs_needs_more():
    reach = math.hypot(0.05, 0.01)
    known, few = (
        Ratio(1.10, 1.10 * math.exp(-reach), 1.10 * math.exp(reach), 20, 0.05, freedom) for freedom in (60, 4)
    )
    assert (verdict(known), verdict(few)) == ("SLOWER", "AMBIGUOUS") and "time both in one run" in advice(few)
    assert overall([known, few]).freedom == 4


def test_at_the_edge_of_the_band_no_number_of_rounds_decides():
    edge = Ratio(1.01, 1.0, 1.02, 12)
    assert rounds_to_decide(edge) is None and "edge of the band" in advice(edge)


def test_a_machine_too_noisy_for_any_number_of_rounds_is_told_so():
    assert "quieten the machine" in advice(Ratio(1.0, 0.7, 1.4, 12))


def test_overall_is_the_geometric_mean_and_keeps_the_common_noise():
    many = [unpaired(rounds(1.0), rounds(1.03), 0.02) for _ in range(100)]
    both = overall([*many, *(unpaired(rounds(1.03), rounds(1.0), 0.02) for _ in range(100))])
    assert both.value == pytest.approx(1.0) and both.high == pytest.approx(math.exp(0.02), rel=1e-3)
    assert both.low == pytest.approx(math.exp(-0.02), rel=1e-3)
    own = overall([Ratio(1.03, 0.93, 1.14, 20) for _ in range(100)])
    assert (own.value, own.low, own.high) == pytest.approx((1.03, 0.93, 1.14))  # one drift may be in all of them
    mixed = overall([Ratio(1.0, math.exp(-0.04), math.exp(0.04), 20), Ratio(1.0, 1.0, 1.0, 20)])
    assert mixed.high == pytest.approx(math.exp(0.02))
    assert overall([paired([1.0], [1.0])]) is None


def test_a_base_that_may_be_faster_makes_the_new_one_slower():
    lopsided = timing(1.0, rounds=[1.0] * 20).model_copy(update={"low": 0.9})
    found = unpaired(lopsided, timing(1.0, rounds=[1.0] * 20), 0.0)
    assert found.high == pytest.approx(1 / 0.9) and found.low == pytest.approx(1.0)
    found = unpaired(timing(1.0, rounds=[1.0] * 20), lopsided, 0.0)
    assert found.low == pytest.approx(0.9) and found.high == pytest.approx(1.0)

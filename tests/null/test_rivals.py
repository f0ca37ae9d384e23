"""Own rows beside the vendor's: paired by the rounds they shared, the fastest vendor row, one finding per kernel."""

import pytest
import samples
from round_machine import point, timing

from seqroof.roofline import export
from seqroof.roofline.rivals import OTHERS, contests, with_vendor

DRIFT = [1 + 0.02 * index for index in range(20)]


def row(implementation, factor, together="one", **changes):
    """A row of 20 rounds on a machine that grows slower all the time."""
    time = timing(factor * 1.19, width=0.3, rounds=[factor * value for value in DRIFT])
    return point(time.model_copy(update={"interleaved": together}), implementation=implementation, **changes)


def test_the_drift_of_the_machine_is_not_in_the_ratio():
    rows = with_vendor([row("torch", 3.0), row("torch.flash", 2.0), row("triton", 1.6), row("reference", 9.0)])
    (beside,) = [found.beside_vendor for found in rows if found.beside_vendor]
    assert rows[2].beside_vendor is beside and beside.vendor == "torch.flash" and beside.rounds == 20
    assert beside.speedup == pytest.approx(1.25) and beside.high - beside.low < 0.01 and beside.verdict == "FASTER"


def test_rows_of_other_rounds_are_not_paired():
    for rows in (
        [row("torch", 2.0, "one"), row("triton", 1.0, "two")],
        [row("torch", 2.0, ""), row("triton", 1.0, "")],
        [row("torch", 2.0, cache="warm"), row("triton", 1.0)],
        [row("torch", 2.0, status="invalid"), row("triton", 1.0)],
    ):
        assert all(found.beside_vendor is None for found in with_vendor(rows))


def test_one_finding_for_a_kernel_whatever_the_number_of_cases():
    rows = []
    for size, factor in ((1, 0.5), (2, 1.0), (4, 2.0)):
        rows += [row(name, f, f"case {size}", shape={"B": size}) for name, f in (("torch", 1.0), ("triton", factor))]
    (found,) = contests(with_vendor(rows))
    assert "triton is 2.00 times as fast as the best vendor row, torch, [2.00, 2.00], paired over 20" in found.text
    assert "in 3 cases" in found.text and "at worst triton is 0.50 times" in found.text
    assert (found.numbers["faster"], found.numbers["same"], found.numbers["slower"]) == (1, 1, 1)
    assert found.numbers["speedup"] == pytest.approx(2.0)


def test_other_peoples_rows_have_a_ratio_and_are_no_own_rows():
    rows = with_vendor([row("torch", 2.0), row("compile", 0.5), row("flashrnn", 0.6), row("mine", 1.5)])
    assert [found.beside_vendor is not None for found in rows] == [False, True, True, True]
    (found,) = contests(rows)
    assert found.text.startswith("k forward: mine is 1.33 times") and found.numbers["cases"] == 1
    assert contests(with_vendor([row("torch", 2.0), row("compile", 0.5)])) == []


def test_packages_that_kernels_offer_as_rows_are_known():
    from seqroof.kernels import _recurrent_peers, _separable_peers

    assert {*_recurrent_peers.MODULES, *_separable_peers.MODULES, "flash_attn", "compile"} == set(OTHERS)


def test_many_comparisons_need_more_certainty():
    """Eight rounds of 3 % noise and a difference of 7 %, alone and beside 200 others."""

    def close(name, index=0, factor=1.0):
        noise = [1 + 0.015 * ((7 * number + 3 * len(name)) % 5 - 2) for number in range(8)]
        rounds = [factor * value for value in noise]
        time = timing(factor, rounds=rounds).model_copy(update={"interleaved": f"case {index}"})
        return point(time, implementation=name)

    alone = [close("torch"), close("triton", factor=0.93)]
    crowd = [found for index in range(1, 201) for found in (close("torch", index), close("triton", index))]
    assert with_vendor(alone)[1].beside_vendor.verdict == "FASTER"
    assert with_vendor(alone + crowd)[1].beside_vendor.verdict == "AMBIGUOUS"


def test_too_few_rounds_are_said():
    few = [
        point(timing(f, rounds=[f] * 3).model_copy(update={"interleaved": "x"}), implementation=name)
        for name, f in (("torch", 2.0), ("triton", 1.0))
    ]
    (found,) = contests(with_vendor(few))
    assert "too few rounds" in found.text and found.numbers["low"] is None


def test_the_ratio_is_exported():
    rows = with_vendor([row("torch", 2.0), row("triton", 1.0)])
    text = export.csv(samples.run().model_copy(update={"points": rows}))
    assert "speedup_over_vendor" in text.splitlines()[0] and ",2.0" in text

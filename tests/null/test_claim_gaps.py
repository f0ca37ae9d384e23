"""What a claim planned and a run does not validly hold: named, never counted, and never filled by something else."""

from __future__ import annotations

import itertools

import claim_samples as samples
import pytest
from claim_verdicts import ALL, one, spoilt, without

from seqroof.roofline import claims
from seqroof.roofline.record import Warning_


@pytest.mark.parametrize(
    ("id", "kernel", "says"),
    [
        ("C4", "gated_conv", "all three kernels"),
        ("C6", "transformer_block", "transformer_block, training step"),
        ("C7", "hierarchical_attention", "dependent steps of hierarchical_attention"),
        ("C10", "gated_conv", "rows of gated_conv"),
        ("C11", "attention_decode", "both sides of the crossover"),
        ("C12", "gru", "rows of gru"),
        ("C13", "dilated_conv", "first=64"),
        ("C15", "transformer_block", "equal parameters"),
    ],
)
def test_a_missing_half_is_named(id, kernel, says):
    found = one(id, without(samples.run(), kernel))
    assert found.verdict == "INCONCLUSIVE" and any(says in text for text in found.missing)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"status": "crashed", "reason": "SIGSEGV"}, "crashed (SIGSEGV)"),
        ({"status": "invalid", "reason": "too fast"}, "invalid (too fast)"),
        ({"kernel": "rnn"}, "not measured"),
        ({"time_s": samples.timing(1.0).model_copy(update={"n": 2})}, "2 samples"),
    ],
)
def test_a_planned_case_without_a_valid_point_is_named_with_its_reason(changes, says):
    found = one("C12", spoilt(samples.run(), lambda p: p.kernel == "gru" and p.shape["B"] == 16, **changes))
    assert found.verdict == "SUPPORTED" and (found.decided, found.undecided) == (3, 1)
    assert any("gru fp32 warm at B=16,T=64,I=256,H=256" in text and says in text for text in found.missing)
    assert found.missing[-1].endswith("--suite claims")


def test_a_verdict_on_less_than_half_of_what_was_planned_is_none():
    found = one("C12", spoilt(samples.run(), lambda p: p.kernel == "gru" and p.shape["T"] == 64, status="crashed"))
    assert (found.verdict, found.decided, found.undecided) == ("INCONCLUSIVE", 1, 3)
    lost = spoilt(samples.run("C15"), lambda p: p.kernel == "lstm" and p.shape["T"] == 1024, status="crashed")
    assert one("C15", lost).verdict == "INCONCLUSIVE"  # that there is no place takes all of them
    kept = spoilt(samples.run(), lambda p: p.kernel == "lstm" and p.shape["T"] == 1024, status="crashed")
    assert one("C15", kept).verdict == "SUPPORTED"


def test_rows_of_another_class_do_not_fill_a_gap():
    gone = spoilt(samples.run(), lambda p: p.kernel == "gru" and p.shape["B"] == 16, implementation="torch")
    assert any("gru fp32 warm at B=16" in text for text in one("C12", gone).missing)


@pytest.mark.parametrize("id", sorted(set(ALL) - {"C3", "C8", "C9", "C14"}))
def test_invalid_points_never_count(id):
    made = samples.run()
    invalid = tuple(p.model_copy(update={"status": "invalid", "reason": "too fast"}) for p in made.points)
    assert one(id, made.model_copy(update={"points": invalid})).verdict == "INCONCLUSIVE"


@pytest.mark.parametrize(
    ("id", "extra"),
    [
        ("C12", [samples.lstm(2, 7, 32, 1.0), samples.lstm(2, 7, 32, 5.0, kernel="gru")]),
        ("C16", [samples.lstm(1, 7, 32, 1.0), samples.lstm(64, 7, 32, 64.0)]),
        (
            "C13",
            [p.model_copy(update={"shape": p.shape | {"B": 3}}) for p in samples.points("C13") if "first" in p.shape],
        ),
    ],
)
def test_shapes_that_were_not_planned_sway_no_verdict_without_a_region(id, extra):
    assert one(id, samples.run(points=(*samples.points(), *extra))) == one(id, samples.run())


@pytest.mark.parametrize("id", ["C1", "C2", "C5", "C11"])
def test_a_time_between_cold_and_warm_is_none_of_either(id):
    doubt = Warning_(id="not-cold-enough", severity="warning", cause="small", advice="larger")
    found = one(id, spoilt(samples.run(), lambda p: p.cache == "cold", warnings=(doubt,)))
    assert found.verdict == "INCONCLUSIVE" and any("not-cold-enough" in text for text in found.missing)
    assert one(id, spoilt(samples.run(), lambda p: p.cache == "warm", warnings=(doubt,))) == one(id, samples.run())


def test_roofs_that_were_not_measured_do_not_decide():
    stated = tuple(c.model_copy(update={"provenance": "datasheet"}) for c in samples.MACHINE.ceilings)
    made = samples.run(machine=samples.MACHINE.model_copy(update={"ceilings": stated}))
    for id in ("C1", "C2"):
        assert "a measured" in one(id, made).missing[0]


def test_other_parameters_are_no_pair():
    made = samples.run()
    other = tuple(
        p.model_copy(update={"work": p.work.model_copy(update={"parameters": int(p.work.parameters * 1.05)})})
        if p.kernel == "transformer_block" and p.work
        else p
        for p in made.points
    )
    assert {
        id: one(id, made.model_copy(update={"points": other})).verdict for id in ("C4", "C6", "C15")
    } == dict.fromkeys(("C4", "C6", "C15"), "INCONCLUSIVE")


def test_cases_name_each_case_once_and_for_its_device():
    for device in ("cpu", "cuda"):
        cases = claims.cases(device)
        assert all(one != other for one, other in itertools.combinations(cases, 2))
        assert {case["dtype"] for case in cases} == set(claims.dtypes(device))
    assert len(claims.cases("cuda")) > len(claims.cases("cpu"))

"""The verdicts on the claims: each can be supported, each is turned by contradicting evidence, noise decides none."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import claim_samples as samples
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqroof.roofline import claims
from seqroof.roofline.catalogue import machines
from seqroof.roofline.claim_board import PREDICATES, board, decided, rows
from seqroof.roofline.claim_verdict import Finding, above, below, exists, short, within, word_of
from seqroof.roofline.machine import Machine
from seqroof.roofline.record import Evidence, Fraction, Point, Run, Warning_
from seqroof.roofline.store import load
from seqroof.roofline.telemetry import Energy
from seqroof.roofline.trend import exponent

ALL = [claim.id for claim in claims.all_claims()]
CLAIMS = {claim.id: claim for claim in claims.all_claims()}
GROWING = samples.catalogue()


def words(run: Run | None, catalogue: tuple[Machine, ...] = GROWING) -> dict[str, str]:
    """The verdict on every claim from one run."""
    return {id: decided(claim, run, "r", catalogue).verdict for id, claim in CLAIMS.items()}


def one(id: str, run: Run | None, catalogue: tuple[Machine, ...] = GROWING):
    return decided(CLAIMS[id], run, "r", catalogue)


def without(run: Run, *kernels: str) -> Run:
    return run.model_copy(update={"points": tuple(p for p in run.points if p.kernel not in kernels)})


SUPPORTING = words(samples.run())


def test_there_are_17_claims_and_a_predicate_for_each():
    assert [f"C{number}" for number in range(1, 18)] == ALL
    assert {claim.predicate for claim in CLAIMS.values()} == set(PREDICATES)
    assert all(claim.condition and "{" not in claim.condition for claim in CLAIMS.values())


@pytest.mark.parametrize("id", ALL)
def test_supporting_evidence_supports(id):
    assert SUPPORTING[id] == "SUPPORTED", one(id, samples.run())


@pytest.mark.parametrize("id", ALL)
def test_contradicting_evidence_turns_the_verdict(id):
    turned = one(id, samples.run(id), samples.catalogue(1.5, 3.0) if id == "C3" else GROWING)
    assert turned.verdict == "REFUTED", turned
    assert (turned.numbers and turned.summary and not turned.missing) or id in ("C6", "C16")


@pytest.mark.parametrize("id", ALL)
def test_without_a_run_it_says_what_is_missing_and_what_would_decide_it(id):
    found = one(id, None, ())
    assert found.verdict == "INCONCLUSIVE" and not found.numbers
    assert "seqroof profile --suite claims" in found.missing[-1] and len(found.missing) >= 2


@pytest.mark.parametrize("id", sorted(set(ALL) - {"C3"}))
def test_an_empty_run_decides_nothing(id):
    found = one(id, samples.run(points=(), evidence=()))
    assert found.verdict == "INCONCLUSIVE" and found.missing


@pytest.mark.parametrize("id", sorted(set(ALL) - {"C3", "C8", "C9", "C14"}))
def test_invalid_points_never_count(id):
    made = samples.run()
    invalid = tuple(p.model_copy(update={"status": "invalid", "reason": "too fast"}) for p in made.points)
    assert one(id, made.model_copy(update={"points": invalid})).verdict == "INCONCLUSIVE"


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


def test_an_interval_that_contains_the_threshold_decides_nothing(monkeypatch):
    monkeypatch.setattr(samples, "WIDTH", 1.9)
    found = words(samples.run())
    noisy = {"C1", "C4", "C5", "C6", "C10", "C12", "C13", "C16"}
    kept = {"C4"}  # its shares have intervals of their own here
    assert {id: found[id] for id in noisy - kept} == dict.fromkeys(noisy - kept, "INCONCLUSIVE")
    said = one("C12", samples.run())
    assert "less noise" in said.missing[0] and said.numbers


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


def vendor(run: Run, *kernels: str) -> Run:
    """The run with rows of a vendor that are ten times as fast for these kernels and as fast for the others."""
    more = tuple(
        p.model_copy(
            update={
                "implementation": "torch",
                "time_s": samples.timing(p.time_s.median / (10 if p.kernel in kernels else 1), samples.WIDTH),
            }
        )
        for p in run.points
        if p.time_s
    )
    return run.model_copy(update={"points": (*run.points, *more)})


def test_a_vendors_rows_are_told_beside_the_verdict_and_do_not_make_it():
    found = one("C12", vendor(samples.run(), "lstm"))
    assert (found.verdict, found.rows) == ("SUPPORTED", "reference")
    assert [(line.rows, line.verdict) for line in found.beside] == [("vendor", "REFUTED")]


def test_a_claim_that_holds_here_and_not_there_names_both():
    others = [p for p in samples.points() if (p.shape.get("B"), p.shape.get("H")) != (16, 256)]
    slow = samples.lstm(16, 512, 256, 1.0), samples.lstm(16, 512, 256, 0.99, kernel="gru")
    found = one("C12", samples.run(points=(*others, *slow)))
    assert found.verdict == "CONDITIONAL"
    assert "/ B=1,T=512,I=256,H=256 fp32;" in found.region and "fails at B=16,T=512" in found.region


def test_training_is_judged_size_by_size():
    flat = (samples.lstm(512, 32, 1024, 0.1, direction="both"), samples.lstm(16, 1024, 1024, 0.1, direction="both"))
    wide = tuple(samples.convolution(B, T, 1024, 0.1, direction="both") for B, T in ((512, 32), (16, 1024)))
    found = one("C10", samples.on_gpu((*samples.points(), *flat, *wide)))
    assert found.verdict == "CONDITIONAL"
    assert found.region == "holds at width 256, 1024 tokens bf16; fails at width 1024, 16384 tokens bf16"
    alone = one("C10", samples.on_gpu((*samples.points(), *flat)))
    assert alone.verdict == "SUPPORTED" and any("gated_conv bf16 both" in text for text in alone.missing)


def spoilt(run: Run, where: Callable[[Point], bool], **changes: object) -> Run:
    return run.model_copy(update={"points": tuple(p.model_copy(update=changes) if where(p) else p for p in run.points)})


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
    assert found.verdict == "SUPPORTED" and (found.decided, found.undecided) == (2, 1)
    assert any("gru fp32 warm at B=16,T=512,I=256,H=256" in text and says in text for text in found.missing)
    assert found.missing[-1].endswith("--suite claims")


def test_a_verdict_on_less_than_half_of_what_was_planned_is_none():
    found = one("C12", spoilt(samples.run(), lambda p: p.kernel == "gru" and p.shape["T"] == 512, status="crashed"))
    assert (found.verdict, found.decided, found.undecided) == ("INCONCLUSIVE", 1, 2)
    lost = spoilt(samples.run("C15"), lambda p: p.kernel == "lstm" and p.shape["T"] == 2048, status="crashed")
    assert one("C15", lost).verdict == "INCONCLUSIVE"  # that there is no place takes all of them
    kept = spoilt(samples.run(), lambda p: p.kernel == "lstm" and p.shape["T"] == 2048, status="crashed")
    assert one("C15", kept).verdict == "SUPPORTED"


def test_rows_of_another_class_do_not_fill_a_gap():
    gone = spoilt(samples.run(), lambda p: p.kernel == "gru" and p.shape["B"] == 16, implementation="torch")
    assert any("gru fp32 warm at B=16" in text for text in one("C12", gone).missing)


def depth_run(tanh: float) -> Run:
    """A run whose tanh stack keeps this much of its gradient, and the gated one twenty times as much."""
    values = {name: samples.spread(name, value) for name, value in (("tanh", tanh), ("gated", 20 * tanh))}
    return samples.run(
        evidence=tuple(
            row.model_copy(update={"values": row.values | values["tanh"] | values["gated"]})
            if row.id.startswith("gradient-depth")
            else row
            for row in samples.evidence()
        )
    )


def test_where_nothing_vanishes_nothing_can_be_eased():
    assert one("C14", depth_run(0.01)).verdict == "SUPPORTED"
    found = one("C14", depth_run(0.9))
    assert found.verdict == "INCONCLUSIVE" and "stack vanishes" in found.missing[0]
    assert "gradient norm gated 18, gradient norm tanh 0.90 (measured)" in found.summary.replace("0.9 ", "0.90 ")
    open_ = one("C14", depth_run(0.1))  # the interval contains the threshold
    assert open_.verdict == "INCONCLUSIVE" and open_.undecided == 2


def test_the_intervals_of_times_widen_that_of_their_power():
    times = [Fraction(value=float(T), low=T * 0.7, high=T * 1.3) for T in (64, 128, 256, 512)]
    exact = [Fraction(value=float(T), low=float(T), high=float(T)) for T in (64, 128, 256, 512)]
    power, sure = (exponent((64, 128, 256, 512), of) for of in (times, exact))
    assert power.low < 0.9 < 1.1 < power.high and within(sure, 0.9, 1.1) is True


@pytest.mark.parametrize("id", ["C6", "C16"])
def test_why_there_are_no_joules_is_said_in_the_words_of_the_points(id):
    reason = "RAPL is readable by root only here"
    found = one(id, spoilt(samples.run(), lambda p: True, energy=Energy(reason=reason)))
    assert reason in found.missing[0] and found.verdict == "SUPPORTED"
    assert "headline rows only" in one(id, samples.run()).missing[0]


def test_a_place_that_only_a_vendors_rows_leave_is_named():
    found = one("C15", vendor(samples.run("C15"), "lstm"))
    assert found.verdict == "REFUTED" and found.beside[0].verdict == "SUPPORTED"
    assert "holds at" in found.beside[0].region and "T=2048" in found.beside[0].region


def test_stored_past_holds_state_against_cache_without_weights():
    found = one("C11", samples.run())
    named = {number.name.split(" at ")[0]: number.value for number in found.numbers}
    assert named["crossover of state and cache"] == 2.0  # h and c read and written, against key and value
    assert named["bytes of state / cache of 256 keys"] == 2 / 256
    assert "time LSTM step / attention with 256 keys 10 [9.90, 10.1] (derived)" in found.summary


@pytest.mark.parametrize(("chain", "verdict"), [("barrier", "INCONCLUSIVE"), ("launch", "SUPPORTED")])
def test_only_rows_with_the_same_chain_tell_what_near_weights_are_worth(chain, verdict):
    pair = [
        samples.lstm(B, 512, 512, seconds, implementation=name, weights=weights, chain=how)
        for B in (1, 16)
        for name, weights, how, seconds in (
            ("triton_step", "reread", "launch", 1.0),
            ("triton_resident", "kept", chain, 0.1),
        )
    ]
    found = one("C5", samples.on_gpu(pair))
    assert found.verdict == verdict and found.rows == "triton" and "10 (derived)" in found.summary
    told = "triton_step (chain launch) and triton_resident (chain barrier)"
    assert any(told in text for text in found.missing) == (chain == "barrier")
    alike = [
        p.model_copy(update={"implementation": "triton_streamed", "chain": chain}) for p in pair if p.chain == "launch"
    ]
    assert one("C5", samples.on_gpu([*pair, *alike])).verdict == "SUPPORTED"


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


def test_a_probe_needs_all_of_its_settings_and_keeps_reasons():
    rows = samples.evidence()
    found = one("C9", samples.run(evidence=tuple(row for row in rows if not row.id.endswith("forget_bias=4"))))
    assert found.verdict == "INCONCLUSIVE" and "forget_bias=4" in found.missing[0]
    dead = Evidence(id="gradient-reach", values={}, how="not measured: the worker was lost (SIGSEGV)")
    found = one("C9", samples.run(evidence=(dead,)))
    assert found.verdict == "INCONCLUSIVE" and "SIGSEGV" in found.missing[0]


def test_the_batch_where_half_of_the_units_work_is_told():
    walk = tuple(samples.step(B, 1024, 1e-4 if B > 64 else 1.0, dict.fromkeys(("C2", "C17"), 1)) for B in (64, 128))
    made = samples.run(points=(*samples.points(), *walk))
    assert "H=1024: half of the units work" in one("C2", made).summary


def test_growth_that_only_the_ratio_shows_decides_nothing():
    parts = []
    for index, part in enumerate(samples.catalogue(2.0, 1.7)):
        size = 6.0 if index in (1, 4) else 1.0  # a small part of that year is small in both
        roofs = tuple(roof.model_copy(update={"value": roof.value / size}) for roof in part.ceilings)
        parts.append(part.model_copy(update={"ceilings": roofs}))
    found = one("C3", None, tuple(parts))
    assert found.verdict == "INCONCLUSIVE" and "overlap" in found.missing[0]
    (over,) = (number for number in found.numbers if number.name.startswith("growth of FLOP/s over B/s per 2 years at"))
    assert (over.low or 0) > 1
    assert one("C3", None, samples.catalogue(2.0, 2.0)).verdict == "INCONCLUSIVE"
    assert "3 of 21" not in one("C3", None, samples.catalogue()).summary


def test_the_catalogue_of_today_leaves_the_growth_open_and_tells_what_the_ratio_rests_on():
    found = one("C3", None, tuple(machines().values()))
    assert found.verdict == "INCONCLUSIVE" and found.machine == "the catalogue"
    assert "one part per rate" in found.summary and "without p100-sxm2" in found.summary
    assert any(number.mark == "assumed" for number in found.numbers)


def test_every_number_says_where_it_comes_from():
    for entry in board([("r", samples.run())]).claims:
        assert entry.numbers and all(number.mark for number in entry.numbers), entry.id
        assert any(mark in entry.summary for mark in ("derived", "measured", "modelled", "datasheets")), entry.id


def test_roofs_that_were_not_measured_do_not_decide():
    stated = tuple(c.model_copy(update={"provenance": "datasheet"}) for c in samples.MACHINE.ceilings)
    made = samples.run(machine=samples.MACHINE.model_copy(update={"ceilings": stated}))
    for id in ("C1", "C2"):
        assert "a measured" in one(id, made).missing[0]


def test_too_few_seeds_and_torn_rows_of_a_probe_do_not_decide():
    for change in ({"seeds": 3}, {"norm_100": None}, {"norm_100": "much"}, {"norm_100_low": 1e9}):
        kept = [row for row in samples.evidence() if not row.id.startswith("gradient-reach")]
        torn = next(row for row in samples.evidence() if row.id.startswith("gradient-reach"))
        row = torn.model_copy(update={"values": torn.values | change})
        found = one("C9", samples.run(evidence=(*kept, row)))
        assert found.verdict == "INCONCLUSIVE" and found.missing, change


def test_each_machine_has_its_verdicts_and_the_fullest_run_gives_them():
    other = samples.MACHINE.model_copy(update={"id": "other", "name": "Other"})
    thin = samples.run("C12", created="2026-02-02").model_copy(update={"evidence": ()})
    found = board([("thin", thin), ("full", samples.run()), ("third", samples.run(machine=other))], GROWING)
    assert [entry.id for entry in found.claims] == ALL * 2
    mine = {entry.id: entry for entry in found.claims if entry.machine == samples.MACHINE.name}
    assert mine["C12"].run == "thin" and mine["C12"].verdict == "REFUTED"  # as much evidence, and newer
    assert mine["C9"].run == "full"
    assert {row["id"] for row in rows(found)} == set(ALL)


@pytest.mark.parametrize("path", sorted(samples.RESULTS), ids=lambda path: path.parent.name)
def test_recorded_runs_get_verdicts(path):
    found = board([("r", load(path))])
    assert [entry.id for entry in found.claims] == ALL


intervals = st.tuples(*[st.floats(1e-3, 1e3)] * 3).map(sorted).map(lambda v: Fraction(low=v[0], value=v[1], high=v[2]))


@given(intervals, st.floats(1e-3, 1e3))
def test_above_and_below_never_contradict_the_interval(value, threshold):
    assert (above(value, threshold) is True) == (value.low >= threshold)
    assert (below(value, threshold) is True) == (value.high <= threshold)
    if value.low < threshold < value.high:
        assert above(value, threshold) is None and below(value, threshold) is None
    assert within(value, value.low, value.high) is True


@given(st.lists(st.sampled_from([True, False, None]), max_size=8))
def test_the_verdict_follows_from_what_was_decided(holds):
    word = word_of([Finding(where="x", holds=hold, numbers=()) for hold in holds])
    known = [hold for hold in holds if hold is not None]
    if not known or 2 * len(known) < len(holds):
        assert word == "INCONCLUSIVE"
    elif len(set(known)) == 2:
        assert word == "CONDITIONAL"
    else:
        assert word == ("SUPPORTED" if known[0] else "REFUTED")
    some = exists([Finding(where="x", holds=hold, numbers=()) for hold in holds])
    assert (some == "SUPPORTED") == (True in holds) and (some == "REFUTED") == (bool(holds) and set(holds) == {False})


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (128.0, "128"), (0.047, "0.047"), (12.34, "12.3"), (1e-5, "1.0e-05")]
)
def test_numbers_are_short(value, text):
    assert short(value) == text


def test_cases_name_each_case_once_and_for_its_device():
    for device in ("cpu", "cuda"):
        cases = claims.cases(device)
        assert all(one != other for one, other in itertools.combinations(cases, 2))
        assert {case["dtype"] for case in cases} == set(claims.dtypes(device))
    assert len(claims.cases("cuda")) > len(claims.cases("cpu"))


@pytest.mark.parametrize(
    "change",
    [
        {"shape": {}},
        {"shape": {"B": 1, "T": -3, "I": 256, "H": 256, "F": 1, "K": 0, "L": 1, "N": 8, "P": 64, "first": 64}},
        {"time_s": samples.timing(1e300)},
        {"time_s": samples.timing(1e-300)},
        {"work": samples.work(0, read=0, parameters=0, tokens=0)},
        {"dtype": "odd"},
    ],
    ids=str,
)
def test_a_run_with_impossible_numbers_gets_verdicts_and_no_traceback(change):
    made = samples.run()
    for odd in (made.points, made.points[::2]):
        spoilt = tuple(point.model_copy(update=change) if point in odd else point for point in made.points)
        found = board([("r", made.model_copy(update={"points": spoilt}))])
        assert [entry.id for entry in found.claims] == ALL and found.model_dump_json()

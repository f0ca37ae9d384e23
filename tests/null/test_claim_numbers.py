"""Numbers of verdicts: noise decides none, intervals are honest, and impossible values end in sentences."""

from __future__ import annotations

import claim_samples as samples
import pytest
from claim_verdicts import ALL, one, words
from hypothesis import given
from hypothesis import strategies as st

from seqroof.roofline.claim_board import board
from seqroof.roofline.claim_verdict import Finding, above, below, exists, short, within, word_of
from seqroof.roofline.record import Evidence, Fraction
from seqroof.roofline.trend import exponent


def test_the_intervals_of_times_widen_that_of_their_power():
    times = [Fraction(value=float(T), low=T * 0.7, high=T * 1.3) for T in (64, 128, 256, 512)]
    exact = [Fraction(value=float(T), low=float(T), high=float(T)) for T in (64, 128, 256, 512)]
    power, sure = (exponent((64, 128, 256, 512), of) for of in (times, exact))
    assert power.low < 0.9 < 1.1 < power.high and within(sure, 0.9, 1.1) is True


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


def test_an_interval_that_contains_the_threshold_decides_nothing(monkeypatch):
    monkeypatch.setattr(samples, "WIDTH", 1.9)
    found = words(samples.run())
    noisy = {"C1", "C4", "C5", "C6", "C10", "C12", "C13", "C16"}
    kept = {"C4"}  # its shares have intervals of their own here
    assert {id: found[id] for id in noisy - kept} == dict.fromkeys(noisy - kept, "INCONCLUSIVE")
    said = one("C12", samples.run())
    assert "less noise" in said.missing[0] and said.numbers


def test_every_number_says_where_it_comes_from():
    for entry in board([("r", samples.run())]).claims:
        assert entry.numbers and all(number.mark for number in entry.numbers), entry.id
        assert any(mark in entry.summary for mark in ("derived", "measured", "modelled", "datasheets")), entry.id


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


def test_a_share_beyond_its_roof_is_counted_as_open():
    """A step that is faster than the memory could feed it was fed by a cache, and says nothing of the memory."""
    made = samples.run()
    quick = tuple(
        point.model_copy(update={"time_s": samples.timing(point.time_s.median / 1e6)})
        if point.kernel == "lstm_step" and point.cache == "cold"
        else point
        for point in made.points
    )
    for id in ("C1", "C2"):
        found = one(id, made.model_copy(update={"points": quick}))
        assert found.verdict == "INCONCLUSIVE" and found.undecided and not found.decided
        assert "beyond the roof" in found.missing[0]


def test_the_copies_of_every_device_of_a_fleet_count():
    fell = {"roof_bytes_per_s": 40e9, "start_bytes_per_s": 10e9, "start_from_roof": -0.7}
    row = Evidence(id="calibration-copy device 1", values=fell, how="Device 1: sample")
    low = samples.run("C1")
    assert one("C1", low.model_copy(update={"evidence": (*low.evidence, row)})).verdict == "INCONCLUSIVE"


def test_a_roof_that_did_not_hold_leaves_the_share_of_the_bandwidth_open():
    fell = {"roof_bytes_per_s": 40e9, "start_bytes_per_s": 10e9, "start_from_roof": -0.7}
    row = Evidence(id="calibration-copy", values=fell, how="sample")
    low = samples.run("C1")
    assert one("C1", low).verdict == "REFUTED"
    found = one("C1", low.model_copy(update={"evidence": (*low.evidence, row)}))
    assert found.verdict == "INCONCLUSIVE"
    assert "a part of their roof" in found.missing[0] and "less noise" not in found.missing[0]

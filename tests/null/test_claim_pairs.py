"""Pairs of cases timed in turn: which they are, what the probe makes of them, and how a verdict uses them."""

from __future__ import annotations

import claim_samples as samples
import pytest
from claim_verdicts import one, spoilt

from seqroof.kernels import _catalog
from seqroof.profiler import paired_times
from seqroof.profiler.devices import open_device
from seqroof.roofline import claims
from seqroof.roofline.claim_facts import line_id, pair_id
from seqroof.roofline.record import Evidence, Point


def of(id: str, first: Point, second: Point, value: float, **changes: float | None) -> Evidence:
    """Evidence on the pair of two points."""
    sides = [(point.kernel, point.shape) for point in (first, second)]
    values = samples.spread("ratio", value) | changes
    return Evidence(id=pair_id(sides[0], sides[1], "fp32", "reference"), values=values, how="sample")


def pairs_of(id: str, value: float, **changes: float | None) -> tuple[Evidence, ...]:
    """Evidence on all pairs of C12 or C13, as far as the sample has their points."""
    over, under = ("gru", "lstm") if id == "C12" else ("dilated_conv", "dilated_conv")
    points = samples.points()
    found = []
    for first in (p for p in points if p.kernel == over and p.shape.get("first", 64) == 64):
        shape = first.shape | ({"first": 1} if id == "C13" else {})
        second = next(p for p in points if (p.kernel, p.shape, p.direction) == (under, shape, "forward"))
        found.append(of(id, first, second, value, **changes))
    return tuple(found)


def test_a_pair_differs_in_its_sides_and_in_nothing_else():
    found = claims.pairs("cpu")
    differing = {"gru": ("lstm", set()), "dilated_conv": ("dilated_conv", {"first"})}
    assert {over.kernel for over, _ in found} == set(differing)
    for over, under in found:
        differs = {name for name in over.shape if over.shape[name] != under.shape[name]}
        assert (under.kernel, differs) == differing[over.kernel]
        assert (over.dtype, over.direction, over.cache) == (under.dtype, under.direction, under.cache)
    assert claims.pairs("cuda")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_planned_case_of_a_paired_claim_is_a_side_of_a_pair(device):
    sides = [side for pair in claims.pairs(device) for side in pair]
    for claim in claims.all_claims():
        if claim.pair is not None:
            assert claim.planned(device) and all(case in sides for case in claim.planned(device)), claim.id


@pytest.mark.parametrize(("id", "value", "verdict"), [("C12", 0.97, "REFUTED"), ("C13", 1.3, "REFUTED")])
def test_times_of_shared_rounds_decide_where_a_run_has_them(id, value, verdict):
    rows = (*samples.evidence(), *pairs_of(id, value))
    assert one(id, samples.run()).verdict == "SUPPORTED" and one(id, samples.run(evidence=rows)).verdict == verdict


def test_shared_rounds_decide_what_separate_times_leave_open(monkeypatch):
    monkeypatch.setattr(samples, "WIDTH", 1.9)
    assert one("C13", samples.run()).verdict == "INCONCLUSIVE"
    narrow = pairs_of("C13", 1.0, ratio_low=0.99, ratio_high=1.01)
    assert one("C13", samples.run(evidence=narrow)).verdict == "SUPPORTED"


def lengths_of_c7() -> list[Point]:
    """The plain recurrences of C7, by their lengths."""
    plain = [p for p in samples.points() if p.kernel == "lstm" and p.direction == "forward" and p.shape["B"] == 1]
    return sorted((p for p in plain if p.shape["H"] == p.shape["I"] == 256), key=lambda p: p.shape["T"])


def line_of(times: list[list[float]]) -> Evidence:
    """Evidence on C7 from the times of every length, round by round."""
    shapes = [point.shape for point in lengths_of_c7()]
    id = line_id("lstm", "T", shapes, "fp32", "reference")
    return paired_times._as_power(id, [tuple(own) for own in times], [shape["T"] for shape in shapes])


@pytest.mark.parametrize(("power", "verdict"), [(1.0, "SUPPORTED"), (0.8, "REFUTED")])
def test_lengths_timed_in_turn_decide_the_power_of_the_length(monkeypatch, power, verdict):
    monkeypatch.setattr(samples, "WIDTH", 1.9)
    assert one("C7", samples.run()).verdict == "INCONCLUSIVE"
    # The machine runs at half its speed in every other round, for all lengths alike.
    times = [[p.shape["T"] ** power * (1 + index % 2) for index in range(20)] for p in lengths_of_c7()]
    found = one("C7", samples.run(evidence=(*samples.evidence(), line_of(times))))
    assert found.verdict == verdict and "timed in turn" in found.summary


def test_times_on_no_line_leave_the_power_open_however_quiet_they_are():
    times = [[16.0 if p.shape["T"] == 512 else 1.0] * 20 for p in lengths_of_c7()]
    assert one("C7", samples.run(evidence=(*samples.evidence(), line_of(times)))).verdict == "INCONCLUSIVE"


def test_two_ends_of_an_older_run_do_not_overrule_its_fit():
    ends = [next(p for p in lengths_of_c7() if p.shape["T"] == T) for T in (512, 32)]
    row = of("C7", ends[0], ends[1], 16.0, ratio_low=15.9, ratio_high=16.1)
    assert one("C7", samples.run("C7", evidence=(*samples.evidence(), row))) == one("C7", samples.run("C7"))


@pytest.mark.parametrize("change", [{"ratio": None}, {"ratio_low": None}, {"ratio_low": 9.0}])
def test_a_torn_pair_leaves_the_verdict_to_the_points(change):
    rows = pairs_of("C12", 0.97, **change)
    torn, alone = (one("C12", samples.run(evidence=of)) for of in (rows, ()))
    assert torn.numbers == alone.numbers and torn.verdict == alone.verdict
    assert "not complete" in torn.missing[0] and "not measured" in alone.missing[0]


def test_a_verdict_says_what_its_ratio_rests_on_and_names_lost_pairs():
    rows = pairs_of("C12", 0.8, ratio_low=0.79, ratio_high=0.81)
    lost = rows[1].model_copy(update={"values": {}, "how": "not timed in turn (OSError: gone)"})
    found = one("C12", samples.run(evidence=(rows[0], lost, *rows[2:])))
    bases = [number.name.split(" at ")[0] for number in found.numbers]
    assert sorted(bases) == ["time GRU / LSTM, separate times", *["time GRU / LSTM, timed in turn"] * 3]
    assert (found.verdict, found.undecided) == ("SUPPORTED", 0)
    assert rows[1].id in found.missing[0] and "OSError: gone" in found.missing[0] and rows[0].id not in found.missing[0]
    assert not one("C12", samples.run(evidence=rows)).missing


def test_what_more_rounds_would_decide_is_advised_with_more_than_the_usual():
    wide = pairs_of("C12", 0.8, ratio_low=0.6, ratio_high=1.0)
    assert "--rounds 400" in one("C12", samples.run(evidence=wide)).missing[0]


def test_a_pair_with_an_invalid_side_decides_nothing():
    made = samples.run(evidence=pairs_of("C12", 0.97))
    wrong = spoilt(made, lambda point: point.kernel == "lstm", status="wrong")
    assert one("C12", wrong).verdict == "INCONCLUSIVE"


def test_the_probe_times_both_sides_of_a_pair(monkeypatch):
    case = claims.Planned(
        kernel="gru", shape={"B": 1, "T": 3, "I": 8, "H": 8}, dtype="fp32", direction="forward", cache="warm"
    )
    monkeypatch.setattr(claims, "pairs", lambda device: [(case, case.with_side({"kernel": "lstm"}))])
    line = [case.model_copy(update={"kernel": "lstm", "shape": case.shape | {"T": T}}) for T in (2, 8, 32)]
    monkeypatch.setattr(claims, "lines", lambda device: [("T", line)])
    monkeypatch.setattr(paired_times, "ROUNDS", 8)
    monkeypatch.setattr(paired_times, "BUDGET_S", 0.02)
    said: list[str] = []
    row, power = paired_times.paired_times(open_device("cpu", keep_threads=True), 9, _catalog.load, said.append)
    seen = {"known": [row.id]}
    (again,) = paired_times.paired_times(open_device("cpu", keep_threads=True), 9, _catalog.load, said.append, **seen)
    assert again.id == power.id
    assert row.values["rounds"] == 9 and 0.2 < row.values["ratio"] < 2.0
    assert row.values["ratio_low"] <= row.values["ratio"] <= row.values["ratio_high"]
    assert row.id.startswith("paired-times gru B=1,T=3,I=8,H=8,L=1") and row.id.endswith("fp32 reference")
    assert said and said[0] == row.id
    assert power.id == "paired-line lstm B=1,T=2/8/32,I=8,H=8,L=1,D=1,dilation=1,ragged=0 fp32 reference"
    assert (
        power.values["rounds"] == 9 and power.values["slope_low"] <= power.values["slope"] <= power.values["slope_high"]
    )


def test_a_line_is_made_of_all_planned_lengths():
    for device in ("cpu", "cuda"):
        ((size, cases),) = claims.lines(device)
        assert (size, [case.shape["T"] for case in cases]) == ("T", [32, 64, 128, 256, 512])


def test_a_pair_that_fails_says_why_and_loses_no_other(monkeypatch):
    case = claims.Planned(
        kernel="gru", shape={"B": 1, "T": 3, "I": 8, "H": 8}, dtype="fp32", direction="forward", cache="warm"
    )
    pairs = [(case, case.with_side({"kernel": "lstm"})), (case, case.with_side({"kernel": "rnn"}))]
    monkeypatch.setattr(claims, "pairs", lambda device: pairs)
    monkeypatch.setattr(claims, "lines", lambda device: [])
    monkeypatch.setattr(paired_times, "ROUNDS", 8)
    monkeypatch.setattr(paired_times, "BUDGET_S", 0.02)
    whole = paired_times.measure

    def failing(subjects, *rest, **more):
        monkeypatch.setattr(paired_times, "measure", whole)
        raise MemoryError("no room")

    monkeypatch.setattr(paired_times, "measure", failing)
    device = open_device("cpu", keep_threads=True)
    lost, kept = paired_times.paired_times(device, None, _catalog.load, lambda text: None)
    assert not lost.values and "MemoryError: no room" in lost.how and kept.values["rounds"] == 8

"""The verdicts on the claims: each can be supported, and each is turned by contradicting evidence."""

from __future__ import annotations

import re

import claim_samples as samples
import pytest
from claim_verdicts import ALL, CLAIMS, GROWING, one, spoilt, vendor, words

from seqroof.roofline.claim_board import PREDICATES, board, rows
from seqroof.roofline.record import Evidence
from seqroof.roofline.store import load
from seqroof.roofline.telemetry import Energy

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
    told = [
        text for text in turned.missing if "in shared rounds" not in text and not text.startswith("what decides it")
    ]
    assert (turned.numbers and turned.summary and not told) or id in ("C6", "C16")


@pytest.mark.parametrize("id", ALL)
def test_without_a_run_it_says_what_is_missing_and_what_would_decide_it(id):
    found = one(id, None, ())
    assert found.verdict == "INCONCLUSIVE" and not found.numbers
    assert "seqroof profile --suite claims" in found.missing[-1] and len(found.missing) >= 2


@pytest.mark.parametrize("id", sorted(set(ALL) - {"C3"}))
def test_an_empty_run_decides_nothing(id):
    found = one(id, samples.run(points=(), evidence=()))
    assert found.verdict == "INCONCLUSIVE" and found.missing


def test_a_vendors_rows_are_told_beside_the_verdict_and_do_not_make_it():
    found = one("C12", vendor(samples.run(), "lstm"))
    assert (found.verdict, found.rows) == ("SUPPORTED", "reference")
    assert [(line.rows, line.verdict) for line in found.beside] == [("vendor", "REFUTED")]


def test_a_claim_that_holds_here_and_not_there_names_both():
    others = [p for p in samples.points() if (p.shape.get("B"), p.shape.get("T")) != (16, 64)]
    slow = samples.lstm(16, 64, 256, 1.0), samples.lstm(16, 64, 256, 0.99, kernel="gru")
    found = one("C12", samples.run(points=(*others, *slow)))
    assert found.verdict == "CONDITIONAL"
    assert "B=1,T=64,I=256,H=256 fp32" in found.region and "fails at B=16,T=64" in found.region


def test_training_is_judged_size_by_size():
    flat = (samples.lstm(512, 32, 1024, 0.1, direction="both"), samples.lstm(16, 1024, 1024, 0.1, direction="both"))
    wide = tuple(samples.convolution(B, T, 1024, 0.1, direction="both") for B, T in ((512, 32), (16, 1024)))
    found = one("C10", samples.on_gpu((*samples.points(), *flat, *wide)))
    assert found.verdict == "CONDITIONAL"
    assert found.region == "holds at width 128, 1024 tokens bf16; fails at width 1024, 16384 tokens bf16"
    alone = one("C10", samples.on_gpu((*samples.points(), *flat)))
    assert alone.verdict == "SUPPORTED" and any("gated_conv bf16 both" in text for text in alone.missing)


@pytest.mark.parametrize("id", ["C6", "C16"])
def test_why_there_are_no_joules_is_said_in_the_words_of_the_points(id):
    reason = "RAPL is readable by root only here"
    found = one(id, spoilt(samples.run(), lambda p: True, energy=Energy(reason=reason)))
    assert reason in found.missing[0] and found.verdict == "SUPPORTED"
    assert "headline rows only" in one(id, samples.run()).missing[0]
    how = "one look before. Unknown: clock_hz: no cpufreq; idle_w: RAPL is not offered here"
    look = Evidence(id="surroundings-before", values={"idle_w": None}, how=how)
    told = one(id, samples.run(evidence=(*samples.evidence(), look))).missing[0]
    assert told == "joules per token: RAPL is not offered here; seconds decide"


def test_a_place_that_only_a_vendors_rows_leave_is_named():
    found = one("C15", vendor(samples.run("C15"), "lstm"))
    assert found.verdict == "REFUTED" and found.beside[0].verdict == "SUPPORTED"
    assert "holds at" in found.beside[0].region and "T=1024" in found.beside[0].region


def test_stored_past_holds_state_against_cache_without_weights():
    found = one("C11", samples.run())
    named = {number.name.split(" at ")[0]: number.value for number in found.numbers}
    assert named["crossover of cache and state"] == 2.0  # h and c read and written, against key and value
    assert named["bytes of state / cache of 256 keys"] == 2 / 256
    assert named["time LSTM step / attention with 256 keys"] == pytest.approx(1 / 1.8)
    assert "as the state: K = 2 (derived), measured at K = 1 and 256" in found.summary
    assert found.summary.split("; ")[1].endswith("(derived), measured at K = 256 and 16384")


def test_every_length_beyond_the_crossover_of_stored_bytes_counts_under_its_own_name():
    def slow(point):
        return point.kernel == "attention_decode" and point.shape["K"] == 256

    made = samples.run()
    step = next(p.time_s.median for p in made.points if (p.kernel, p.shape.get("H")) == ("lstm_step", 512) and p.time_s)
    found = one("C11", spoilt(made, slow, time_s=samples.timing(step / 8, samples.WIDTH)))
    assert (found.verdict, found.decided) == ("CONDITIONAL", 2)
    assert found.region.startswith("holds at K=16384") and "fails at K=256" in found.region
    for figure in found.numbers:
        named = re.search(r"(\d+) keys at K=(\d+)", figure.name)
        assert named is None or named[1] == named[2]
    # From 1/8 of a step to 2 steps is a factor of 16, three quarters of it before the step's time.
    even = next(number.value for number in found.numbers if number.name.startswith("crossover of times"))
    assert even == pytest.approx(256 * 64**0.75)
    assert "interpolated between the measured K = 256 and 16384" in found.summary


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


def test_the_batch_where_half_of_the_units_work_is_told():
    walk = tuple(samples.step(B, 1024, 1e-4 if B > 64 else 1.0, dict.fromkeys(("C2", "C17"), 1)) for B in (64, 128))
    made = samples.run(points=(*samples.points(), *walk))
    assert "H=1024: half of the units work" in one("C2", made).summary


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

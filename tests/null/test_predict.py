"""Predictions: one shape, a sweep, and where recurrent weights outgrow the places that could keep them."""

import json

import pytest
from round_machine import ROUND, ceiling, work

from seqroof.roofline import catalogue
from seqroof.roofline.floors import best_floors, best_residency
from seqroof.roofline.predict import fits
from seqroof.scripts import predicting
from seqroof.scripts.exits import Stop

SWEEP = "B=16,T=512,I=1024,H=256:4096:x2"


def predict(capsys, shape, as_json=True, kernel="lstm"):
    predicting.predict(kernel, "h200-sxm", [shape], "bf16", "forward", "reread", "launch", "cold", as_json)
    printed = capsys.readouterr().out
    return json.loads(printed) if as_json else printed


def recurrent(size):
    return work(depth=4, weights=2 * size * size, recurrent=size * size, streamed_bytes=8 * size * size)


def test_weights_outgrow_a_place_between_two_sizes():
    roomy = ROUND.model_copy(update={"ceilings": (*ROUND.ceilings, ceiling("capacity", "chip", 900.0, unit="B"))})
    chip, cache = fits([(size, recurrent(size)) for size in (10, 20, 40, 80)], roomy)
    assert (chip.last, chip.first_without) == (20, 40) and chip.size == pytest.approx(30)
    assert (cache.last, cache.first_without) == (40, 80) and cache.size == pytest.approx(5000**0.5)
    assert fits([(size, recurrent(size)) for size in (10, 20)], roomy) == []


def test_the_best_residency_asks_for_recurrent_weights_only():
    assert best_residency(recurrent(70), ROUND) == "cache"
    assert best_residency(recurrent(71), ROUND) == "dram"
    assert best_residency(work(weights=10**9), ROUND) == "chip", "one step reads its weights once, wherever they are"


def test_the_best_floor_falls_nowhere_when_weights_grow():
    machine = catalogue.machine("h200-sxm")
    jobs = [recurrent(2**power) for power in range(8, 15)]
    for wall in ("dram", "cache"):
        times = [getattr(best_floors(job, "bf16", machine, "cold").floors, wall) for job in jobs]
        assert times == sorted(times)


def test_a_sweep_of_the_lstm_shows_where_its_weights_stop_fitting(capsys):
    made = predict(capsys, SWEEP)
    assert [row["shape"]["H"] for row in made["rows"]] == [256, 512, 1024, 2048, 4096]
    places = {fit["level"]: fit["size"] for fit in made["fits"]}
    # 8 H^2 bytes in bf16: 132 SMs of 228 KB, those with 256 KB of registers each, and 50 MB of L2.
    assert places["shared memory alone"] == pytest.approx((132 * 228 * 1024 / 8) ** 0.5, rel=1e-6)
    assert places["shared memory and registers together"] == pytest.approx((132 * 484 * 1024 / 8) ** 0.5, rel=1e-6)
    assert places["the last shared cache"] == pytest.approx((50 * 2**20 / 8) ** 0.5, rel=1e-6)


def test_a_sweep_prints_a_row_per_shape_and_the_sentences(capsys):
    text = " ".join(predict(capsys, SWEEP, as_json=False).split())
    assert "lstm B=16,T=512,I=1024,L=1,D=1" in text and "on chip" in text and "in DRAM" in text
    assert "stop fitting into shared memory alone (30.8 MB) between H=1024 and H=2048; interpolated H = 1963" in text


def test_one_shape_is_one_document_with_the_worked_values(capsys):
    made = predict(capsys, "B=32,T=512,I=1024,H=1024")
    assert made["work"]["matmul_flops"] == 274877906944
    assert (made["work"]["compulsory_bytes"], made["work"]["streamed_bytes"]) == (84156416, 8761901056)
    assert made["best_residency"] == "chip" and "rows" not in made


def test_a_prediction_says_what_the_chain_of_the_best_design_waits_for(capsys):
    """No row of the catalogue states the latency of a step inside a program."""
    text = " ".join(predict(capsys, "B=32,T=512,I=1024,H=1024", as_json=False).split())
    assert "its chain: 512 dependent steps x 1.20 µs (barrier, assumed); latency of inside not known" in text


def test_sweeps_of_two_sizes_or_of_one_step_have_no_sentence(capsys):
    assert predict(capsys, "B=1|2,T=8,I=64,H=1024|4096")["fits"] == []
    text = predict(capsys, "B=1:4:x2,I=64,H=64", as_json=False, kernel="lstm_step")
    assert "per step" not in text and "stop fitting" not in text


def test_an_impossible_size_in_a_sweep_ends_with_a_sentence(capsys):
    with pytest.raises(Stop, match="H"):
        predict(capsys, "B=1,T=8,I=64,H=0|64")

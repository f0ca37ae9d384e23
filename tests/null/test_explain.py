"""Why a time is not the best possible one: its three parts, what would help, and the command that tells the story."""

from __future__ import annotations

import pytest
from round_machine import ROUND, point, timing
from samples import run
from typer.testing import CliRunner

from seqroof.kernels import _catalog
from seqroof.roofline import catalogue, gap
from seqroof.roofline.record import Floors
from seqroof.roofline.store import save
from seqroof.roofline.verdict import judge
from seqroof.roofline.what_if import Case
from seqroof.scripts.exits import Exit, Stop
from seqroof.scripts.main import app

H200 = catalogue.machine("h200-sxm")
LSTM = _catalog.load("lstm")


def shares(time_s, own, best):
    made = point(timing(time_s), floors_s=Floors(dram=own), best_floors_s=Floors(compute=best))
    return [(part.name, part.wall, round(part.share, 3)) for part in gap.parts(made)]


def test_a_time_has_three_parts_that_add_up():
    assert shares(100.0, 60.0, 20.0) == [
        ("needed by any design", "compute", 0.2),
        ("added by this design", "dram", 0.4),
        ("beyond its floor", None, 0.4),
    ]


@pytest.mark.parametrize(
    ("time_s", "own", "best", "expected"),
    [
        (100.0, 20.0, 20.0, [0.2, 0.0, 0.8]),
        (100.0, 100.0, 100.0, [1.0, 0.0, 0.0]),
        (100.0, 120.0, 40.0, [0.4, 0.6, 0.0]),  # faster than its floor: no part is negative
        (100.0, 40.0, 50.0, [0.5, 0.0, 0.5]),  # its own floor was modelled with less than the best one
    ],
)
def test_no_part_is_negative(time_s, own, best, expected):
    assert [share for _, _, share in shares(time_s, own, best)] == expected


def test_what_is_not_known_has_no_parts():
    assert gap.parts(point(None)) == gap.parts(point(timing(1.0))) == []


def test_remedies_are_those_that_save_a_tenth_the_best_first():
    job = LSTM.module.work(LSTM.shape(B=1, T=512, I=1024, H=1024), "bf16", "forward")
    found = gap.remedies(Case(job, "bf16", "warm", "reread", "launch"), H200)
    assert found[0].change == "weights kept on chip, one launch" and len(found) > 2
    assert [remedy.saves for remedy in found] == sorted((remedy.saves for remedy in found), reverse=True)
    assert all(remedy.saves >= gap.WORTH for remedy in found)
    assert gap.remedies(Case(job, "bf16", "warm"), H200) == [], "the best possible design has none"


def test_the_best_possible_design_is_not_named_beside_the_only_change_it_makes():
    """Hoisting and a barrier are done already; keeping the weights is all that the best one does besides."""
    job = LSTM.module.work(LSTM.shape(B=1, T=512, I=1024, H=1024), "bf16", "forward")
    found = gap.remedies(Case(job, "bf16", "warm", "reread", "barrier", hoists=True), H200)
    assert [remedy.change for remedy in found] == ["weights kept on chip, one launch"]


def explain(*arguments):
    found = CliRunner().invoke(app, ["explain", *map(str, arguments)], env={"COLUMNS": "80", "NO_COLOR": "1"})
    return found, " ".join(found.output.split())


def test_a_prediction_shows_every_term_and_the_command_that_measures():
    shape = LSTM.shape(B=2, T=5, I=8, H=16)
    found, text = explain("lstm", "--shape", "B=2,T=5,I=8,H=16", "--dtype", "bf16")
    assert found.exit_code == 0, found.output
    for term in LSTM.module.work(shape, "bf16", "forward").terms:
        assert term.label in text and term.reason in text
    assert "5 dependent steps" in text and "<- bound" in text and "c_t = " in text
    assert "Now measure: seqroof explain lstm --shape B=2,T=5,I=8,H=16" in text and "--measure" in text


def test_a_run_shows_the_parts_of_what_was_measured(tmp_path):
    kernel = _catalog.load("gated_conv")
    sizes = {"B": 2, "T": 8, "C": 4, "O": 4, "W": 2, "dilation": 1, "residual": 0}
    job = kernel.module.work(kernel.shape(**sizes), "fp32", "forward")
    floors = {"fast": 100.0, "slow": 300.0}
    points = tuple(
        judge(point(timing(time_s), kernel="gated_conv", shape=sizes, work=job, implementation=name), ROUND)
        for name, time_s in floors.items()
    )
    save(run(points=points).model_copy(update={"machine": ROUND}), tmp_path)
    found, text = explain("gated_conv", "--shape", "B=2,T=8,C=4,O=4,W=2", "--on", tmp_path)
    assert found.exit_code == 0, found.output
    assert text.index("fast measured") < text.index("slow measured")
    assert "needed by any design" in text and "beyond its floor" in text and "The four walls of fast" in text
    assert all(len(line) <= 80 for line in found.output.splitlines() if not line.startswith("More: "))
    other, text = explain("gated_conv", "--shape", "B=3,T=8,C=4,O=4,W=2", "--on", tmp_path)
    assert other.exit_code == 0 and "Now measure" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("lstm", "--shape", "B=1|2,T=4,I=8,H=8"), "takes one shape"),
        (("lstm", "--shape", "B=1,T=4,I=8,H=8", "--on", "h2000"), "path of a run"),
        (("lstm", "--shape", "B=1,T=4,I=8,H=8", "--dtype", "int3"), "int3"),
        (("lstm", "--shape", "B=1,T=0,I=8,H=8"), "T must be at least 1"),
    ],
)
def test_bad_input_ends_in_a_sentence(arguments, said):
    found, _ = explain(*arguments)
    assert found.exit_code != 0 and said in str(found.exception)


def test_measuring_goes_on_to_explain_the_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, text = explain("lstm_step", "--shape", "B=1,I=16,H=16", "--measure")
    assert found.exit_code == 0, found.output
    assert "measured" in text and "The four walls of" in text and "More: seqroof what-if lstm_step" in text


@pytest.mark.parametrize("measure", [[], ["--measure"]])
def test_a_device_that_does_not_exist_is_refused_before_anything_is_measured(measure, monkeypatch):
    monkeypatch.setattr("seqroof.scripts.measuring.profile", lambda *arguments: pytest.fail("it was measured"))
    shape = "T=4,B=1,I=8,H=8"
    found = CliRunner().invoke(app, ["explain", "lstm", "--shape", shape, "--device", "gpu", *measure])
    assert isinstance(found.exception, Stop) and found.exception.code == Exit.USAGE
    assert "There is no device 'gpu'" in str(found.exception)

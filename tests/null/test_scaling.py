"""Exponents of times in the length: what makes a curve, its path in words, launch tax, the chart and the command."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from round_machine import ROUND, point, timing, work
from samples import HOSTILE_RICH, run
from typer.testing import CliRunner

from seqroof.kernels import _catalog
from seqroof.roofline import scaling, scaling_chart, scaling_table, trend
from seqroof.roofline._labels import Label
from seqroof.roofline._layout import TEXT
from seqroof.roofline.record import Fraction
from seqroof.roofline.store import dumps
from seqroof.scripts import scaling as command
from seqroof.scripts.exits import Stop
from seqroof.scripts.main import app

ROOT = Path(__file__).resolve().parents[2]
WALK = ROOT / "results" / "amd-epyc-2026-11-21" / "recurrent_walk"
LENGTHS = (16, 32, 64, 128)


def timed(T, seconds, depth=None, width=0.0, flops=None, **more):
    """A point of length T; its operations grow with T unless told otherwise."""
    job = work(depth=depth or T, matmul_flops=flops or 100 * T)
    fields = {"shape": {"B": 1, "T": T, "H": 8}, "kernel": "lstm", "work": job, "estimate_s": 2.0 * T}
    return point(timing(seconds, width), **(fields | more))


def line(times=lambda T: 3.0 * T, lengths=LENGTHS, **more):
    return [timed(T, times(T), **more) for T in lengths]


def runs_of(*points):
    return [run(points=tuple(points)).model_copy(update={"machine": ROUND})]


def test_a_time_in_proportion_has_the_exponent_one_and_its_steps():
    (curve,) = scaling.curves(runs_of(*reversed(line())))
    assert curve.lengths == LENGTHS and curve.fixed == "B=1,H=8"
    assert curve.power.value == pytest.approx(1.0) and curve.end_power.value == pytest.approx(1.0)
    assert (curve.flops_power, curve.model_power) == (pytest.approx(1.0), pytest.approx(1.0))
    assert curve.path.words == "T" and curve.path.form == "linear"
    assert curve.step_s == Fraction(value=3.0, low=3.0, high=3.0)


def test_the_interval_holds_that_of_the_times():
    (curve,) = scaling.curves(runs_of(*line(width=0.2)))
    # The short half at one end of its intervals and the long half at the other, by least squares.
    tilt = 2 * math.log(1.1 / 0.9) / (5 * math.log(2))
    assert curve.power.low == pytest.approx(1 - tilt) and curve.power.high == pytest.approx(1 + tilt)
    assert curve.end_power.low == pytest.approx(1 + math.log(0.9 / 1.1) / math.log(2))
    assert curve.step_s.low == pytest.approx(2.7) and curve.step_s.high == pytest.approx(3.3)


def test_a_fixed_cost_flattens_the_whole_more_than_the_end():
    (curve,) = scaling.curves(runs_of(*line(lambda T: 60.0 + T)))
    assert curve.power.value < curve.end_power.value < 1


def test_points_that_differ_in_more_than_the_length_make_no_curve():
    apart = [*line(), *line(implementation="other"), *line(dtype="bf16"), *line(cache="warm"), *line(clock="graph")]
    apart += [timed(T, T, shape={"B": 2, "T": T, "H": 8}) for T in LENGTHS]
    assert [len(curve.points) for curve in scaling.curves(runs_of(*apart))] == [4] * 6
    spoilt = [*line()[:3], line(status="invalid")[3]]
    (curve,) = scaling.curves(runs_of(*spoilt))
    assert curve.power is None and curve.missing == "T=16, 32, 64; 1 more length needed"
    assert len(scaling.curves(runs_of(*line()[:2]) + runs_of(*line()[2:]))) == 2


def test_the_length_of_attention_is_its_queries_with_its_keys_where_they_are_the_same():
    tied = [timed(S, S * S, depth=1, kernel="attention", shape={"B": 1, "S": S, "K": S}) for S in LENGTHS]
    (curve,) = scaling.curves(runs_of(*tied))
    assert (curve.size, curve.fixed) == ("S", "B=1") and curve.power.value == pytest.approx(2.0)
    assert curve.path.words == "1" and curve.step_s is None
    others = [timed(S, S, depth=1, kernel="attention", shape={"B": 1, "S": S, "K": 7}) for S in LENGTHS]
    assert scaling.curves(runs_of(*others))[0].fixed == "B=1,K=7"
    decode = [timed(K, K, depth=1, kernel="attention_decode", shape={"B": 1, "K": K}) for K in LENGTHS]
    assert scaling.curves(runs_of(*decode))[0].size == "K"
    assert scaling.curves(runs_of(*[point(timing(1.0), kernel="lstm_step")])) == []


@pytest.mark.parametrize(
    ("depths", "fan", "words"),
    [
        ([6, 6, 6, 6], None, "6"),
        ([1, 1, 1, 1], 100, "1"),
        ([16, 32, 64, 128], None, "T"),
        ([4, 8, 16, 32], None, "T/4"),
        ([32, 64, 128, 256], None, "2 T"),
        ([1, 2, 2, 2], 16, "log_16 T"),
        ([2, 2, 2, 3], 8, "log_8 T"),
        ([2, 2, 2, 4], 8, "T^0.30 (fitted)"),
        ([4, 8, 12, 16], None, "T^0.66 (fitted)"),
        ([6, 11, 22, 43], None, "T/3"),
        ([97, 129, 193, 321], None, "2 T + 65"),
        ([13, 29, 61, 125], None, "T - 3"),
    ],
)
def test_a_path_in_words(depths, fan, words):
    assert scaling.path(LENGTHS, depths, "T", fan).words == words


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(2, 101))
def test_levels_are_those_of_the_kernel(length, fan):
    kernel = _catalog.load("hierarchical_attention")
    assert scaling.levels(length, fan) == kernel.shape(B=1, T=length, P=4, F=fan).levels


def test_the_launch_tax_is_the_hosts_clock_less_the_graphs_with_both_intervals():
    rows = line(cache="warm", implementation="triton_step", width=0.1)
    graph = [timed(128, 128.0, cache="warm", implementation="triton_step", clock="graph", width=0.1)]
    curve = scaling.curves(runs_of(*rows, *graph))[0]
    assert curve.tax_s.value == pytest.approx(2.0)
    assert curve.tax_s.low == pytest.approx(3 * 0.95 - 1.05) and curve.tax_s.high == pytest.approx(3 * 1.05 - 0.95)
    assert "triton_step lstm fp32, T=128: 2.00 s" in scaling_table.tax_lines([curve])[0]
    alone = scaling.curves(runs_of(*rows))
    assert alone[0].tax_s is None and scaling_table.NO_TAX in scaling_table.tax_lines(alone)[0]


def test_a_line_says_where_the_mean_of_its_points_lies():
    xs, ys = (0.0, 1.0, 2.0, 3.0), (0.1, 0.9, 2.1, 2.9)
    found = trend.line(xs, ys)
    assert found.at(1.5).value == pytest.approx(1.5)
    # Residuals 0.06, -0.08, 0.16 - 0.02 ...: by hand, s = 0.1265, and Student's t at two degrees of freedom is 4.303.
    rest = sum((y - found.at(x).value) ** 2 for x, y in zip(xs, ys))
    assert found.at(1.5).high - 1.5 == pytest.approx(4.303 * math.sqrt(rest / 2 / 4), rel=1e-3)
    assert found.at(3.0).high - found.at(3.0).value == pytest.approx(
        4.303 * math.sqrt(rest / 2 * (1 / 4 + 1.5**2 / 5)), rel=1e-3
    )


@given(st.lists(st.floats(-50, 450), min_size=1, max_size=19))
def test_names_beside_a_chart_keep_their_order_and_touch_neither_each_other_nor_the_frame(wanted):
    places = scaling_chart.apart(sorted(wanted), 360.0)
    boxes = [Label("lstm torch fp32", 0.0, place, "left").box(TEXT) for place in places]
    assert all(not one.overlaps(other) for one, other in pairwise(boxes))
    assert places == sorted(places) and boxes[0].top >= 0 and boxes[-1].bottom <= 360


def test_the_chart_names_the_fastest_implementation_of_each_kernel_with_its_exponent():
    slow = line(lambda T: 30.0 * T, implementation=HOSTILE_RICH)
    flat = line(lambda T: 5.0, kernel="attention", depth=1)
    found = scaling.curves(runs_of(*slow, *line(), *flat, *line(dtype="bf16")))
    made = scaling_chart.spec(found)
    layers = {layer["name"]: layer for layer in made["layer"]}
    texts = [value["text"] for value in layers["names"]["data"]["values"]]
    assert sorted(texts) == sorted(
        [
            "attention torch fp32, cold: T^0.00 [0.00, 0.00]",
            "lstm torch fp32, cold: T^1.00 [1.00, 1.00]",
            "path 1",
            "path T",
            "path log T",
        ]
    )
    assert len(layers["points"]["data"]["values"]) == 8
    assert "lstm torch fp32, cold with the power 1.00" in scaling_chart.describe(found)
    css = scaling_chart.spec(found, "css")
    assert css["background"] is None and "#" not in json.dumps({**css, "$schema": ""})
    assert scaling_chart.to_svg(found).startswith("<svg")
    assert scaling_chart.spec(scaling.curves(runs_of(*line()[:3]))) is None


def invoke(*arguments, columns="80"):
    return CliRunner().invoke(app, ["scaling", *map(str, arguments)], env={"COLUMNS": columns, "NO_COLOR": "1"})


@pytest.mark.parametrize("columns", ["80", "120"])
def test_a_recorded_run_is_told_within_the_terminal(columns):
    found = invoke(WALK, columns=columns)
    assert found.exit_code == 0, found.output
    assert all(len(text.rstrip()) <= int(columns) for text in found.stdout.splitlines())
    rows = [text for text in found.stdout.splitlines() if text.startswith(("reference ", "torch"))]
    assert len(rows) >= 6
    assert len({row.index("fp32") for row in rows}) == len({row.index(" µs") for row in rows}) == 1
    text = " ".join(found.stdout.split())
    assert "not measured: needs a GPU" in text and "more length needed (compile)" in text


def test_json_is_one_document_and_a_picture_is_drawn(tmp_path):
    svg, png = tmp_path / "lines.svg", tmp_path / "lines.png"
    found = invoke(WALK, "--json", "--svg", svg, "--png", png)
    made = json.loads(found.stdout)
    wanted = {"kernel": "lstm", "implementation": "reference", "cache": "warm"}
    (row,) = [row for row in made["curves"] if wanted.items() <= row.items()]
    assert row["exponent"]["low"] <= row["exponent"]["value"] <= row["exponent"]["high"]
    assert row["path"] == "T" and row["depth_exponent"] == pytest.approx(1.0) and len(row["lengths"]) == 7
    assert row["launch_tax_s"] is None and "GPU" in row["launch_tax_note"] and made["lacking"]
    assert svg.read_text().startswith("<svg") and png.read_bytes().startswith(b"\x89PNG")


def test_measuring_makes_a_run_with_a_curve_for_every_kernel(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "GROUP_S", 0.1)
    monkeypatch.setattr(command, "MEASURED", {name: command.MEASURED[name] for name in ("lstm", "attention")})
    found = invoke("--measure", "--shape", "T=4:32:x2,width=16", "--json")
    assert found.exit_code == 0, found.output
    rows = json.loads(found.stdout)["curves"]
    assert {(row["kernel"], row["path"]) for row in rows} == {("lstm", "T"), ("attention", "1")}
    assert all(row["exponent"]["low"] <= row["exponent"]["high"] for row in rows)


def test_without_a_run_the_newest_with_lengths_enough_is_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, lengths in (("first", LENGTHS), ("second", LENGTHS[:3])):
        folder = tmp_path / "seqroof-runs" / name
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(dumps(runs_of(*line(lengths=lengths))[0]))
    (tmp_path / "seqroof-runs" / "torn").mkdir()
    (tmp_path / "seqroof-runs" / "torn" / "run.json").write_text("{")
    found = invoke()
    assert "1.00 [1.00, 1.00]" in found.stdout
    assert "passed over" in found.stderr and "torn" in found.stderr


def test_a_run_without_lengths_says_what_to_measure(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(dumps(runs_of(point(timing(1.0)))[0]))
    found = invoke(path)
    assert found.exit_code == 0 and "seqroof scaling --measure" in found.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere",), "There is no nowhere"),
        ((WALK, "--measure"), "a run of its own"),
        ((WALK, "--shape", "T=1:8:x2"), "--measure measures"),
        (("--measure", "--shape", "T=4|8"), "needs 4 lengths"),
        (("--measure", "--shape", "H=4"), "one batch, one width"),
        (("--measure", "--shape", "B=1|2"), "one batch, one width"),
        (("--measure", "--dtype", "int8"), "There is no dtype"),
        (("--measure", "--device", "tpu"), "There is no device"),
        (("--measure", "--shape", "width=1"), "P must be at least 1"),
        ((WALK, "--svg", "no/such/folder/lines.svg"), "cannot be written"),
    ],
)
def test_bad_input_ends_in_a_sentence(arguments, said):
    found = invoke(*arguments)
    assert isinstance(found.exception, Stop | SystemExit) and found.exit_code != 0
    assert said in str(found.exception)


def test_an_unreadable_run_and_no_run_at_all_end_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "seqroof scaling --measure" in str(invoke().exception)
    (tmp_path / "torn.json").write_text("{")
    assert "torn.json" in str(invoke("torn.json").exception)
    (tmp_path / "few.json").write_text(dumps(runs_of(*line()[:3])[0]))
    assert "nothing to draw" in str(invoke("few.json", "--svg", "lines.svg").exception)

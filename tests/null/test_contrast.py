"""Layers of equal size: the solver, the rows, what is compared with what, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from round_machine import ROUND, point, timing, work
from samples import run
from typer.testing import CliRunner

from seqroof.kernels import _catalog
from seqroof.roofline import contrast, contrast_chart
from seqroof.roofline.store import load, save
from seqroof.roofline.verdict import judge
from seqroof.scripts import contrasting
from seqroof.scripts.contrasting import LAYERS
from seqroof.scripts.main import app

# A run on a processor, of which the measured roofs are taken.
WALK = Path(__file__).resolve().parents[2] / "results" / "amd-epyc-2026-11-21" / "lstm_walk"


@given(st.floats(1e7, 1e9), st.sampled_from([1, 4]))
def test_a_solved_size_is_within_a_percent_of_what_was_asked(target, multiple):
    size = contrast.solved(lambda width: 8.0 * width * width + 4 * width, target, multiple)
    assert abs((8 * size * size + 4 * size) / target - 1) <= 0.01 and size % multiple == 0


def test_sizes_are_as_round_as_the_tolerance_allows():
    assert contrast.solved(lambda width: width * width, 1024.0**2) == 1024
    assert contrast.solved(lambda width: width * width, 1000.0**2) % 8 == 0


def test_what_cannot_be_reached_ends_in_a_sentence():
    with pytest.raises(ValueError, match=r"within 1 % of 10; the nearest is \d+ with"):
        contrast.solved(lambda width: width * width, 10.0)
    with pytest.raises(ValueError, match="Ask for more"):
        contrast.solved(lambda width: float(width), 1e9)


def rows_of(points, rows="torch"):
    shape = {"B": 1}
    return contrast.row("layer", "k", shape, "forward", work(matmul_flops=1000), "fp32", ROUND, points, rows)


def test_the_fastest_valid_row_of_one_class_is_compared():
    warm = {"cache": "warm"}
    points = [point(timing(300.0), **warm), point(timing(200.0), implementation="torch.flash", **warm)]
    points += [
        point(timing(100.0), status="invalid", **warm),
        point(timing(50.0), implementation="triton_step", **warm),
    ]
    points += [
        point(timing(10.0), shape={"B": 2}),
        point(timing(10.0), dtype="bf16"),
        point(timing(1.0), headline=False),
    ]
    assert rows_of(points).point.implementation == "torch.flash"
    assert rows_of(points, "triton").point.implementation == "triton_step"
    assert rows_of(points, "reference").point is None
    assert rows_of(points).lost == ("torch: invalid, ",)
    assert rows_of(points).token_s == 200.0 and rows_of(points).tokens_per_s == pytest.approx(1 / 200)


def test_what_was_not_measured_has_a_least_time_only():
    row = rows_of([])
    assert row.token_s is None and row.tokens_per_s is None and row.joules_per_token is None
    assert row.fractions == (None, None, None) and row.least_s and row.bound == "dram"


@pytest.mark.parametrize("basis", ["parameters", "flops"])
def test_all_layers_are_equal_within_two_percent(basis):
    found = json.loads(invoke("--equal", basis, "--json").output)["rows"]
    assert {row["layer"] for row in found} == {layer.name for layer in LAYERS}
    for T in (128, 512, 2048):
        values = [row[basis] for row in found if row["shape"]["T"] == T and row["direction"] == "forward"]
        assert len(values) == len(LAYERS) and max(values) / min(values) - 1 <= 0.02


def test_equal_width_is_equal_width():
    found = json.loads(invoke("--equal", "width", "--budget", "64", "--shape", "T=16", "--json").output)["rows"]
    names = {"lstm": "H", "transformer_block": "M", "hierarchical_attention": "P", "dilated_conv": "C"}
    assert all(row["shape"][names[row["kernel"]]] == 64 for row in found if row["kernel"] in names)


def invoke(*arguments, columns="80"):
    return CliRunner().invoke(app, ["contrast", *map(str, arguments)], env={"COLUMNS": columns, "NO_COLOR": "1"})


def test_a_run_puts_its_times_beside_the_least_ones(tmp_path):
    kernel = _catalog.load("lstm")
    sizes = {"B": 4, "T": 16, "I": 64, "H": 64, "L": 1, "D": 1, "dilation": 1, "ragged": 0}
    job = kernel.module.work(kernel.shape(**sizes), "fp32", "forward")
    made = judge(point(timing(25_600.0), kernel="lstm", shape=sizes, work=job, cache="warm"), ROUND)
    save(run(points=(made,)).model_copy(update={"machine": ROUND}), tmp_path)
    picture = tmp_path / "contrast.svg"
    found = invoke("--equal", "width", "--budget", "64", "--shape", "T=16", "--on", tmp_path, "--svg", picture)
    assert found.exit_code == 0, found.output
    (line,) = [line for line in found.output.splitlines() if line.startswith("LSTM") and "400 s" in line]
    assert line.split()[1:6] == ["16", "192", "s", "DRAM", "400"]
    assert all(len(text) <= 80 for text in found.stdout.splitlines())
    assert picture.read_text().startswith("<svg")


@pytest.mark.parametrize("columns", ["80", "100", "120", "160"])
def test_nothing_of_the_table_is_cut(columns, tmp_path):
    """All layers, measured, at the default sizes: their names, depths and walls are the longest that there are."""
    machine = load(WALK).machine
    points = []
    for row in json.loads(invoke("--json").output)["rows"]:
        kernel = _catalog.load(row["kernel"])
        job = kernel.module.work(kernel.shape(**row["shape"]), "fp32", row["direction"])
        case = {name: row[name] for name in ("kernel", "shape", "direction")} | {"work": job, "cache": "warm"}
        points.append(judge(point(timing(job.tokens * 1.23e-3), peak_memory_bytes=123_000_000, **case), machine))
    save(run(points=tuple(points)).model_copy(update={"machine": machine}), tmp_path)
    found = invoke("--on", tmp_path, columns=columns)
    assert found.exit_code == 0, found.output
    assert "…" not in found.stdout and max(map(len, found.stdout.splitlines())) <= int(columns)
    headings = [line.split() for line in found.stdout.splitlines() if line.startswith("layer ")]
    assert len(headings) == 6 and all(heading == headings[0] for heading in headings)
    assert {"depth", "least", "wall", "tokens/s", "machine", "design"} <= set(headings[0])
    rows = [line for line in found.stdout.splitlines() if line.startswith(tuple(layer.name for layer in LAYERS))]
    assert len(rows) == 42 and all(" 813 " in line and "1.23 ms" in line for line in rows)


def test_the_picture_tells_measured_from_modelled_and_says_it_in_words():
    rows = [rows_of([point(timing(200.0), cache="warm")]), rows_of([])]
    rows = [contrast.Row(**{**vars(row), "shape": {"T": 8}}) for row in rows]
    panel = contrast_chart.spec(rows, "fp32")["hconcat"][0]
    assert sorted(value["kind"] for value in panel["data"]["values"]) == ["least", "least", "measured"]
    assert "the least is that of layer at T=8" in contrast_chart.describe(rows)
    assert "nothing was measured" in contrast_chart.describe(rows[1:])


def test_measuring_fills_the_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(contrasting, "GROUP_S", 0.2)
    arguments = ("--equal", "width", "--budget", "16", "--shape", "B=2,T=8", "--direction", "forward")
    found = invoke(*arguments, "--rows", "reference", "--measure", "--json", columns="120")
    assert found.exit_code == 0, found.output
    rows = json.loads(found.stdout)["rows"]
    assert [row["layer"] for row in rows] == [layer.name for layer in LAYERS]
    assert all(row["tokens_per_s"] > 0 and row["implementation"] == "reference" for row in rows)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--budget", "much"), "no amount"),
        (("--budget", "-1M"), "no amount"),
        (("--equal", "depth"), "parameters, flops, width"),
        (("--shape", "B=1|2"), "one batch"),
        (("--shape", "H=4"), "one batch"),
        (("--rows", "cudnn"), "reference, torch"),
        (("--budget", "3"), "within 1 %"),
        (("--svg", "no/such/folder/picture.svg"), "cannot be written"),
    ],
)
def test_bad_input_ends_in_a_sentence(arguments, said):
    found = invoke(*arguments)
    assert found.exit_code != 0 and said in str(found.exception)

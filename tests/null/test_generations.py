"""Machines by year: growths by hand, what counts and what is left out, an LSTM step on each, chart and command."""

from __future__ import annotations

import json

import pytest
from round_machine import ceiling
from typer.testing import CliRunner

from seqroof.kernels import _catalog
from seqroof.roofline import catalogue, generations, generations_chart
from seqroof.roofline._labels import Label
from seqroof.roofline._layout import TEXT
from seqroof.roofline.machine import Machine
from seqroof.scripts.main import app

MACHINES = list(catalogue.machines().values())
PARTS = generations.parts(MACHINES)


def part(year, rate, bandwidth, id="", **more):
    """A made-up datacentre part."""
    ceilings = (
        ceiling("rate", "tensor", rate, "bf16", "product", "FLOP/s"),
        ceiling("bandwidth", "dram", bandwidth),
        ceiling("latency", "launch", 1e-6, unit="s"),
    )
    fields = {"id": id or f"part-{year}", "name": "made up", "machine_class": "datacentre", "ceilings": ceilings}
    return Machine(year=year, **(fields | more))


DOUBLING = [part(2010 + n, 1e12 * 4 ** (n / 2), 1e11 * 2 ** (n / 2)) for n in range(8)]


def step(batch, dtype, H=1024):
    kernel = _catalog.load("lstm_step")
    return kernel.module.work(kernel.shape(B=batch, I=H, H=H), dtype, "forward")


def test_growth_is_per_two_years():
    found = dict(generations.growths(DOUBLING))
    assert found["dense 16-bit FLOP/s"].value == pytest.approx(4.0)
    assert found["DRAM B/s"].value == pytest.approx(2.0)
    assert found["ridge point, FLOP/B"].value == pytest.approx(2.0)


def test_every_machine_counts_or_is_left_out_with_a_reason():
    left = [id for ids in generations.left_out(MACHINES).values() for id in ids]
    assert sorted([*left, *(one.id for one in PARTS)]) == sorted(catalogue.machines())
    assert {"k80", "tpu-v4", "rtx-4090", "hbm-pim-x4"} <= set(left)
    assert [one.year for one in PARTS] == sorted(one.year for one in PARTS)
    assert "no tensor cores" in next(one.note for one in PARTS if one.id == "p100-sxm2")


def test_without_tensor_rate_or_bandwidth_or_year_a_part_does_not_count():
    bare = part(2020, 1e12, 1e11)
    for index in (0, 1):
        assert generations.rated(bare.model_copy(update={"ceilings": bare.ceilings[index : index + 1]})) is None
    assert generations.rated(bare.model_copy(update={"year": None})) is None


def test_too_few_parts_leave_no_growth():
    with pytest.raises(ValueError, match="needs 6 parts of three years"):
        generations.growths(DOUBLING[:5])
    assert not generations.fits(generations.parts([part(2020, 1e12, 1e11, id=str(n)) for n in range(9)]))


def test_arithmetic_takes_over_at_the_first_batch_that_it_binds():
    for one in PARTS:
        turn = generations.takes_over(one, step)
        assert generations._units(step(turn, one.dtype), one) == 1.0
        assert turn == 1 or generations._units(step(turn - 1, one.dtype), one) < 1.0
    slow = generations.rated(part(2020, 1e9, 1e15))
    assert generations.takes_over(slow, step) == 1
    starved = generations.rated(part(2020, 1e18, 1e11))
    assert generations.takes_over(starved, step) is None


def test_shares_of_a_step_by_hand():
    """16.8 MB at 1e11 B/s are 168 us, 16.8 MFLOP at 1e12 FLOP/s 16.8 us, and a launch takes 1 us."""
    (use,) = generations.uses([generations.rated(part(2020, 1e12, 1e11))], step)
    assert use.units[0] == pytest.approx(0.1, rel=0.01)
    assert use.machine[0] == pytest.approx(168 / 169, rel=0.001)
    assert use.units[1] == pytest.approx(1.0) and use.takes_over == 11


def test_the_chart_has_three_panels_whose_names_do_not_touch():
    made = generations_chart.spec(PARTS)
    assert [panel["title"]["text"] for panel in made["hconcat"]] == list(generations_chart.TITLES.values())
    for of, panel in zip(generations.WORDS, made["hconcat"]):
        layers = {layer["name"].removeprefix(f"{of}_"): layer for layer in panel["layer"]}
        points, band = (layers[name]["data"]["values"] for name in ("parts", "band"))
        assert len(points) == len(PARTS) and all(0 < piece["y"] <= piece["top"] for piece in band)
        values = [getattr(one, of) for one in PARTS]
        x = generations_chart.LinearAxis(PARTS[0].year - 0.7, PARTS[-1].year + 0.7, generations_chart.WIDTH)
        low, high = panel["layer"][0]["encoding"]["y"]["scale"]["domain"]
        y = generations_chart.LogAxis(low, high, generations_chart.HEIGHT)
        assert low < min(values) and max(values) < high
        boxes = [
            Label(name["text"], x.at(name["x"]), y.length - y.at(name["y"]), name["align"]).box(TEXT)
            for name in layers["names"]["data"]["values"]
        ]
        assert len(boxes) >= 10
        assert not [1 for i, box in enumerate(boxes) for other in boxes[:i] if box.overlaps(other)]
    css = generations_chart.spec(PARTS, "css")
    assert css["background"] is None and "#" not in json.dumps({**css, "$schema": ""})


def invoke(*arguments, columns="80"):
    return CliRunner().invoke(app, ["generations", *map(str, arguments)], env={"COLUMNS": columns, "NO_COLOR": "1"})


def test_the_command_tells_parts_growths_and_the_step_within_the_terminal():
    found = invoke()
    assert found.exit_code == 0, found.output
    assert all(len(text.rstrip()) <= 80 for text in found.stdout.splitlines())
    text = " ".join(found.stdout.split())
    for said in ("datasheet", "(derived)", "(modelled)", "Left out", "b200-sxm", "no tensor cores"):
        assert said in text


def test_json_and_pictures(tmp_path):
    svg, png = tmp_path / "years.svg", tmp_path / "years.png"
    found = invoke("--json", "--svg", svg, "--png", png)
    made = json.loads(found.stdout)
    assert len(made["parts"]) == len(PARTS) and set(made["lstm_step"]) == {"1024", "4096"}
    h200 = made["lstm_step"]["1024"]["h200-sxm"]
    assert h200["units"]["1"] < h200["units"]["64"] < 1 and h200["compute_from_batch"] > 64
    assert made["growth"]["DRAM B/s"]["low"] < made["growth"]["DRAM B/s"]["high"]
    assert svg.read_text().startswith("<svg") and png.read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_written_ends_in_a_sentence(tmp_path):
    for path in (tmp_path, tmp_path / "no" / "such.svg"):
        found = invoke("--svg", path)
        assert found.exit_code == 2 or "folder" in str(found.exception)

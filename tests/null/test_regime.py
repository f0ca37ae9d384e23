"""The regime map: walls over batch, hidden size and steps, boundaries in words, measured points, command, picture."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from round_machine import point, timing
from samples import run
from typer.testing import CliRunner

from seqroof.kernels import _catalog
from seqroof.roofline import catalogue, regime, regime_chart
from seqroof.roofline.experiments import Attribution
from seqroof.roofline.floors import best_floors, own_floors
from seqroof.roofline.record import WALLS, Grid
from seqroof.roofline.store import save
from seqroof.scripts.main import app

H200 = catalogue.machine("h200-sxm")
LSTM = _catalog.load("lstm")


def work(B, H, T):
    return LSTM.module.work(LSTM.shape(B=B, T=T, I=H, H=H), "bf16", "forward")


@pytest.fixture(scope="module")
def maps():
    return regime.grids("lstm", work, "bf16", H200)


def cell(grid, B, H, T):
    (found,) = [cell for cell in regime.cells(grid) if (cell.B, cell.H, cell.T) == (B, H, T)]
    return found


@pytest.mark.parametrize(("B", "H", "T"), [(1, 8192, 128), (2048, 4096, 1), (1, 32, 1024), (128, 1024, 128)])
def test_a_cell_is_what_the_floors_of_its_case_say(maps, B, H, T):
    """Places at both ends of every axis, so that no axis is mixed up with another."""
    streamed, best = maps
    case = work(B, H, T)
    own = own_floors(case, "bf16", "reread", "launch", H200, "cold")
    assert cell(streamed, B, H, T).wall == own.bound
    assert cell(streamed, B, H, T).contested == (own.contested_with is not None)
    assert cell(best, B, H, T).wall == best_floors(case, "bf16", H200, "cold").bound


def test_the_model_places_the_argument_where_it_should(maps):
    """Large weights at small batches wait for DRAM; small ones for the chain; large batches for arithmetic."""
    streamed, best = maps
    assert cell(streamed, 1, 4096, 1024).letter == "D"
    assert cell(streamed, 1, 64, 1024).letter == "S"
    assert cell(streamed, 2048, 4096, 1024).letter == "C"
    assert regime.bandwidth_share(streamed, 1024) > regime.bandwidth_share(best, 1024) > 0


def made(*walls, B=(1, 2, 4, 8)):
    """A map of one hidden size and one length, whose walls are given from small to large batches."""
    floors = {wall: tuple(10.0 if wall == found else 1.0 for found in walls) for wall in WALLS}
    axes = {"T": (16,), "H": (64,), "B": B}
    return Grid(kernel="lstm", dtype="bf16", design="streamed", axes=axes, floors_s=floors)


def test_boundaries_name_the_last_batch_of_a_wall():
    grid = made("dram", "dram", "compute", "compute")
    assert regime.changes(grid, 16) == ["H=64: DRAM up to B=2, then compute"]
    assert regime.changes(made("serial", "serial", "serial", "serial"), 16) == ["H=64: the chain at every batch"]
    assert regime.bandwidth_share(grid, 16) == 0.5
    assert regime.drawn(grid, 16) == ["     H  B=1    2    4    8", "    64    D    D    C    C"]


def test_walls_that_are_near_are_small_letters_and_unknown_ones_say_so():
    floors = {"compute": (10.0, None), "dram": (9.5, None), "cache": (1.0, None), "serial": (None, None)}
    axes = {"T": (16,), "H": (64,), "B": (1, 2)}
    grid = Grid(kernel="lstm", dtype="bf16", design="best", axes=axes, floors_s=floors)
    assert [cell.letter for cell in regime.cells(grid)] == ["c", "?"]
    assert regime.boundaries(grid, 16)[0].walls == (("compute", 1),)


def measured(seen="memory", bound="dram", **changes):
    shape = {"B": 3, "T": 20, "I": 60, "H": 60} | changes.pop("shape", {})
    found = Attribution(wall=seen, reason="because")
    fields = {"kernel": "lstm", "dtype": "bf16", "shape": shape, "bound": bound, "attribution": found}
    return point(timing(1.0), **(fields | changes))


def test_measured_points_are_put_at_the_nearest_place():
    points = [measured(), measured(shape={"L": 2}), measured(status="invalid"), measured(headline=False)]
    points += [measured(shape={"I": 64}), measured(shape={"ragged": 1}), measured(shape={"B": 0})]
    points += [measured(kernel="gru"), measured(dtype="fp32"), measured(direction="backward")]
    (spot,) = regime.spots(points, "lstm", "bf16")
    assert (spot.B, spot.seen, spot.agrees) == (3, "memory", True)
    grid = made("dram", "dram", "compute", "compute")
    assert regime.places(grid, [spot], 16) == {}, "T=20 is not T=16"
    near, exact = (replace(spot, T=16), replace(spot, T=16, B=4, H=64))
    assert regime.drawn(grid, 16, [near])[1] == "    64    D    D    C~   C"
    assert regime.drawn(grid, 16, [exact, near])[1] == "    64    D    D    C*   C"
    assert regime.places(grid.model_copy(update={"design": "best"}), [exact], 16) == {}, "nobody measured that design"


def test_a_machine_of_which_a_wall_is_not_known_proves_nothing():
    """No latency of a launch in that row: letters of other walls would read as support for the argument."""
    grids = regime.grids("lstm", work, "bf16", catalogue.machine("b200-sxm"))
    told = regime.share_in_words(grids[0], 128)
    assert "the chain" in told and "prove nothing" in told
    (v100, _) = regime.grids("lstm", work, "bf16", catalogue.machine("v100-sxm2"))
    assert "compute" in regime.unknown(v100)


def test_the_picture_holds_every_cell_and_says_it_in_words(maps):
    drawing = regime_chart.spec(maps, regime.spots([measured()], "lstm", "bf16"), 128, "a <machine>\n")
    letters = [layer for one in drawing["hconcat"] for layer in one["layer"] if layer["name"].endswith("letters")]
    assert [len(layer["data"]["values"]) for layer in letters] == [len(regime.BATCHES) * len(regime.HIDDEN)] * 2
    assert "128 steps" in drawing["description"] and "\n" not in drawing["title"]["text"]
    assert regime_chart.to_svg(maps, [], 128, "H200").startswith("<svg")
    assert regime_chart.to_png(maps, [], 128, "H200").startswith(b"\x89PNG")


def invoke(*arguments):
    return CliRunner().invoke(app, ["map", *map(str, arguments)], env={"COLUMNS": "80", "NO_COLOR": "1"})


def test_the_command_prints_both_maps_within_80_columns(tmp_path):
    found = invoke("--svg", tmp_path / "map.svg")
    assert found.exit_code == 0, found.output
    assert "weights read again at every step" in found.output and "the best possible design" in found.output
    assert "No measured point" in found.output and all(len(line) <= 80 for line in found.stdout.splitlines())
    assert (tmp_path / "map.svg").read_text().startswith("<svg")
    made = json.loads(invoke("gru", "--json").output)
    assert [grid["design"] for grid in made["grids"]] == ["streamed", "best"]


def test_a_run_puts_its_points_on_the_map_and_lists_disagreements(tmp_path):
    points = (measured(), measured("compute", "dram", implementation="odd"), measured("undetermined"))
    save(run(points=points), tmp_path)
    text = " ".join(invoke("--on", tmp_path, "--steps", "16").output.split())
    assert "3 measured points; experiments without floors name a wall for 2 of them" in text
    assert "agree with the modelled wall of the point's own design on 1 (50 %)" in text
    assert "B=3, H=60, T=20 odd: DRAM modelled, cores seen" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("attention",), "lstm, gru, rnn"),
        (("--steps", "7"), "1, 16, 128, 1024"),
        (("--on", "h2000"), "path of a run"),
        (("--png", "no/such/folder/map.png"), "cannot be written"),
    ],
)
def test_bad_input_ends_in_a_sentence(arguments, said):
    found = invoke(*arguments)
    assert found.exit_code != 0 and said in str(found.exception)

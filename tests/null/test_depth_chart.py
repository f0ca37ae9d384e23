"""The chart of time per token over dependent steps: its points, where it stands, and that nothing on it overlaps."""

from __future__ import annotations

import json

import pytest
import samples
from sequence_samples import depth_run, sequence_run

from seqroof.roofline import _layout, _numbers, _view, chart, depth_chart, page
from seqroof.roofline.observe import depths, token_s
from seqroof.roofline.record import Run

BOTH = depth_run()


def layer(drawing: dict, name: str) -> list[dict]:
    return next(entry for entry in drawing["layer"] if entry["name"] == name)["data"]["values"]


def drawn(runs: list[Run], theme: str = "light") -> dict:
    found = depth_chart.spec(runs, theme)
    assert found is not None
    return found


def test_points_stand_at_their_depth_and_time_per_token() -> None:
    values = {value["number"]: value for value in layer(drawn([BOTH]), "depths")}
    rows = {row.number: row for row in _view.rows([BOTH]) if row.number}
    assert values.keys() == rows.keys()
    for number, row in rows.items():
        length = row.point.shape.get("T") or row.point.shape["S"]
        assert values[number]["x"] == (length if row.point.kernel == "lstm" else 1)
        assert values[number]["y"] == pytest.approx(row.point.time_s.median / length)


def test_looks_and_numbers_are_those_of_the_roofline() -> None:
    """Also beside a kernel that is on the roofline only, before all others in the order of symbols and colours."""
    alone = BOTH.points[0].model_copy(update={"kernel": "a_step", "implementation": "a_row", "shape": {"B": 1}})
    run = BOTH.model_copy(update={"points": (alone, *BOTH.points)})
    above = {value["number"]: value for value in layer(chart.spec([run]), "points")}
    below = layer(drawn([run]), "depths")
    assert len(above) > len(below) > 0
    for value in below:
        assert all(value[name] == above[value["number"]][name] for name in ("colour", "shape", "fill"))


def test_lines_join_lengths_of_one_kernel_and_implementation() -> None:
    sweeps = depth_chart.sweeps(depth_chart.rows_of([BOTH]))
    assert len(sweeps) == 5 and all(len(sweep) == 4 for sweep in sweeps)
    for sweep in sweeps:
        assert len({(row.point.kernel, row.point.implementation) for row in sweep}) == 1
        lengths = [row.point.shape.get("T") or row.point.shape["S"] for row in sweep]
        assert lengths == sorted(lengths)


def test_a_line_joins_the_lengths_of_one_device() -> None:
    sweeps = depth_chart.sweeps(depth_chart.rows_of([samples.fleet_run(BOTH)]))
    assert len(sweeps) == 10
    assert all(len(sweep) == 4 and len({row.point.device for row in sweep}) == 1 for sweep in sweeps)


@pytest.mark.parametrize("runs", [[BOTH], [BOTH, samples.run("gpu")]], ids=["one", "two"])
def test_no_two_texts_overlap_and_every_number_is_near(runs: list[Run]) -> None:
    rows = {row.number: row for row in depth_chart.rows_of(runs)}
    x, y, labels = depth_chart.lay_out(list(rows.values()))
    placed = [label.box(_layout.TEXT) for label, _ in labels]
    assert not any(a.overlaps(b) for index, a in enumerate(placed) for b in placed[index + 1 :])
    assert {number for _, members in labels for number in members} == rows.keys()
    for (label, members), box in zip(labels, placed):
        assert label.text == _numbers.ranges(members)
        for number in members:
            depth, time = depth_chart.place(rows[number])
            assert box.distance(x.at(depth), depth_chart.HEIGHT - y.at(time)) <= _layout.REACH


def test_runs_of_one_kind_have_no_such_chart() -> None:
    flat = tuple(point for point in BOTH.points if point.steps == 1)
    one = tuple(point for point in BOTH.points if point.steps in (1, 16))
    for run in (sequence_run(), BOTH.model_copy(update={"points": flat}), BOTH.model_copy(update={"points": one})):
        assert depth_chart.spec([run]) is None
        assert len(chart.spec([run], static=True)["vconcat"]) == 2


def test_pictures_and_page_hold_it() -> None:
    pytest.importorskip("vl_convert", reason="pictures need the report extra")
    assert len(chart.spec([BOTH], static=True)["vconcat"]) == 3
    assert "dependent steps (those of the design)" in chart.to_svg([BOTH])
    for theme in ("light", "dark", "css"):
        assert "Infinity" not in json.dumps(drawn([BOTH], theme), allow_nan=False)
    with_chart, without = page.render([BOTH]), page.render([sequence_run()])
    assert 'id="depth-data"' in with_chart and 'id="depth-data"' not in without
    assert "time per token over dependent steps" in depth_chart.describe([BOTH])


def test_the_finding_says_it_in_words() -> None:
    (found,) = depths(BOTH.points)
    at_end = [point for point in BOTH.points if 1024 in (point.shape.get("T"), point.shape.get("S")) and point.headline]
    flat = min(token_s(point) or 0 for point in at_end if point.steps == 1)
    chained = min(token_s(point) or 0 for point in at_end if point.steps > 1)
    assert found.numbers == {"depth": 1024, "flat_token_s": flat, "chained_token_s": chained}
    assert found.text.startswith("Depth 1 against depth 1024, bf16, sequences of 1024: attention torch.flash (")
    assert "lstm triton_resident (" in found.text and f"{chained / flat:.3g} times that" in found.text


def test_no_finding_without_a_common_length() -> None:
    apart = tuple(p for p in BOTH.points if (p.steps == 1) == (16 in (p.shape.get("T"), p.shape.get("S"))))
    assert {p.steps for p in apart} == {1, 64, 256, 1024}
    assert depths(apart) == []

"""The roofline chart: geometry, numbers that match the tables, label places, and the static pictures."""

from __future__ import annotations

import builtins
import json
import re
from itertools import combinations

import pytest
import samples
from hypothesis import given, settings
from hypothesis import strategies as st

from seqroof.roofline import _geometry, _layout, _numbers, _theme, _view, _walks, chart
from seqroof.roofline._labels import Board, Box, Label, Mark, advance, label_marks
from seqroof.roofline.record import Point, Run
from seqroof.roofline.wording import Wording

GPU = samples.run("gpu")


def boxes(layout: _layout.Layout) -> list[Box]:
    labels = [label for label, _ in layout.labels] + [label for label, _ in layout.roof_labels]
    return [label.box(_layout.TEXT) for label in labels]


def test_roofs_follow_the_machine_and_the_dtypes_in_use() -> None:
    roofs = {roof.name: roof for roof in _geometry.roofs(GPU.machine, {"bf16", "fp32"})}
    assert set(roofs) == {"DRAM", "cache", "tensor bf16", "simt fp32"}
    assert roofs["DRAM"].value == 4.21e12 and roofs["DRAM"].rate(10) == 4.21e13
    assert roofs["simt fp32"].rate(1e9) == 58e12


def test_runs_of_one_machine_share_roofs_only_where_their_intervals_overlap() -> None:
    def scaled(factor: float) -> Run:
        fields = ("value", "low", "high")
        made = [c.model_copy(update={f: factor * getattr(c, f) for f in fields}) for c in GPU.machine.ceilings]
        return GPU.model_copy(update={"machine": GPU.machine.model_copy(update={"ceilings": tuple(made)})})

    prefixes = [{prefix for prefix, *_ in _layout.lay_out([GPU, scaled(by)]).roofs} for by in (1.001, 0.7)]
    assert prefixes == [{""}, {"A: ", "B: "}]


def test_equal_roofs_share_one_line() -> None:
    names = [roof.name for roof in _geometry.roofs(GPU.machine, {"bf16", "fp16", "tf32"})]
    assert names == ["DRAM", "cache", "tensor bf16, fp16", "tensor tf32"]


def test_slopes_end_where_the_highest_flat_roof_begins() -> None:
    layout = _layout.lay_out([GPU])
    stretches = {roof.name: stretch for _, roof, stretch in layout.roofs}
    assert stretches["DRAM"][1] == pytest.approx(742e12 / 4.21e12)
    assert stretches["tensor bf16"][0] == pytest.approx(742e12 / 7.4e12)


@given(st.floats(1e-9, 1e9), st.floats(2, 1e12), st.floats(0, 1))
def test_axis_inverts_itself_and_its_ticks_are_inside(low: float, ratio: float, place: float) -> None:
    axis = _geometry.LogAxis(low, low * ratio, 640)
    assert axis.at(axis.value(place * 640)) == pytest.approx(place * 640, abs=1e-6)
    assert all(low * 0.999 <= tick <= low * ratio * 1.001 for tick in axis.ticks())


def test_points_of_the_chart_are_the_numbered_rows() -> None:
    values = {value["number"]: value for value in layer(chart.spec([GPU]), "points")}
    rows = {row.number: row for row in _view.rows([GPU]) if row.number}
    assert values.keys() == rows.keys()
    for number, row in rows.items():
        assert values[number]["x"] == row.point.intensity.compulsory
        assert values[number]["y"] == row.point.achieved.flops_per_s


def layer(spec: dict, name: str) -> list[dict]:
    return next(entry for entry in spec["layer"] if entry["name"] == name)["data"]["values"]


def test_serial_bars_stand_at_the_rate_that_the_chain_allows() -> None:
    rows = {row.number: row for row in _view.rows([GPU]) if row.number}
    bars = layer(chart.spec([GPU]), "serial")
    assert bars
    for bar in bars:
        point = rows[bar["number"]].point
        assert bar["y"] == pytest.approx(point.work.flops / point.floors_s.serial)
        assert (bar["strength"] == 1.0) == ("serial" in (point.bound, point.contested_with))


def test_lines_join_batch_sizes_of_one_kernel_only() -> None:
    walks = _walks.walks(_view.rows([GPU]))
    assert [walk.name for walk in walks] == [
        "lstm_step torch fp32 I=2048,H=2048",
        "lstm_step torch bf16 I=2048,H=2048",
        "lstm_step triton bf16 I=2048,H=2048",
    ]
    assert [row.point.shape["B"] for row in walks[1].rows] == [1, 2, 8, 32, 128, 256, 512]
    assert walks[1].changes() == [(256, "dram", "compute")]


def test_a_line_joins_the_batch_sizes_of_one_device() -> None:
    alone, both = (_walks.walks(_view.rows([run])) for run in (GPU, samples.fleet_run(GPU)))
    assert sorted(walk.name for walk in both) == sorted(
        f"{walk.name}, device {rank}" for walk in alone for rank in range(2)
    )
    for walk in both:
        batches = [row.point.shape["B"] for row in walk.rows]
        assert batches == sorted(set(batches)) and len({row.point.device for row in walk.rows}) == 1


@pytest.mark.parametrize(
    "runs", [[GPU], [GPU, samples.run("cpu")], [samples.crowd(40)], [samples.crowd(150)], [samples.hostile_run()]]
)
def test_no_two_texts_overlap(runs: list[Run]) -> None:
    layout = _layout.lay_out(runs)
    placed = boxes(layout)
    assert not any(a.overlaps(b) for index, a in enumerate(placed) for b in placed[index + 1 :])
    assert len(layout.roof_labels) == len(layout.roofs)


@pytest.mark.parametrize("runs", [[GPU], [GPU, samples.run("cpu")], [samples.crowd(40)], [samples.crowd(150)]])
def test_every_point_has_a_label_in_reach(runs: list[Run]) -> None:
    layout = _layout.lay_out(runs)
    assert chart.unlabelled(chart.spec(runs)) == []
    rows = {row.number: row for row in layout.rows}
    for label, members in layout.labels:
        for number in members:
            x, y = _geometry.coordinates(rows[number])
            place = layout.x.at(x), layout.height - layout.y.at(y)
            assert label.box(_layout.TEXT).distance(*place) <= _layout.REACH
        assert label.text == _numbers.ranges(members)


def test_a_chinese_character_is_as_wide_as_the_font_is_high() -> None:
    assert advance("末级缓存") == 4 and advance("DRAM 带宽") == 2 + advance("DRAM ")
    chinese, latin = (Label(text, 0, 0, "left").box(11) for text in ("末级共享缓存", "cachee"))
    assert chinese.right > 66 > latin.right


def test_a_chart_in_chinese_places_its_texts_apart() -> None:
    layout = _layout.lay_out([GPU], False, Wording("zh"))
    names = [label.text for label, _ in layout.roof_labels]
    assert len(names) == len(layout.roofs) and any(name.startswith("缓存 ") for name in names)
    assert all("，" in name for name in names)
    assert not [a for a, b in combinations(boxes(layout), 2) if a.overlaps(b)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 300), st.floats(0, 200)), max_size=25))
def test_labels_never_overlap_wherever_the_points_are(places: list[tuple[float, float]]) -> None:
    board = Board(300, 200, 11)
    marks = [Mark(x, y, str(index + 1)) for index, (x, y) in enumerate(places)]
    for mark in marks:
        board.symbol(mark.x, mark.y, 5)
    labels = label_marks(board, marks, _numbers.ranges, 38)
    placed = [label.box(11) for label, _ in labels]
    assert not any(a.overlaps(b) for index, a in enumerate(placed) for b in placed[index + 1 :])
    named = [text for _, texts in labels for text in texts]
    assert len(named) == len(set(named))


def test_a_label_rather_moves_than_covers_a_line() -> None:
    board = Board(200, 200, 11)
    board.line(0, 100, 200, 100)
    places = [Label("near", 100, 100), Label("clear", 100, 80, cost=10)]
    assert board.place(places) is places[1]


def test_a_label_covers_a_faint_symbol_only_where_no_place_is_free() -> None:
    board = Board(200, 200, 11)
    board.symbol(100, 100, 6, faint=True)
    places = [Label("near", 100, 100), Label("clear", 100, 80, cost=4), Label("far", 100, 60, cost=6)]
    assert board.place([places[0], places[2]]) is places[0]
    assert board.place(places) is places[1]


def test_ranges_are_short_and_complete() -> None:
    assert _numbers.ranges(["1", "2", "3", "7"]) == "1-3,7"
    assert _numbers.ranges(["A9", "B1", "B2", "B3"]) == "A9,B1-3"
    assert _numbers.ranges([]) == ""


@pytest.mark.parametrize("theme", ["light", "dark", "css"])
def test_every_text_lies_on_an_edge_of_the_background(theme: str) -> None:
    layers = {layer["name"]: layer for layer in chart.spec([GPU], theme)["layer"]}
    for name in ("labels", "roof_labels"):
        marks = [part["mark"] for part in layers[name]["layer"]]
        below, above = marks[::2], marks[1::2]
        assert {mark["stroke"] for mark in below} == {_theme.THEMES[theme]["paper"]}
        assert [mark["align"] for mark in below] == [mark["align"] for mark in above if "stroke" not in mark]


@pytest.mark.parametrize("points", [(), GPU.points[:1], (GPU.points[0], GPU.points[0])])
def test_small_runs_still_make_a_chart(points: tuple[Point, ...]) -> None:
    run = samples.run("gpu", points=points)
    bare = run.model_copy(update={"machine": run.machine.model_copy(update={"ceilings": ()})})
    for candidate in (run, bare):
        text = json.dumps(chart.spec([candidate], static=True), allow_nan=False)
        assert "Infinity" not in text


def test_static_pictures_are_made_and_name_every_point() -> None:
    pytest.importorskip("vl_convert", reason="pictures need the report extra")
    svg = chart.to_svg([GPU])
    texts = re.findall(r"<(?:text|tspan)[^>]*>([^<]+)<", svg)
    assert any("in brackets where the time is more than twice that floor" in text for text in texts)
    for row in _view.rows([GPU]):
        if row.number:
            assert any(
                re.match(rf"{row.number}\s+{row.point.kernel} {row.point.implementation} ", text) for text in texts
            )
    assert chart.to_png([GPU]).startswith(b"\x89PNG")
    assert chart.to_pdf([GPU]).startswith(b"%PDF")
    assert "<img" not in chart.to_svg([samples.hostile_run()])


def test_missing_extra_is_a_sentence_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *rest, **options):
        if name == "vl_convert":
            raise ImportError(name)
        return original(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(_view.MissingExtra, match=r"pip install '\.\[report\]' from a checkout"):
        chart.to_svg([GPU])

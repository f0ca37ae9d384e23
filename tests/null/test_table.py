"""Tables and exports: nothing missing, nothing wrapped, nothing hostile alive, numbers as the record has them."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
import samples
from rich.console import Console
from sequence_samples import sequence_run

from seqroof.roofline import _view, export, table
from seqroof.roofline.record import Run
from seqroof.roofline.walls import holds


def printed(run: Run, width: int, all_points: bool = False, **options) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False, **options)
    table.render(run, console, all_points)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
@pytest.mark.parametrize("kind", ["gpu", "cpu"])
def test_every_point_has_its_line_at_every_width(kind: str, width: int) -> None:
    run = samples.run(kind)
    text = printed(run, width)
    if width >= 80:
        assert max(map(len, text.splitlines())) <= width
    flat = re.sub(r"\s+", " ", text)
    for point in run.points:
        if point.status == "ok" and point.headline:
            median = table._view.time_text(point)
            assert re.search(rf"{re.escape(point.implementation)} +{point.dtype} +{re.escape(median)}", text)
        elif point.status not in ("ok", "invalid"):
            assert f"{point.shape_text} {point.dtype}" in flat
            assert point.reason in flat


def test_numbers_are_never_wrapped_and_columns_line_up() -> None:
    lines = printed(samples.run("gpu"), 80).splitlines()
    rows = [line for line in lines if re.match(r"^( ?\d+|  ) .*±", line)]
    assert len(rows) == 33
    scored = [row for row in rows if "invalid" not in row]
    assert len({row.index(" %", row.index("±") + 7) for row in scored}) == 1
    assert all(row.endswith((" ok", " ok (a)")) for row in scored)


def test_dropped_columns_are_named() -> None:
    assert "Left out for lack of width" in printed(samples.run("gpu"), 80)
    wide = printed(samples.run("gpu"), 140)
    assert "Left out" not in wide
    assert all(title in wide for title in ("best wall", "design", "rate", "±"))


def test_other_points_are_shown_on_request() -> None:
    assert "3 more points" in printed(samples.run("gpu"), 100)
    everything = printed(samples.run("gpu"), 100, all_points=True)
    assert "more points" not in everything
    assert "lstm_step forward, warm (events)" in everything


def test_warnings_are_told_once_with_cause_and_advice() -> None:
    run = samples.run("gpu")
    twice = tuple(
        point.model_copy(update={"warnings": (samples.NOISY,)}) if point.kernel == "gated_conv" else point
        for point in run.points
    )
    text = re.sub(r"\s+", " ", printed(run.model_copy(update={"points": twice}), 100))
    assert text.count(samples.NOISY.cause) == 1
    assert samples.NOISY.advice in text
    assert text.count("ok (a)") >= 6


def test_invalid_points_have_no_percentage_and_a_reason() -> None:
    text = printed(samples.run("gpu"), 120)
    line = next(line for line in text.splitlines() if line.endswith("  invalid"))
    assert "±0.9 %" in line and line.count("%") == 1
    assert "faster than the best possible floor by 31 %" in text


def test_contested_wall_and_sources_are_in_words() -> None:
    text = printed(samples.run("cpu"), 100)
    assert "DRAM ≈ compute" in text
    assert "Measured: time" in text and "Modelled: walls" in text
    assert re.search(r"dram bandwidth, read +21.0 GB/s +±0.3 % +measured", text)


def test_a_wall_that_does_not_hold_stands_in_brackets() -> None:
    """At less than half of its floor's speed a wall does not hold a point."""
    given = samples.run("cpu")
    near = next(point for point in given.points if point.status == "ok" and point.bound == "dram" and holds(point))
    assert near.time_s is not None
    slower = {name: 2.5 * getattr(near.time_s, name) for name in ("median", "low", "high", "min", "p95")}
    far = near.model_copy(update={"time_s": near.time_s.model_copy(update=slower)})
    assert (_view.own_wall(near)[:4], _view.own_wall(far)[:5]) == ("DRAM", "(DRAM")
    assert _view.own_wall(near.model_copy(update={"time_s": None})) == _view.own_wall(near)
    text = printed(given.model_copy(update={"points": (far,)}), 100)
    assert "(DRAM" in text and "one in brackets" in " ".join(text.split())


def test_no_colour_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    coloured = printed(samples.run("gpu"), 100, force_terminal=True, color_system="standard", no_color=False)
    assert "\x1b[34m" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    plain = printed(samples.run("gpu"), 100, force_terminal=True, color_system="standard")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", plain)
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == re.sub(r"\x1b\[[0-9;]*m", "", plain)


def test_hostile_names_cannot_steer_the_terminal() -> None:
    text = printed(samples.hostile_run(), 100)
    assert "\x1b" not in text
    assert "[red]odd[/blue]" in text


def test_terminal_without_unicode_gets_ascii() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    table.render(samples.run("gpu"), Console(file=stream, width=100))
    stream.flush()
    assert b"us +-0.9 %" in stream.buffer.getvalue()  # type: ignore[attr-defined]


def test_run_without_points_or_ceilings_says_so() -> None:
    run = samples.run("cpu", points=())
    bare = run.model_copy(update={"machine": run.machine.model_copy(update={"ceilings": ()})})
    text = printed(bare, 80)
    assert "no points" in text and "seqroof ceilings" in text


def test_csv_holds_every_point_unrounded() -> None:
    run = samples.run("gpu")
    rows = list(csv.DictReader(io.StringIO(export.csv(run))))
    assert len(rows) == len(run.points)
    by_key = {(p.kernel, p.implementation, p.shape_text, p.dtype, p.cache): p for p in run.points}
    for row in rows:
        point = by_key[row["kernel"], row["implementation"], row["shape"], row["dtype"], row["cache"]]
        assert row["status"] == point.status
        assert (float(row["time_s"]) if row["time_s"] else None) == (point.time_s.median if point.time_s else None)
        assert row["floor_dram_s"] == (str(point.floors_s.dram) if point.floors_s else "")


def test_csv_text_is_no_formula() -> None:
    point = samples.unmeasured("skipped", "=HYPERLINK(1)", "+k", "@i", {"B": 1}, "fp32")
    row = next(csv.DictReader(io.StringIO(export.csv(samples.run("cpu", points=(point,))))))
    assert (row["reason"], row["kernel"], row["implementation"]) == ("'=HYPERLINK(1)", "'+k", "'@i")


def test_json_is_the_record() -> None:
    run = samples.run("gpu")
    assert Run.model_validate_json(export.json(run)) == run
    assert json.loads(export.json(run))["points"][0]["work"]["flops"] == run.points[0].work.flops  # type: ignore


def test_markdown_tables_stay_tables() -> None:
    for run in (samples.run("gpu"), samples.hostile_run()):
        blocks = [line for line in export.markdown(run).splitlines() if line.startswith("|")]
        columns = [len(re.findall(r"(?<!\\)\|", line)) for line in blocks]
        assert columns.count(16) == sum(p.status in ("ok", "invalid") for p in run.points) + 2
        walls, walks, ceilings, claims, environment = 6, 6, 6, 11, 3
        assert set(columns) <= {16, 5, walls, walks, ceilings, claims, environment}
        assert "<img" not in export.markdown(run)


def test_an_interval_without_meaning_is_not_printed_as_a_number() -> None:
    point = samples.run("cpu").points[0]
    wild = point.model_copy(update={"time_s": point.time_s.model_copy(update={"high": 1000 * point.time_s.median})})  # type: ignore
    text = printed(samples.run("cpu", points=(wild,)), 120)
    assert ">1000 %" in text and "±" in text


@pytest.mark.parametrize("width", [80, 120])
def test_sequences_show_time_per_step_parts_and_launch_tax(width: int) -> None:
    text = printed(sequence_run(), width)
    assert max(map(len, text.splitlines())) <= width
    assert re.search(r"triton_resident +bf16 +44.6 µs +±0.9 % +2.79 µs +\(serial\)", text)
    flat = re.sub(r"\s+", " ", text)
    assert "of which input product 4.03 µs serial, recurrence 39.6 µs (serial), each measured alone" in flat
    assert "launching adds 3.19 µs per step (host clock minus graph)" in flat
    assert "Per step: the measured time" in flat


def test_runs_without_sequences_have_no_column_for_steps() -> None:
    assert "per step" not in printed(samples.run("gpu"), 160)
    assert "per step" not in export.markdown(samples.run("gpu"))


def test_exports_hold_steps_and_parts() -> None:
    run = sequence_run()
    text = export.markdown(run)
    assert "| per step | launch tax |" in text and "| 2 | recurrence | 39.6 µs | ±0.9 % | (serial) |" in text
    rows = {row["number"]: row for row in csv.DictReader(io.StringIO(export.csv(run)))}
    assert float(rows["2"]["step_s"]) == pytest.approx(44.6e-6 / 16)
    assert rows["2"]["steps"] == "16" and rows["2"]["hoists"] == "1"
    assert rows["2"]["parts"].startswith("input product 4.03")
    assert float(rows["3"]["launch_tax_s"]) == pytest.approx((108e-6 - 57e-6) / 16)

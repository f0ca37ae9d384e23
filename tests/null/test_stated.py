"""Measured limits beside what driver and datasheet state, on the terminal, in Markdown and on the page."""

import io

import pytest
import samples
from rich.console import Console
from round_machine import ceiling

from seqroof.roofline import export, stated, table
from seqroof.roofline.catalogue import measured_machine
from seqroof.roofline.machine import Ceiling


def derived(quantity, level, value, unit, dtype=""):
    return Ceiling(
        quantity=quantity, level=level, dtype=dtype, pattern="driver", value=value, unit=unit, provenance="derived",
        how="6144 bit x 3201 MHz x 2",
    )  # fmt: skip


OWN = (
    ceiling("bandwidth", "dram", 4.2e12, pattern="copy"),
    ceiling("bandwidth", "dram", 4.0e12),
    ceiling("bandwidth", "dram", 9e12, pattern="copy", scope="burst"),
    ceiling("bandwidth", "dram", 3.9e12, "bf16", "gemv"),
    ceiling("rate", "tensor", 735e12, "bf16", "", "FLOP/s"),
    ceiling("latency", "launch", 2.3e-6, unit="s"),
    ceiling("capacity", "cache", 38e6, pattern="knee", unit="B"),
    derived("bandwidth", "dram", 4.917e12, "B/s"),
    derived("rate", "tensor", 1070e12, "FLOP/s", "bf16"),
    derived("rate", "tensor", 2140e12, "FLOP/s", "fp8"),
)
H200 = measured_machine("x", "NVIDIA H200", "cuda", OWN)


def rows(ceilings):
    return {row.cells()[0]: row.cells()[1:] for row in stated.side_by_side(ceilings)}


def test_measured_derived_and_stated_stand_in_one_row():
    found = rows(H200.ceilings)
    assert found["dram bandwidth, copy"] == ("4.20 TB/s", "4.92 TB/s", "4.80 TB/s", "88 %")
    assert found["tensor rate bf16"] == ("735 TFLOP/s", "1.07 PFLOP/s", "989 TFLOP/s", "74 %")
    assert found["launch latency"][2] == "2.50 µs (assumed)"
    assert "tensor rate fp8" not in found  # was not measured


def test_without_anything_stated_the_derived_figure_is_the_measure():
    assert rows(OWN)["dram bandwidth, copy"] == ("4.20 TB/s", "4.92 TB/s", "-", "85 %")
    assert rows(OWN[:7]) == {}


def test_roofs_of_an_earlier_run_count_as_measured_and_say_so():
    old = [c.model_copy(update={"provenance": "replayed"}) if c.provenance == "measured" else c for c in OWN]
    assert rows(old)["dram bandwidth, copy"][0] == "4.20 TB/s (replayed)"


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_shows_them_aligned(width):
    console = Console(width=width, file=io.StringIO(), highlight=False)
    table.ceilings(H200.ceilings, console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert all(len(line) <= width for line in lines)
    start = lines.index("Measured beside stated")
    heading, *below = lines[start + 1 : start + 4]
    assert heading.split()[-2:] == ["stated", "share"]
    assert {len(line) for line in (heading, *below)} == {len(heading)}


def test_markdown_and_page_show_them():
    run = samples.run("gpu").model_copy(update={"machine": H200})
    assert "| dram bandwidth, copy | 4.20 TB/s | 4.92 TB/s | 4.80 TB/s | 88 % |" in export.markdown(run)
    pytest.importorskip("jinja2")
    pytest.importorskip("vl_convert")
    from seqroof.roofline import page

    text = page.render([run])
    assert "measured beside stated" in text.lower() and "4.92 TB/s" in text

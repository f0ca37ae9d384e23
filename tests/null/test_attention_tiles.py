"""The tiles of attention: which of them multiply in warp groups on sm_90; the documentation names the others."""

from pathlib import Path

from seqroof.kernels import _attention_tiles as tiles
from seqroof.profiler.compiled import WARP_GROUP_ROWS, WARP_GROUP_WARPS


def test_sixteen_bit_products_fill_a_warp_group_but_for_the_listed_ones() -> None:
    """What is compiled in every run is a part of them, so the tiles of all are looked at."""
    narrow = set()
    for kernel in (tiles.FORWARD, tiles.QUERIES, tiles.KEYS):
        for width, layout in tiles.TILES[kernel.name]["bf16"]:
            tile = tiles.tile_of(kernel, "bf16", width, layout)
            rows = tile.keys if kernel is tiles.KEYS else tile.queries
            # A name with a target is of another one than sm_90.
            if layout == tiles.plain(layout) and (rows < WARP_GROUP_ROWS or tile.warps < WARP_GROUP_WARPS):
                narrow.add((kernel.name, width, layout))
    assert narrow == tiles.WITHOUT_WARP_GROUPS


def test_only_sixteen_bit_types_and_all_but_the_listed_ones_expect_warp_groups() -> None:
    found = set()
    for case in tiles.COMPILE:
        name, dtype = case.label.partition(" P=")[0].rsplit(" ", 1)
        configuration = (name, case.constexprs["BLOCK_P"], case.constexprs["LAYOUT"])
        if "warp group" in case.expects:
            assert dtype in ("bf16", "fp16") and configuration not in tiles.WITHOUT_WARP_GROUPS, case.label
        elif dtype in ("bf16", "fp16"):
            found.add((dtype, *configuration))
    assert found == {(dtype, *one) for dtype in ("bf16", "fp16") for one in tiles.WITHOUT_WARP_GROUPS}


def test_the_documentation_names_the_listed_ones() -> None:
    text = " ".join((Path(__file__).resolve().parents[2] / "docs" / "inspect.md").read_text().split())
    words = {"forward": "forward pass", "dq": "gradient of the queries", "dk dv": "gradients of keys and values"}
    for kernel, width, layout in tiles.WITHOUT_WARP_GROUPS:
        when = "not aligned" if layout == "unaligned" else "rows of different lengths"
        assert f"| {words[kernel]} | {width // 2 + 1} to {width} | {when}" in text, (kernel, width, layout)

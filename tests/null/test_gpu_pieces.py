"""The pieces of the GPU suite: limits, order, and that everything they name exists."""

from __future__ import annotations

from pathlib import Path

import pytest

from seqroof.kernels import _catalog
from seqroof.profiler.claim_plan import claim_cases
from seqroof.profiler.plan import shapes_of
from seqroof.scripts.gpu_pieces import PIECES, ROOFS
from seqroof.scripts.sweep import parse_directions, parse_dtypes, parse_duration, parse_shape

ROOT = Path(__file__).resolve().parents[2]


def test_the_telling_pieces_fit_into_half_an_hour_all_into_forty_minutes_and_each_into_ten():
    limits = {piece.name: piece.limit_s for piece in PIECES if not (piece.needs or piece.unless)}
    telling = list(limits)[: list(limits).index("lstm_sizes") + 1]
    assert sum(limits[name] for name in telling) <= 1800
    assert sum(limits.values()) <= 2400
    assert all(piece.limit_s <= 600 for piece in PIECES)
    assert len({piece.name for piece in PIECES}) == len(PIECES)


def test_roofs_come_first_and_a_launch_that_hangs_shows_within_the_limit_of_its_piece():
    assert PIECES[0].keeps == ROOFS[0] and PIECES[1].keeps == ROOFS[1] and PIECES[1].unless == ROOFS[0]
    for piece in PIECES:
        if "profile" in piece.command:
            words = piece.command
            assert words[words.index("--roofs") + 1] == "{roofs}"
            assert parse_duration(words[words.index("--deadline") + 1]) <= piece.limit_s / 2


@pytest.mark.parametrize(
    "piece", [piece for piece in PIECES if "profile" in piece.command], ids=lambda piece: piece.name
)
def test_what_is_profiled_exists(piece):
    """Kernels, sizes, dtypes and rows of a piece are known: a spelling error would be noticed on a GPU only."""
    # A switch takes no value.
    words = [word for word in piece.command[piece.command.index("profile") + 1 :] if word != "--counters"]
    names = [words[0]] if not words[0].startswith("--") else []
    options = dict(zip(words[len(names) :: 2], words[len(names) + 1 :: 2], strict=True))
    assert parse_duration(options["--budget"]) < piece.limit_s
    assert options["--out"] == f"{{out}}/{piece.name}"
    parse_dtypes([options.get("--dtype", "")])
    parse_directions([options.get("--direction", "")])
    if "--suite" in options:
        assert options["--suite"] == "claims" and claim_cases("cuda", names, _catalog.load)
    for name in names:
        kernel = _catalog.load(name)
        assert shapes_of(kernel, "quick", parse_shape([text for text in [options.get("--shape")] if text]))
        rows = [row for row in options.get("--implementation", "").split(",") if row]
        assert set(rows) <= set(kernel.implementations)


def test_no_test_on_a_gpu_measures_the_whole_roofs_for_itself():
    """A size that is named is measured at length, roofs first: more than a minute that its piece does not have."""
    for file in (ROOT / "tests" / "gpu").glob("test_*.py"):
        text = file.read_text()
        assert "--shape" not in text or "--roofs" in text, file.name


def test_timed_tests_run_alone():
    by_name = {piece.name: piece.command for piece in PIECES}
    for name in ("clock", "telemetry", "ceilings", "noise", "exploits"):
        file = f"tests/gpu/test_{name}.py"
        assert file in by_name["clocks"] and f"--ignore={file}" in by_name["tests"]
        assert (ROOT / file).exists()
